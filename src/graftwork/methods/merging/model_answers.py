"""What mergers with data ask of a model: its answers to rows, how good they are, and their Fisher information."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.model_merger import MergeContext, MergeModel
from graftwork.interfaces.task_kind import task_kind

if TYPE_CHECKING:
    from torch import Tensor, nn


__all__ = ["Answering"]

Array = NDArray[Any]


class Answering:
    """A model with its network, and the tasks that it answers.

    A network of graftwork (``SharedModel``) answers those of the tasks that it has. Any other network takes one tensor, the only
    input that is not empty, and returns the raw output of the only task.

    Args:
        model: The model; its network is built.
        tasks: Tasks of the rows.

    Raises:
        ConfigError: If the network is not known, or is none of graftwork and there are several tasks.
    """

    def __init__(self, model: MergeModel, tasks: Sequence[TaskSpec]) -> None:
        from graftwork.interfaces.shared_model import SharedModel

        network = model.build()
        self.name = model.name
        self.network: nn.Module = network if isinstance(network, SharedModel) else _one_output(network, tasks, model.name)
        names = network.task_names if isinstance(network, SharedModel) else tuple(task.name for task in tasks)
        self.tasks = tuple(task for task in tasks if task.name in names)
        self.answered = tuple(names)
        """Names of all tasks that the network answers, whether or not there are rows of them."""
        self._offered = tuple(task.name for task in tasks)

    def owned(self) -> list[str]:
        """Return the names of the parameters that belong to one task, and of the buffers among them: those whose smallest module
        with parameters has no other ones."""
        from graftwork.interfaces.shared_model import SharedModel

        if not isinstance(self.network, SharedModel):
            return []
        # By identity: parameter iterators give no names.
        ids = {id(parameter) for task in self.network.task_names for parameter in self.network.task_parameters(task)}
        own: list[str] = []
        # Of every module around a parameter: whether all parameters in it belong to one task.
        whole: dict[str, bool] = {}
        for name, parameter in self.network.named_parameters():
            if id(parameter) in ids:
                own.append(name)
            for module in _around(name):
                whole[module] = whole.get(module, True) and id(parameter) in ids
        for name, _ in self.network.named_buffers():
            if next((whole[module] for module in _around(name) if module in whole), False):
                own.append(name)
        return own

    def load(self, tensors: Iterable[tuple[str, Array]]) -> None:
        """Replace some of the network's weights and statistics."""
        import torch

        state = self.network.state_dict()
        with torch.no_grad():
            for name, values in tensors:
                place = state[self._prefix + name]
                place.copy_(torch.from_numpy(np.asarray(values, np.float32 if values.dtype.itemsize < 4 else values.dtype)))

    def score(self, context: MergeContext, role: str) -> float:
        """Return how good the answers are, higher is better: the task's own metric, or minus the mean loss of several tasks.

        Raises:
            ConfigError: If there are no rows of this role, or the network answers none of their tasks.
            DataError: If none of them has a label of one of the tasks.
        """
        import torch

        from graftwork.evaluation.metrics import default_metric, higher_is_better, score_task

        self._check_tasks()
        network = self.network.to(context.device)
        names = [task.name for task in self.tasks]
        outputs: dict[str, list[Tensor]] = {name: [] for name in names}
        targets: dict[str, list[Tensor]] = {name: [] for name in names}
        with torch.inference_mode():
            for batch in context.batches(role):
                answered = network(batch.inputs, names)
                for name in names:
                    known = batch.mask[name]
                    outputs[name].append(answered[name][known].cpu())
                    targets[name].append(batch.targets[name][known].cpu())
            scored = [task for task in self.tasks if sum(map(len, targets[task.name]))]
            if not scored:
                raise DataError(
                    f"None of the {role!r} rows has a label of {', '.join(names)}, so coefficients cannot be searched on them. Add "
                    "labelled rows, or give the coefficients with --weights."
                )
            pairs = [(task, torch.cat(outputs[task.name]), torch.cat(targets[task.name])) for task in scored]
            if len(pairs) > 1:
                # Metrics of several tasks have different units; losses are all that can be averaged.
                return -float(np.mean([float(task_kind(task).loss(task, output, target)) for task, output, target in pairs]))
            task, output, target = pairs[0]
            metric = default_metric(task)
            value = score_task(task, target.numpy(), task_kind(task).decode(task, output).numpy(), [metric])[metric]
        return value if higher_is_better(metric) else -value

    def information(
        self,
        context: MergeContext,
        role: str,
        names: Sequence[str] | None,
        *,
        num_rows: int,
        num_samples: int = 0,
        vectorised: bool = True,
    ) -> dict[str, Array]:
        """Return the diagonal Fisher information, float32, on rows that count for this model.

        These are rows with a label of one of its tasks, and rows without any label; of more than ``num_rows`` some are drawn.

        Args:
            context: Rows, device, seed.
            role: Of the rows.
            names: Names of tensors; those that are no parameters have no information: zeros. None takes all parameters.
            num_rows: Most rows.
            num_samples: See :func:`graftwork.nn.fisher.diagonal_fisher`, likewise ``vectorised``.

        Raises:
            ConfigError: If there are no rows of this role, or the network answers none of their tasks.
            DataError: If none of them counts for this model.
        """
        import torch

        from graftwork.core.seeds import Seeds
        from graftwork.nn.fisher import diagonal_fisher

        self._check_tasks()
        seeds = Seeds(context.seed)
        rows = _draw_rows(self._own_rows(context, role), num_rows, seeds.numpy("fisher rows"))
        if rows is None:
            raise DataError(
                f"None of the {role!r} rows counts for {self.name}: all are labelled for other tasks than "
                f"{', '.join(task.name for task in self.tasks)}. Give a suite with rows of its tasks, or the information as a file "
                "(--statistics fisher=FILE,FILE)."
            )
        network = self.network.to(context.device)
        parameters = {name.removeprefix(self._prefix) for name, _ in network.named_parameters()}
        found = diagonal_fisher(
            network,
            [
                # Batches of 256 bound the memory of the plain forward pass.
                {name: value[part : part + 256] for name, value in rows.items()}
                for part in range(0, len(next(iter(rows.values()))), 256)
            ],
            self.tasks,
            parameters=[self._prefix + name for name in (parameters if names is None else parameters & set(names))],
            num_samples=num_samples,
            generator=torch.Generator(context.device).manual_seed(seeds.integer("fisher answers")),
            vectorised=vectorised,
        )
        values = {name.removeprefix(self._prefix): value.cpu().numpy() for name, value in found.items()}
        zeros = {} if names is None else {name: np.zeros(self._shape(name), np.float32) for name in names if name not in values}
        return {**values, **zeros}

    def _check_tasks(self) -> None:
        if not self._offered:
            raise ConfigError("No data was given. Give data with --suite, or `suite` in Python.")
        if not self.tasks:
            raise ConfigError(
                f"{self.name} answers {', '.join(self.answered)}, and the rows have {', '.join(self._offered)}: no task is in both. "
                "Give a suite with the tasks of the models, under the same names, or what is taken from rows as files (--statistics)."
            )

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.network.state_dict()[self._prefix + name].shape)

    @property
    def _prefix(self) -> str:
        # The wrapper's parameters are called "inner.<name>", the files hold the plain names.
        return "inner." if hasattr(self.network, "is_wrapper") else ""

    def _own_rows(self, context: MergeContext, role: str) -> Iterator[dict[str, Tensor]]:
        import torch

        for batch in context.batches(role):
            own = [batch.mask[task.name] for task in self.tasks]
            any_label = torch.stack(list(batch.mask.values())).any(dim=0)
            # Rows labelled for other tasks only are likely not from this model's data.
            chosen = torch.stack(own).any(dim=0) | ~any_label
            if bool(chosen.any()):
                yield {name: value[chosen] for name, value in batch.inputs.items()}


