"""One frozen backbone that runs once for each task, with what tuning adds for that task switched on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpecs
from graftwork.core.nearest import did_you_mean
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.delta import Delta
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.freeze import fix_mode, is_batch_norm
from graftwork.nn.heads import build_head, output_size

__all__ = ["SwitchedModel"]


class SwitchedModel(SharedModel):
    """A backbone without anything that learns yet, statistics of BatchNorm frozen too, and a head for each task.

    In training each task runs on the rows that have its label; everywhere else on all rows.

    Args:
        tasks: The tasks.
        backbone: The backbone.
        inputs: The suite's inputs (dense heads need the size of its pictures).
        head_hidden: Hidden width of the heads; 0 makes them linear, None takes the default of
            :func:`graftwork.nn.heads.build_head`.
        head_dropout: Probability of dropping a hidden unit of a head.
    """

    has_shared_representation = False
    runs_once: bool = False
    """Whether all tasks compute the same in the backbone, so that it runs once for all; set by the constructor of a subclass,
    with :attr:`has_shared_representation`."""

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        backbone: Backbone,
        *,
        inputs: InputSpecs,
        head_hidden: int | None = None,
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.task_names = tuple(task.name for task in tasks)
        self.backbone = backbone.requires_grad_(False)
        for module in backbone.modules():
            if is_batch_norm(module):
                fix_mode(module)
        shape, size = backbone.feature_shape, output_size(inputs)
        self.heads = nn.ModuleList(build_head(shape, task, hidden=head_hidden, dropout=head_dropout, size=size) for task in tasks)
        self._rows: dict[str, Tensor] = {}
        self._num_rows = 0

    @abstractmethod
    def switch(self, task: int) -> None:
        """Let the backbone compute with what belongs to a task, by its number."""

    def switch_off(self) -> None:
        """Forget what was switched on; called after each pass."""

    @abstractmethod
    def delta(self, task: str) -> Delta:
        """Return what was learned for a task, as a difference to the backbone, with copies of the tensors.

        Raises:
            ConfigError: If there is no such task.
        """

    def own_parameters(self, task: int) -> Iterator[nn.Parameter]:
        """Yield parameters in the backbone that only one task uses, by its number."""
        return iter(())

    def number_of(self, task: str) -> int:
        """Return the number of a task.

        Raises:
            ConfigError: If there is no such task.
        """
        if task not in self.task_names:
            known = ", ".join(self.task_names)
            raise ConfigError(f"There is no task {task!r}.{did_you_mean(task, self.task_names)} The tasks are: {known}.")
        return self.task_names.index(task)

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor | tuple[Tensor, ...]:
        """Return the features of each asked task, or of all tasks at once where the backbone runs once."""
        return self._encode(inputs, tasks, {}, 0)

    def encode_batch(self, batch: Batch, tasks: Sequence[str] | None = None) -> Tensor | tuple[Tensor, ...]:
        """Return the features of each asked task: of the task's labelled rows in training, of all rows otherwise."""
        if self.runs_once or not self.training:
            return self._encode(batch.inputs, tasks, {}, 0)
        rows: dict[str, Tensor] = {}
        for name in self.task_names if tasks is None else tasks:
            mask = batch.mask.get(name)
            if mask is not None and not bool(mask.all()):
                found = mask.nonzero().squeeze(1)
                # Backbones need a row; the loss does not read it.
                rows[name] = found if len(found) else torch.zeros(1, dtype=torch.int64, device=mask.device)
        return self._encode(batch.inputs, tasks, rows, len(batch))

    def _encode(
        self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None, rows: dict[str, Tensor], num_rows: int
    ) -> Tensor | tuple[Tensor, ...]:
        # `decode` gets the features only, and must know which rows of the batch they belong to.
        self._rows, self._num_rows = rows, num_rows
        if self.runs_once:
            self.switch(0)
            once: Tensor = self.backbone(inputs)
            self.switch_off()
            return once
        found = []
        for name in self.task_names if tasks is None else tasks:
            self.switch(self.number_of(name))
            read = inputs
            if name in rows:
                read = {key: value.index_select(0, rows[name]) for key, value in inputs.items()}
            found.append(self.backbone(read))
        self.switch_off()
        return tuple(found)

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the outputs of the asked heads for all rows; zero for rows of a training batch that have no label of the task."""
        names = self.task_names if tasks is None else tuple(tasks)
        parts = representation if isinstance(representation, tuple) else (representation,) * len(names)
        outputs = {}
        for name, features in zip(names, parts, strict=True):
            output = self.heads[self.number_of(name)](features)
            if name in self._rows:
                output = output.new_zeros(self._num_rows, *output.shape[1:]).index_copy(0, self._rows[name], output)
            outputs[name] = output
        return outputs

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of the task's head, and of what only it has in the backbone."""
        number = self.number_of(task)
        yield from self.own_parameters(number)
        yield from self.heads[number].parameters()
