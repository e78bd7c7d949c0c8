"""Grouped sharing: tasks that help each other share a trunk, groups share nothing.

Paper: Standley et al., "Which Tasks Should Be Learned Together in Multi-task Learning?", ICML 2020,
https://arxiv.org/abs/1905.07553; the groups may come from affinities (Fifty et al. 2021, https://arxiv.org/abs/2109.04617), see
:mod:`graftwork.evaluation.grouping`.

Departures: every task is learned in one group only, and groups are trained side by side on the same batches. The extreme
groupings are :class:`~graftwork.methods.sharing.shared_trunk.SharedTrunk` (one group) and
:class:`~graftwork.methods.sharing.separate.Separate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpecs
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.heads import build_head, output_size

__all__ = ["Grouped"]


class Grouped(SharedModel):
    """One trunk per group of tasks, one head per task.

    Args:
        tasks: The tasks.
        make_backbone: Returns a fresh backbone; called once a group.
        inputs: The suite's inputs (dense heads need the size of its pictures).
        groups: Names of the tasks of each group, every task in one group; ``"auto"`` stands in plans only, where the workflow
            replaces it by a grouping measured on the training split.
        max_groups: Most groups that ``"auto"`` may form; unused here.
        head_hidden: Hidden width of the heads; 0 makes them linear, None takes the default of
            :func:`graftwork.nn.heads.build_head`.
        head_dropout: Probability of dropping a hidden unit of a head.

    Raises:
        ConfigError: If ``groups`` is still ``"auto"``, or no partition of the tasks.
    """

    has_shared_representation = False

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        make_backbone: Callable[[], Backbone],
        *,
        inputs: InputSpecs,
        groups: Sequence[Sequence[str]] | str = "auto",
        max_groups: int | None = None,
        head_hidden: int | None = None,
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.task_names = tuple(task.name for task in tasks)
        self.groups = _checked(groups, self.task_names)
        self._group = {name: index for index, members in enumerate(self.groups) for name in members}
        self._index = {name: index for index, name in enumerate(self.task_names)}
        self.backbones = nn.ModuleList(make_backbone() for _ in self.groups)
        size = output_size(inputs)
        self.heads = nn.ModuleList()
        for task in tasks:
            shape = self.backbones[self._group[task.name]].feature_shape
            self.heads.append(build_head(shape, task, hidden=head_hidden, dropout=head_dropout, size=size))  # type: ignore[arg-type]

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> tuple[Tensor, ...]:
        """Return one representation per asked task, that of its group; trunks of groups that nobody asks for do not run."""
        names = self.task_names if tasks is None else tasks
        # dict.fromkeys keeps the order and drops repeats, so each trunk runs once.
        features = {index: self.backbones[index](inputs) for index in dict.fromkeys(self._group[name] for name in names)}
        return tuple(features[self._group[name]] for name in names)

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the outputs of the asked heads, from :meth:`encode`'s tuple for the same ``tasks``."""
        names = self.task_names if tasks is None else tasks
        return {name: self.heads[self._index[name]](features) for name, features in zip(names, representation, strict=True)}

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of the task's head, and of its trunk if it is alone in its group."""
        group = self._group[task]
        if len(self.groups[group]) == 1:
            yield from self.backbones[group].parameters()
        yield from self.heads[self._index[task]].parameters()

    def separate_parts(self) -> list[list[nn.Parameter]]:
        """Return one part per group: its trunk and its heads."""
        parts = [list(backbone.parameters()) for backbone in self.backbones]
        for name, head in zip(self.task_names, self.heads, strict=True):
            parts[self._group[name]] += head.parameters()
        return parts


def _checked(groups: Sequence[Sequence[str]] | str, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    if isinstance(groups, str):
        raise ConfigError(
            f"`groups` is {groups!r}: a grouping is measured by `graftwork compare` and `graftwork fit`. Elsewhere name the "
            f"groups, for example [[{names[0]!r}, ...], ...]."
        )
    found = tuple(tuple(group) for group in groups)
    flat = [name for group in found for name in group]
    problems = [f"unknown task {name!r}" for name in flat if name not in names]
    problems += [f"task {name!r} is in {flat.count(name)} groups, not in one" for name in names if flat.count(name) != 1]
    problems += ["a group is empty"] if not all(found) else []
    if problems:
        raise ConfigError(f"`groups` must hold each task once; the tasks are {', '.join(names)}.", problems)
    return found