def _around(name: str) -> Iterator[str]:
    """Yield the names of the modules around a tensor, from the inside out, without the network itself."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _draw_rows(batches: Iterable[dict[str, Tensor]], count: int, random: np.random.Generator) -> dict[str, Tensor] | None:
    """Return ``count`` rows drawn from all batches, in their order, or all if there are no more; None if there are none.

    Every row gets a random key and the largest keys stay, so that no more than ``count`` rows and a batch are held.
    """
    import torch

    held: dict[str, Tensor] = {}
    keys = np.zeros(0)
    for batch in batches:
        keys = np.concatenate([keys, random.random(len(next(iter(batch.values()))))])
        held = {name: torch.cat([held[name], value]) for name, value in batch.items()} if held else batch
        if len(keys) > count:
            # Sorted, so that rows keep their order and later results do not depend on how argpartition breaks it.
            kept = np.sort(np.argpartition(-keys, count)[:count])
            keys, held = keys[kept], {name: value[torch.from_numpy(kept)] for name, value in held.items()}
    return held or None


def _one_output(network: nn.Module, tasks: Sequence[TaskSpec], name: str) -> nn.Module:
    """Return a network of tensors as one of named inputs and tasks."""
    from torch import nn

    if len(tasks) > 1:
        raise ConfigError(
            f"{name} is a {type(network).__name__}, whose output could belong to any of the {len(tasks)} tasks of the rows. Give a "
            "suite with one task, or networks of graftwork (SharedModel)."
        )

    class OneOutput(nn.Module):
        is_wrapper = True

        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, inputs: Mapping[str, Tensor], asked: Sequence[str]) -> dict[str, Tensor]:
            # Tables always come with a numeric and a categorical input, one of which may have no columns.
            filled = [value for value in inputs.values() if value.numel()]
            if len(filled) != 1:
                raise ConfigError(f"{name} takes one tensor; the rows have {len(filled)} inputs: {', '.join(inputs)}.")
            return {task: self.inner(filled[0]) for task in asked}

    return OneOutput().eval()
