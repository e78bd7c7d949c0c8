"""What several models changed of one base, held as tensors, and the models' networks, through which other weights are tried.

Methods that learn how to combine changes differ in what they multiply them with: a number for each model, for each model and
tensor, a mask. All of them make weights from :attr:`TaskVectors.start` and :attr:`TaskVectors.changes`, and
:meth:`TaskVectors.backward` carries the gradient of the models' answers back to what the weights were made of. Networks keep
their own heads; nothing of them learns.
"""

from __future__ import annotations

import glob
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.interfaces.model_merger import MergeContext, MergeModel
from graftwork.methods.merging.model_answers import Answering
from graftwork.methods.merging.row_pools import RowPool, collect_rows, has_label, may_belong_to
from graftwork.methods.merging.sources import are_equal, is_float, shape
from graftwork.methods.merging.tensor_roles import TensorRoles, assign_roles

if TYPE_CHECKING:
    from torch import Tensor

    from graftwork.core.batch import Batch

__all__ = ["TaskVectors", "shared_roles"]

Array = NDArray[Any]


def shared_roles(
    base: MergeModel, experts: Sequence[MergeModel], answering: Sequence[Answering], *, exclude: Sequence[str] = ()
) -> TensorRoles:
    """Return which tensors are merged: those that base and models share in name and shape, without those of single tasks.

    Parameters of a task are merged only if all models answer the same tasks. What is left out is said as a warning.

    Args:
        base: The base, or whatever stands in its place.
        experts: The models.
        answering: Their networks; empty takes no tensor for one of a task.
        exclude: Shell patterns of further tensors that keep the base's values.

    Raises:
        DataError: If nothing is left to merge, or the models do not fit their base.
    """
    owned: set[str] = set()
    if len({model.answered for model in answering}) > 1:
        owned = {name for model in answering for name in model.owned()}
    unshared = [
        name
        for name in base.tensors
        if name not in owned
        and is_float(base.tensors, name)
        and any(name not in model.tensors or shape(model.tensors, name) != shape(base.tensors, name) for model in experts)
    ]
    here = [name for name in base.tensors if name in owned or name in unshared]
    roles = assign_roles(
        base.tensors, [model.tensors for model in experts], exclude=[*exclude, *(glob.escape(name) for name in here)]
    )
    if unshared:
        warnings.warn(
            f"{len(unshared)} tensors are not shared by all models and keep those of {base.name}: {unshared[0]} ...", stacklevel=3
        )
    for note in roles.notes:
        # Heads that the base lacks stay with their models: that is as it should be.
        if not ("the base does not have" in note and owned):
            warnings.warn(note, stacklevel=3)
    return roles


