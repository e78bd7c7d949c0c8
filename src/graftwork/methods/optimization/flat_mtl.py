r"""F-MTL: every task climbs to its own worst point, and its gradient there is split into a loss part and a flatness part.

Paper: Phan et al., "Improving Multi-task Learning via Seeking Task-based Flat Regions" (ICCV 2025 as "Beyond Losses Reweighting:
Empowering Multi-Task Learning via the Generalization Perspective"), https://arxiv.org/abs/2211.13723, section 3 and algorithm 1.
For each task :math:`i` with gradient :math:`g_i` of the shared and :math:`h_i` of its own parameters, on one batch:

1. move to :math:`\theta + \rho_{sh}\, g_i / \lVert g_i \rVert` and :math:`\theta_i + \rho_{ns}\, h_i / \lVert h_i \rVert`, two
   separate norms;
2. the gradients there are :math:`g_i^{SAM}` and :math:`h_i^{SAM}`; the flat part is :math:`g_i^{flat} = g_i^{SAM} - g_i`;
3. the shared parameters get :math:`AGG(g_1, \ldots, g_m) + AGG(g_1^{flat}, \ldots, g_m^{flat})`, the task's own get
   :math:`h_i^{SAM}`.

``AGG`` is any aggregator of gradients. ``2m`` backward and ``m + 1`` forward passes a step. Variants of step 3, from the paper's
ablation: ``direct`` aggregates :math:`g_i^{SAM}`; ``each`` first aggregates :math:`\{g_i, g_i^{flat}\}` of each task, then over
tasks; ``second`` aggregates the two directions of step 3 in place of adding them.

With ``adaptive`` the ascent is that of ASAM, :math:`\rho\, \theta^2 g / \lVert\, |\theta|\, g \,\rVert` elementwise, again with two
norms: the official runs on digit pictures climb so, with both radii at 2.

What the paper leaves open, and what is done here: each place where something is aggregated has an aggregator of its own, so that
those with memory do not mix losses with flatness; tasks without labels in the batch are left out and cost no second pass; a flat
part of zero (a gradient of zero) is left out likewise, which keeps solvers off it. The defaults are plain radii of 0.05, which
suit networks of any kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.balancer import BackwardContext, Balancer, Recompute
from graftwork.math.perturbation import ascent_offsets, shifted
from graftwork.methods.optimization.aggregator import Aggregator, as_aggregator, present_tasks
from graftwork.methods.optimization.gradient_rows import GradientRows
from graftwork.methods.optimization.jacobian import JacobianBalancer
from graftwork.methods.optimization.task_graph import add_gradients, gradients_from, loss_roots
from graftwork.methods.optimization.torchjd_bridge import jacobian_balancer
from graftwork.methods.optimization.two_pass import ask_recompute

__all__ = ["FlatMTL", "FlatVariant"]

FlatVariant = Literal["decomposed", "direct", "each", "second"]


class FlatMTL(Balancer):
    """Per-task sharpness-aware gradients, aggregated in a loss part and a flatness part.

    Args:
        aggregator: A name that :func:`~graftwork.methods.optimization.torchjd_bridge.jacobian_balancer` knows, or a function
            that makes a new aggregator each time it is called.
        variant: ``decomposed`` is the paper's method; see the module for the others.
        rho_shared: Length of the ascent in the shared parameters, at least 0.
        rho_own: Length of the ascent in a task's own parameters, at least 0.
        adaptive: Whether lengths are in units of the weights' own sizes, so that large weights move further; radii are then some
            ten times larger, and weights of zero stay.
        settings: What the named aggregator's constructor takes.

    Raises:
        ConfigError: If the name, the variant or a setting is wrong.
    """

    def __init__(
        self,
        aggregator: str | Callable[[], Aggregator | Callable[[Tensor], Tensor]] = "CAGrad",
        variant: FlatVariant = "decomposed",
        rho_shared: float = 0.05,
        rho_own: float = 0.05,
        adaptive: bool = False,
        **settings: Any,
    ) -> None:
        if variant not in get_args(FlatVariant):
            raise ConfigError(f"`variant` must be one of {', '.join(get_args(FlatVariant))}; got {variant!r}.")
        for name, value in (("rho_shared", rho_shared), ("rho_own", rho_own)):
            if not value >= 0:
                raise ConfigError(f"`{name}` must be at least 0; got {value!r}.")
        self.variant, self.rho_shared, self.rho_own = variant, float(rho_shared), float(rho_own)
        self.adaptive = bool(adaptive)
        self._make, self._settings = aggregator, settings
        self._aggregators: list[Aggregator] = []
        if isinstance(aggregator, str):
            self._build()  # a wrong name or setting is told at once
        self._plain: GradientRows | None = None
        self._climbed: GradientRows | None = None

    @property
    def needs_recompute(self) -> bool:
        """Always: every task's loss is looked at twice."""
        return True

    def backward(self, losses: Tensor, context: BackwardContext) -> Tensor | None:
        """Add gradients to ``.grad`` of all parameters; returns the weights ``[T]`` of the loss part if its aggregator has such.

        Raises:
            ConfigError: If the batch cannot be repeated.
        """
        recompute = ask_recompute(context, "F-MTL")
        if not losses.requires_grad:
            return None
        plain, climbed = self._prepare(context.shared, len(losses))
        # All first passes come before any second one: a second one moves the weights that the graph of `losses` still needs.
        own_gradients = _first_pass(losses, context, plain)
        present = losses.detach() != 0 if plain is None else present_tasks(losses, plain.matrix)
        for task, is_present in enumerate(present.tolist()):
            if is_present:
                self._second_pass(task, context, recompute, plain, climbed, own_gradients[task])
            # The buffer still holds the last step's row of this task.
            elif climbed is not None:
                climbed.write(task, [None] * len(context.shared))
        if plain is None or climbed is None:
            return None
        with torch.no_grad():
            direction, weights = self._direction(plain.matrix, climbed.matrix, present)
            plain.add_to_gradients(direction)
        return weights

    def _prepare(self, shared: Sequence[nn.Parameter], num_tasks: int) -> tuple[GradientRows | None, GradientRows | None]:
        if not shared:
            return None, None
        if self._plain is None or not self._plain.fits(shared, num_tasks):
            self._plain = self._climbed = None  # gives the old buffers back before new ones are made
            self._plain, self._climbed = GradientRows(shared, num_tasks), GradientRows(shared, num_tasks)
        return self._plain, self._climbed

    def _second_pass(
        self,
        task: int,
        context: BackwardContext,
        recompute: Recompute,
        plain: GradientRows | None,
        climbed: GradientRows | None,
        own_gradients: Sequence[Tensor],
    ) -> None:
        shared, own = list(context.shared), list(context.owned[task])
        offsets: list[Tensor] = []
        if plain is not None:
            offsets += ascent_offsets(shared, plain.split(plain.matrix[task]), self.rho_shared, adaptive=self.adaptive)
        offsets += ascent_offsets(own, own_gradients, self.rho_own, adaptive=self.adaptive)
        with shifted([*shared, *own], offsets):
            again = recompute().losses
            # Only this task's loss: its own ascent says nothing about the others' worst points.
            root = loss_roots(again)[task]
            assert root is not None, "the loss had a gradient in the first pass"
            found = gradients_from(root, [*shared, *own], again, retain_graph=False)
        if climbed is not None:
            climbed.write(task, found[: len(shared)])
        add_gradients(own, found[len(shared) :])

    def _direction(self, plain: Tensor, climbed: Tensor, present: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the direction ``[P]``, in memory of its own, and the weights of the loss part; both matrices are used up."""
        if len(plain) == 1:
            return climbed[0].clone(), None
        if self.variant == "direct":
            direction, weights = self._aggregator(0).combine_(climbed, present)
            return direction.clone(), weights
        # In place: the climbed gradients are not needed any more, and a third matrix [T, P] would be large.
        flat = climbed.sub_(plain)
        flat_present = present & flat.any(dim=1)
        if self.variant == "each":
            merged = torch.empty_like(plain)
            for task in range(len(plain)):
                pair = torch.stack([plain[task], flat[task]])
                merged[task] = self._aggregator(1 + task).combine_(pair, torch.stack([present[task], flat_present[task]]))[0]
            # Place 0 is over tasks in all variants; places 1 to T belong to one task each.
            direction, weights = self._aggregator(0).combine_(merged, present)
            return direction.clone(), weights
        uphill, weights = self._aggregator(0).combine_(plain, present)
        # Radii of 0 leave nothing for the second aggregator, and solvers fail without a row.
        if not bool(flat_present.any()):
            return uphill.clone(), weights
        rough, _ = self._aggregator(1).combine_(flat, flat_present)
        if self.variant == "decomposed":
            # `uphill` and `rough` may be views of the two matrices; the sum has memory of its own.
            return uphill + rough, weights
        both = torch.stack([uphill, rough])
        return self._aggregator(2).combine_(both, both.any(dim=1))[0].clone(), None

    def _aggregator(self, index: int) -> Aggregator:
        """Return the aggregator of one place, made when first asked for."""
        while len(self._aggregators) <= index:
            self._aggregators.append(self._build())
        return self._aggregators[index]

    def _build(self) -> Aggregator:
        if isinstance(self._make, str):
            return cast(JacobianBalancer, jacobian_balancer(self._make, **self._settings)).aggregator
        return as_aggregator(self._make())

    def reset(self) -> None:
        """Forget what the aggregators remember."""
        for aggregator in self._aggregators:
            aggregator.reset()

    def state_dict(self) -> dict[str, Any]:
        """Return the aggregators' memories."""
        return {"aggregators": [aggregator.state_dict() for aggregator in self._aggregators]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        for index, values in enumerate(state["aggregators"]):
            self._aggregator(index).load_state_dict(values)


def _first_pass(losses: Tensor, context: BackwardContext, rows: GradientRows | None) -> list[list[Tensor]]:
    """Fill the rows with the tasks' gradients and return those of each task's own parameters."""
    shared, roots = list(context.shared), loss_roots(losses)
    last = max((index for index, root in enumerate(roots) if root is not None), default=-1)
    own_gradients: list[list[Tensor]] = []
    for task, root in enumerate(roots):
        own = list(context.owned[task])
        inputs = [*shared, *own]
        found: Sequence[Tensor | None] = [None] * len(inputs)
        if root is not None and inputs:
            found = gradients_from(root, inputs, losses, retain_graph=task != last)
        if rows is not None:
            rows.write(task, found[: len(shared)])
        pairs = zip(own, found[len(shared) :], strict=True)
        own_gradients.append([torch.zeros_like(parameter) if gradient is None else gradient for parameter, gradient in pairs])
    return own_gradients
