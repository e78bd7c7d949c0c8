"""How long an advertisement runs: hazards of two terms on one trunk of joined encoders, losses weighted by click rates.

Paper: Kitada, Iyatomi and Seki, "Ad Creative Discontinuation Prediction with Multi-Modal Multi-Task Neural Survival Networks",
Applied Sciences 2022, https://arxiv.org/abs/2204.11588 (abstract read; threshold, weights and encoders as described elsewhere).

Days are cut into intervals ``k``; the hazard ``lambda_k = sigmoid(w_k z + b_k)`` is the probability of being stopped in interval
``k`` given survival so far. A creative whose last interval is ``k``, stopped (``e = 1``) or still running, has the loss
``- e log lambda_k - (1 - e) log(1 - lambda_k) - sum over i < k of log(1 - lambda_i)``. Cut-out (early) and wear-out (late) are
different processes: a short head learns the first days, with all later events censored at the threshold, a long head what comes
after it, from creatives that survive it. Both read the shared ``z``; the loss is ``L_short + L_long``. Joined at the threshold the
two are one sequence of hazards, which predicts.

How it fits: hazards factorise over intervals, so the two losses are the likelihood of the joined sequence, cut at the threshold,
each with a mean of its own. :class:`TwoTermSurvival` is the model: its output for a survival task is the joined sequence, decoded
and scored as that of any other. :class:`TwoTermLikelihood` replaces the loop's loss by the two terms with weights.

Departures: means are taken over the intervals at risk (in the paper, over creatives), so that both terms count alike however many
intervals they have; the long head has no hazards before the threshold, where all of its creatives survive; heads may have a hidden
layer of their own; the weight ``w = 1 - strength + strength * ctr / mean ctr`` has mean 1 over the training rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpecs
from graftwork.core.records import TaskSpec
from graftwork.domains.advertising.relative_column import RelativeColumn
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.binding import Binding
from graftwork.interfaces.objective import Objective, ObjectiveInputs
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.heads import GlobalHead
from graftwork.nn.mlp import mlp
from graftwork.tasks.kinds.survival import risk_and_events
from graftwork.tasks.metrics.survival import edges_of

__all__ = ["TwoTermLikelihood", "TwoTermSurvival", "split_at"]


def split_at(spec: TaskSpec, threshold: float = 0.0) -> int:
    """Return how many of the first intervals of a survival task are its short term, from 1 to ``size - 1``; 0 if it has one
    interval only.

    Args:
        spec: The task.
        threshold: Time at which the long term begins, in the user's units: the nearest end of an interval counts. 0 takes the
            middle interval, before which about half of the events come.

    Raises:
        ConfigError: If the threshold lies outside of the intervals.

    Example:
        >>> split_at(TaskSpec(name="stay", kind="survival", size=4, details={"edges": [1.0, 2.0, 4.0, 8.0]}), 3.8)
        3
    """
    edges = edges_of(spec)
    if not 0 <= threshold < math.inf or (len(edges) > 1 and threshold >= edges[-1]):
        raise ConfigError(
            f"Task {spec.name!r}: `threshold` must be from 0 (the middle) to below {edges[-1]:g}, where its last interval ends; "
            f"got {threshold!r}."
        )
    if len(edges) < 2:
        return 0
    # Not the last edge: the long term keeps at least one interval.
    return len(edges) // 2 if threshold == 0 else 1 + int(abs(edges[:-1] - threshold).argmin())


class TwoTermSurvival(SharedModel):
    """Backbone, a dense layer ``z``, and for each survival task a head for the short and one for the long term.

    Other tasks get one head each.

    Args:
        tasks: The tasks, one answer a row each.
        make_backbone: Returns a fresh backbone (of several inputs, their encoders side by side).
        inputs: The suite's inputs.
        threshold: Where the long term begins; see :func:`split_at`.
        width: Width of ``z``.
        head_hidden: Hidden width of each head; 0 makes hazards linear in ``z``, as in the paper.
        two_terms: False gives survival tasks one head for all intervals, for comparisons.
        weight_column: Numeric column of the table (a click rate, at least 0) by which :class:`TwoTermLikelihood` weights rows;
            empty for equal weights.
        dropout: Probability of dropping a unit of ``z``.

    Raises:
        ConfigError: If a task asks for one answer per position, the threshold lies outside of a task's intervals, or there is no
            such column.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        make_backbone: Callable[[], Backbone],
        *,
        inputs: InputSpecs,
        threshold: float = 0.0,
        width: int = 64,
        head_hidden: int = 32,
        two_terms: bool = True,
        weight_column: str = "",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        dense = [task.name for task in tasks if task.is_dense]
        if dense:
            raise ConfigError(f"Two-term survival gives one answer a row; {', '.join(dense)} ask for one per position.")
        self.task_names = tuple(task.name for task in tasks)
        self._index = {name: index for index, name in enumerate(self.task_names)}
        self.backbone = make_backbone()
        self.trunk = nn.Sequential(
            GlobalHead(self.backbone.feature_shape, width, hidden=0), nn.GELU(), nn.Dropout(dropout), nn.LayerNorm(width)
        )
        self.terms: dict[str, tuple[slice, ...]] = {}
        """Of each survival task, which intervals make up each of its terms."""
        self.heads = nn.ModuleList()
        for task in tasks:
            sizes = [task.num_outputs]
            if task.kind == "survival":
                cut = split_at(task, threshold) if two_terms else 0
                # The two heads together give as many hazards as one head would.
                sizes = [cut, task.size - cut] if cut else sizes
                self.terms[task.name] = (slice(0, cut), slice(cut, task.size)) if cut else (slice(0, task.size),)
            self.heads.append(nn.ModuleList(mlp([width, head_hidden, size] if head_hidden else [width, size]) for size in sizes))
        self.weight = RelativeColumn.find(inputs, weight_column) if weight_column else None

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        """Return ``z``, ``[B, width]``."""
        found: Tensor = self.trunk(self.backbone(inputs))
        return found

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the outputs of the asked tasks; those of a survival task are the hazards' logits, both terms joined."""
        asked = self.task_names if tasks is None else tasks
        # Terms lie in the order of time, so their logits joined are the whole sequence.
        return {name: torch.cat([head(representation) for head in self.heads_of(name)], dim=1) for name in asked}

    def heads_of(self, task: str) -> nn.ModuleList:
        """Return the heads of a task, one per term."""
        heads = self.heads[self._index[task]]
        assert isinstance(heads, nn.ModuleList)
        return heads

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of the task's heads."""
        return self.heads_of(task).parameters()