class TaskVectors:
    """A base, the changes of its models, and their networks on the context's device.

    Args:
        base: What the models were tuned from.
        experts: The models, at least one.
        context: Tasks, rows, device and seed.
        exclude: Shell patterns of tensors that keep the base's values.

    Raises:
        ConfigError: If there is no base, or a network is not known.
        DataError: If the models do not fit their base.
    """

    def __init__(
        self, base: MergeModel | None, experts: Sequence[MergeModel], context: MergeContext, *, exclude: Sequence[str] = ()
    ) -> None:
        import torch

        if base is None:
            raise ConfigError("This method combines the changes that models made to their base. Name the base with --base.")
        if not context.tasks:
            raise ConfigError(
                "This method learns from rows, and no data was given. Give data with --suite, or `suite` in Python."
            )
        self.base, self.context = base, context
        self.answering = [Answering(model, context.tasks) for model in experts]
        self.base_answering = None if base.network is None else Answering(base, context.tasks)
        """The base's own network, if it is known: it may answer a task that no model has learned."""
        known = [*self.answering, *([self.base_answering] if self.base_answering else [])]
        self.roles = shared_roles(base, experts, known, exclude=exclude)
        merged = self.roles.merged
        self.names = tuple(
            name for name in merged if not all(are_equal(base.tensors[name], model.tensors[name]) for model in experts)
        )
        """Names of the tensors that are combined: those that some model changed. Others stay as they are, at no cost."""
        self._same = tuple(name for name in merged if name not in set(self.names))

        def tensor(values: Array) -> Tensor:
            # Half precision is learned in single precision.
            wide = np.asarray(values, np.float64 if values.dtype == np.float64 else np.float32)
            return torch.from_numpy(np.array(wide)).to(context.device)

        self.start: dict[str, Tensor] = {name: tensor(base.tensors[name]) for name in self.names}
        """The base's values."""
        self.changes: dict[str, Tensor] = {
            name: torch.stack([tensor(model.tensors[name]) - self.start[name] for model in experts]) for name in self.names
        }
        """What each model added to them, ``[models, *shape]``."""
        self.averaged = {name: np.mean([model.tensors[name] for model in experts], axis=0) for name in self.roles.averaged}
        """Running statistics: the models' mean."""
        for answering in known:
            self._adopt(answering)

    @property
    def num_models(self) -> int:
        """How many models there are."""
        return len(self.answering)

    def _adopt(self, answering: Answering) -> None:
        # What is judged is what is written: the merged running statistics, and nothing of the network learns.
        state = answering.network.state_dict()
        answering.load((name, value) for name, value in self.averaged.items() if _prefix(answering) + name in state)
        answering.network.requires_grad_(False).eval().to(self.context.device)

    def sums(self, coefficients: Mapping[str, Tensor], changes: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return ``sum_i coefficients_i * change_i`` by name; gradients flow to the coefficients and changes.

        Args:
            coefficients: For each tensor one number a model, ``[models]``, or one an entry, ``[models, *shape]``.
            changes: In place of :attr:`changes`.
        """
        changes = self.changes if changes is None else changes
        found = {}
        for name, start in self.start.items():
            change = changes[name]
            by = coefficients[name].to(change.dtype)
            # One number a model: a product of a vector with [models, entries], without a copy of all changes.
            plain = by.dim() == 1
            found[name] = (by @ change.reshape(len(by), -1)).reshape(start.shape) if plain else (by * change).sum(dim=0)
        return found

    def combine(self, coefficients: Mapping[str, Tensor], changes: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the base plus :meth:`sums`."""
        return {name: self.start[name] + value for name, value in self.sums(coefficients, changes).items()}

    def outputs(
        self, answering: Answering, weights: Mapping[str, Tensor], batch: Batch, tasks: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return raw outputs of a network with these weights in place of its own."""
        from torch.func import functional_call

        prefix = _prefix(answering)
        return functional_call(
            answering.network, {prefix + name: value for name, value in weights.items()}, (batch.inputs, list(tasks))
        )

    def backward(self, weights: Mapping[str, Tensor], losses: Sequence[Callable[[Mapping[str, Tensor]], Tensor]]) -> list[float]:
        """Add the gradient of the sum of some losses to whatever ``weights`` were made of, and return the losses.

        Only one network's graph is held at a time: gradients are collected at the weights, and go on from there once.

        Args:
            weights: Tensors with a graph, made of what learns.
            losses: Functions of the weights.
        """
        import torch

        leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
        found = []
        for loss in losses:
            value = loss(leaves)
            value.backward()
            found.append(float(value.detach()))
        # A tensor that no loss depends on has no gradient.
        made = [
            (weights[name], leaf.grad) for name, leaf in leaves.items() if leaf.grad is not None and weights[name].requires_grad
        ]
        torch.autograd.backward([value for value, _ in made], [gradient for _, gradient in made])
        return found

    def questions(self) -> list[tuple[Answering, TaskSpec]]:
        """Return each task of the rows with the network that answers it: the first of the models that does, or the base.

        Raises:
            ConfigError: If no network answers any of them.
        """
        found = []
        networks = [*self.answering, *([self.base_answering] if self.base_answering else [])]
        for task in self.context.tasks:
            owner = next((model for model in networks if task.name in model.answered), None)
            if owner is not None:
                found.append((owner, task))
        if not found:
            answered = sorted({name for model in networks for name in model.answered})
            raise ConfigError(
                f"The models answer {', '.join(answered)}, and the rows have {', '.join(task.name for task in self.context.tasks)}: "
                "no task is in both. Give a suite with the tasks of the models, under the same names."
            )
        return found

    def pools(
        self, questions: Sequence[tuple[Answering, TaskSpec]], role: str, *, labelled: bool, num_rows: int
    ) -> list[RowPool]:
        """Return rows for each question: with a label of its task, or (``labelled`` false) all that may be of it.

        Raises:
            ConfigError: If there are no rows of this role.
            DataError: If there are none for one of the tasks.
        """
        keep = has_label if labelled else may_belong_to
        pools = []
        for number, (_, task) in enumerate(questions):
            generator = Seeds(self.context.seed).torch(f"rows {number}")
            rows = collect_rows(self.context.batches(role), partial(keep, tasks=[task.name]), most=num_rows, generator=generator)
            if rows is None:
                raise DataError(
                    f"None of the {role!r} rows is one of the task {task.name!r}. Add such rows, or leave its model out."
                )
            pools.append(RowPool(rows, generator))
        return pools

    def result(self, weights: Mapping[str, Tensor]) -> dict[str, Array]:
        """Return everything that the base has: these weights, the averaged statistics, and what is kept."""
        kept = {name: np.array(self.base.tensors[name]) for name in (*self.roles.kept, *self._same)}
        return {**kept, **self.averaged, **dict(self.arrays(weights))}

    def arrays(self, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Array]]:
        """Yield weights as NumPy arrays."""
        for name, value in weights.items():
            yield name, value.detach().cpu().numpy()


def _prefix(answering: Answering) -> str:
    # Networks of one tensor are wrapped, and their parameters are called "inner.<name>".
    return "inner." if hasattr(answering.network, "is_wrapper") else ""
