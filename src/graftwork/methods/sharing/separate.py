"""Separate models: every task has a backbone and a head of its own. What all sharing is measured against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor, nn

from graftwork.core.input_spec import InputSpecs
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.heads import build_head, output_size

__all__ = ["Separate"]


class Separate(SharedModel):
    """One complete model per task, trained side by side on the same batches; nothing is shared.

    Args:
        tasks: The tasks.
        make_backbone: Returns a fresh backbone; called once a task.
        inputs: The suite's inputs (dense heads need the size of its pictures).
        head_hidden: Hidden width of the heads; 0 makes them linear, None takes the default of
            :func:`graftwork.nn.heads.build_head`.
        head_dropout: Probability of dropping a hidden unit of a head.
    """

    has_shared_representation = False

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        make_backbone: Callable[[], Backbone],
        *,
        inputs: InputSpecs,
        head_hidden: int | None = None,
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.task_names = tuple(task.name for task in tasks)
        size = output_size(inputs)
        self.backbones = nn.ModuleList()
        self.heads = nn.ModuleList()
        for task in tasks:
            backbone = make_backbone()
            self.backbones.append(backbone)
            self.heads.append(build_head(backbone.feature_shape, task, hidden=head_hidden, dropout=head_dropout, size=size))
        self._index = {name: index for index, name in enumerate(self.task_names)}

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> tuple[Tensor, ...]:
        """Return one representation per asked task; the other backbones do not run."""
        return tuple(self.backbones[self._index[name]](inputs) for name in (self.task_names if tasks is None else tasks))

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the outputs of the asked heads, from :meth:`encode`'s tuple for the same ``tasks``."""
        names = self.task_names if tasks is None else tasks
        return {name: self.heads[self._index[name]](features) for name, features in zip(names, representation, strict=True)}

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of the task's model."""
        yield from self.backbones[self._index[task]].parameters()
        yield from self.heads[self._index[task]].parameters()