class TwoTermLikelihood(Objective):
    """Replaces the loss of each survival task of a :class:`TwoTermSurvival` by ``L_short + L_long`` with weights for the rows.

    The loop's loss is one mean over all intervals at risk; this term is the difference to it. Of a model with one term it brings
    the weights alone.

    Args:
        strength: Share of a row's weight that grows with the model's weight column, in [0, 1]: 0 weights all rows equally, 1 in
            proportion to the column.

    Raises:
        ValueError: If ``strength`` is not in [0, 1].
    """

    def __init__(self, strength: float = 0.5) -> None:
        if not 0.0 <= strength <= 1.0:
            raise ValueError(f"`strength` must be in [0, 1]; got {strength!r}.")
        self.strength = strength
        self._tasks: dict[str, TaskSpec] = {}

    def bind(self, binding: Binding) -> None:
        """Take the survival tasks.

        Raises:
            ConfigError: If the model is no :class:`TwoTermSurvival`, or no task is a survival task.
        """
        model = binding.model
        if not isinstance(model, TwoTermSurvival):
            raise ConfigError(
                f"TwoTermLikelihood needs the model TwoTermSurvival; got {type(model).__name__}. Use both in a plan, or neither."
            )
        self._tasks = {task.name: task for task in binding.tasks if task.name in model.terms}
        if not self._tasks:
            kinds = ", ".join(f"{task.name} ({task.kind})" for task in binding.tasks)
            raise ConfigError(f"Two-term survival needs a survival task (a time and an event); the tasks are {kinds}.")

    def weights(self, model: TwoTermSurvival, inputs: Mapping[str, Tensor]) -> Tensor | float:
        """Return the weight of each row, ``[B, 1]``, mean 1 over the training rows; 1 without a column."""
        if model.weight is None or self.strength == 0.0:
            return 1.0
        return 1.0 - self.strength + self.strength * model.weight.relative(inputs).unsqueeze(1)

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        """Return the weighted terms less the plain losses, a scalar."""
        model = inputs.model
        assert isinstance(model, TwoTermSurvival)
        weights = self.weights(model, inputs.batch.inputs)
        total = inputs.losses.new_zeros(())
        for name, task in self._tasks.items():
            output = inputs.outputs[name]
            at_risk, here = risk_and_events(task, inputs.batch.targets[name])
            # [B, K]: of each interval, whether the event came in it.
            each = F.binary_cross_entropy_with_logits(output, here.to(output.dtype), reduction="none")
            # Intervals after the event or the censoring tell nothing.
            each = torch.where(at_risk, each, torch.zeros_like(each)) * weights
            for term in model.terms[name]:
                total = total + each[:, term].sum() / at_risk[:, term].sum().clamp(min=1)
            # The loop adds its own loss of the task; this takes it out again.
            total = total - inputs.losses[model.task_names.index(name)]
        return total
