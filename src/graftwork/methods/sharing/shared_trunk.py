"""Hard parameter sharing: one backbone, one head a task.

Paper: Caruana, "Multitask Learning", Machine Learning 28, 1997, https://doi.org/10.1023/A:1007379606734.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor, nn

from graftwork.core.input_spec import InputSpecs
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.heads import build_head, output_size

__all__ = ["SharedTrunk"]


class SharedTrunk(SharedModel):
    """All tasks read the same features; only the heads are their own.

    Args:
        tasks: The tasks.
        make_backbone: Returns a fresh backbone.
        inputs: The suite's inputs (dense heads need the size of its pictures).
        head_hidden: Hidden width of the heads; 0 makes them linear, None takes the default of
            :func:`graftwork.nn.heads.build_head`.
        head_dropout: Probability of dropping a hidden unit of a head.
    """

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
        self.backbone = make_backbone()
        shape, size = self.backbone.feature_shape, output_size(inputs)
        self.heads = nn.ModuleList(build_head(shape, task, hidden=head_hidden, dropout=head_dropout, size=size) for task in tasks)
        self._index = {name: index for index, name in enumerate(self.task_names)}

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        """Return the backbone's features."""
        return self.backbone(inputs)

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the outputs of the asked heads."""
        return {name: self.heads[self._index[name]](representation) for name in (self.task_names if tasks is None else tasks)}

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of the task's head."""
        return self.heads[self._index[task]].parameters()
