r"""ScaleKD: any student learns the features of a vision transformer, through learned queries and the transformer's own last stage.

Paper: Fan et al., "ScaleKD: Strong Vision Transformers Could Be Excellent Teachers", NeurIPS 2024,
https://github.com/deep-optimization/ScaleKD. Two maps of the student are used.

- The lower one becomes tokens of the teacher (:class:`~graftwork.nn.token_projector.AttentionProjector`), which go through the
  teacher's frozen last stage; gradients flow through it to the student.
- The upper one becomes tokens of the teacher's end, with the result of the lower path as queries.

Each result :math:`G` is compared with the teacher's last map :math:`F` in two views, each with projectors of its own: in full space
with :math:`\alpha \, \frac1N \lVert \bar G - \bar F \rVert^2`, the channels of each place scaled to length 1, and with
:math:`\beta` without the constant frequency of each channel. Beside them stands the usual distillation of logits.

The paper weighs labels and logits with one half each. Here the tasks' losses count once, so the term is twice the paper's:
:math:`\mathrm{KL} + 2 (\alpha \cdot \text{full} + \beta \cdot \text{without constant})`. The projectors are dropped after the
training.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.data.teacher_answers import TeacherAnswers, read_answers
from graftwork.interfaces.binding import Binding
from graftwork.interfaces.objective import Objective, ObjectiveInputs
from graftwork.interfaces.shared_model import SharedModel
from graftwork.methods.distillation.taught import answered_tasks, at_least_0, rows_of
from graftwork.nn.backbones.frozen import FrozenSource, frozen_backbone
from graftwork.nn.distill_losses import softened_divergence
from graftwork.nn.last_stage import LastStage
from graftwork.nn.layer_paths import placed_layers
from graftwork.nn.module_taps import tapped_modules
from graftwork.nn.representation import representation_of
from graftwork.nn.taps import blocks_of
from graftwork.nn.token_projector import AttentionProjector, ConvProjector, as_map

__all__ = ["ScaleKD", "without_constant"]

Projector = Literal["attention", "convolution"]
_LOWER = 2.0 / 3.0
"""Where the lower map is taken among the student's layers, if none is named."""


def without_constant(maps: Tensor) -> Tensor:
    """Return maps ``[B, C, h, w]`` without the constant coefficient of each channel's discrete cosine transform.

    That coefficient is the mean over places, up to a factor, and no other one holds it: to set it to 0 and transform back is to
    subtract the mean.

    Example:
        >>> import torch
        >>> without_constant(torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])).tolist()
        [[[[-3.0, -1.0], [1.0, 3.0]]]]
    """
    return maps - maps.mean(dim=(2, 3), keepdim=True)


def direction_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over rows of the squared distance between two maps ``[B, C, h, w]``, the channels of each place scaled to
    length 1 and places summed up, a scalar."""
    apart = F.normalize(student, dim=1) - F.normalize(teacher, dim=1)
    return apart.square().sum() / len(student)


class ScaleKD(Objective):
    """Features through cross attention and the teacher's last stage, in two views, and logits.

    Args:
        teacher: A backbone with blocks, by name or as a component; see :func:`graftwork.nn.backbones.frozen.frozen_backbone`.
        weights: File with its weights; empty takes those that the name brings.
        answers: Folders that :func:`graftwork.data.teacher_answers.store_answers` wrote, at most one: what the teacher says of the
            tasks. Without them no logits are distilled.
        weight: Factor of the whole term, at least 0.
        taps: Paths of the student's modules whose maps are used, lower first; one alone takes the upper path with queries of its own,
            ``""`` is the representation that the tasks share. Empty takes the last stage or block and the one at two thirds.
        stage: Number of the teacher's blocks that are its last stage.
        alpha: Factor of the view in full space, at least 0.
        beta: Factor of the view without the constant frequency, at least 0.
        num_heads: Heads of the projectors, a divisor of the teacher's width.
        sharpness: See :class:`~graftwork.nn.token_projector.AttentionProjector`.
        projector: ``attention``, or ``convolution`` as FitNets have it.
        temperature: Of the logits, above 0.

    Raises:
        ConfigError: If a setting cannot be used.
    """

    def __init__(
        self,
        teacher: FrozenSource = "",
        weights: str = "",
        answers: Sequence[str] = (),
        weight: float = 1.0,
        *,
        taps: Sequence[str] = (),
        stage: int = 2,
        alpha: float = 0.08,
        beta: float = 0.06,
        num_heads: int = 4,
        sharpness: float = 5.0,
        projector: Projector = "attention",
        temperature: float = 1.0,
    ) -> None:
        self.source, self.weights = teacher, weights
        self.folders = (answers,) if isinstance(answers, str) else tuple(map(str, answers))
        self.weight, self.alpha, self.beta = (
            at_least_0(name, value) for name, value in (("weight", weight), ("alpha", alpha), ("beta", beta))
        )
        self.taps = tuple(taps)
        self.num_blocks, self.num_heads, self.projector = stage, num_heads, projector
        problems = [
            f"{name} must be a number above 0; got {value!r}"
            for name, value in (("sharpness", sharpness), ("temperature", temperature))
            if not (value > 0 and math.isfinite(value))
        ]
        problems += [
            f"{name} must be a whole number of at least 1; got {value!r}"
            for name, value in (("stage", stage), ("num_heads", num_heads))
            if not isinstance(value, int) or value < 1
        ]
        if projector not in get_args(Projector):
            problems.append(f"projector must be one of {', '.join(get_args(Projector))}; got {projector!r}")
        if len(self.taps) > 2 or len(self.folders) > 1:
            problems.append(f"taps holds at most 2 paths and answers at most 1; got {len(self.taps)} and {len(self.folders)}")
        if problems:
            raise ConfigError("ScaleKD cannot work with these settings.", problems)
        self.sharpness, self.temperature = float(sharpness), float(temperature)
        self.stage: LastStage | None = None
        """The teacher, after :meth:`bind`."""
        self.paths = self.taps
        """Paths of the student's modules that are used; found by :meth:`bind` if none were named."""
        self._tasks: tuple[TaskSpec, ...] = ()
        self._said: TeacherAnswers | None = None
        self._seen: Mapping[str, Tensor] | None = None

    def bind(self, binding: Binding) -> None:
        """Load the teacher, find the student's maps, and make the projectors.

        Raises:
            ConfigError: If the teacher has no blocks or too few, or the student no such modules.
            FileFormatError: If weights or answers are missing, or belong to something else.
        """
        example = binding.example.to(binding.device)
        teacher = blocks_of(frozen_backbone(self.source, self.weights, example.inputs), "ScaleKD").to(binding.device)
        self.stage = LastStage(teacher, self.num_blocks, example.inputs)
        if self.folders:
            self._said = read_answers(self.folders[0])
            self._tasks = tuple(answered_tasks(self._said, binding.tasks))
        model = binding.model
        self.paths = self.taps or self._found_paths(model, example)
        with tapped_modules(model, [path for path in self.paths if path]) as found:
            shared = representation_of(model, example)
        modules: dict[str, nn.Module] = {}
        for place, path in zip(self._places, self.paths, strict=True):
            shape = tuple(as_map(self._there(found, shared, path)).shape[1:])
            for view in self.views:
                modules[f"{view}_{place}"] = self._projector(shape, place)
        self.module = nn.ModuleDict(modules)

    @staticmethod
    def _found_paths(model: SharedModel, example: Batch) -> tuple[str, ...]:
        placed = list(placed_layers(model, lambda: representation_of(model, example), len(example)))
        if not placed:
            raise ConfigError("The student has no layers with places. Name modules with `taps`, lower first.")
        lower, upper = placed[round(_LOWER * (len(placed) - 1))], placed[-1]
        return (lower, upper) if lower != upper else (upper,)

    @property
    def views(self) -> dict[str, float]:
        """Factors of the views that count, by name."""
        return {name: factor for name, factor in (("full", self.alpha), ("varying", self.beta)) if factor > 0}

    @property
    def _places(self) -> tuple[str, ...]:
        return ("lower", "upper")[-len(self.paths) :]

    def _projector(self, shape: tuple[int, ...], place: str) -> nn.Module:
        assert self.stage is not None
        size = (shape[0], shape[1], shape[2])
        tokens, width = self.stage.entry if place == "lower" else self.stage.exit
        if self.projector == "convolution":
            return ConvProjector(size, tokens, width)
        return AttentionProjector(
            size,
            tokens,
            width,
            num_heads=self.num_heads,
            sharpness=self.sharpness,
            # The upper one asks with what came out of the teacher's last stage.
            own_queries=place == "lower" or len(self.paths) == 1,
        )

    @contextlib.contextmanager
    def watching(self, model: SharedModel) -> Iterator[None]:
        """Tap the student's modules during one forward pass."""
        with tapped_modules(model, [path for path in self.paths if path]) as found:
            yield
        self._seen = found

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        """Return the term, a scalar.

        Raises:
            ConfigError: If a tapped module did not run.
        """
        assert self.stage is not None, "bind comes first"
        seen, self._seen = self._seen or {}, None  # its graph ends with this step
        maps = [as_map(self._there(seen, inputs.representation, path)) for path in self.paths]
        goal = self.stage.goal(inputs.batch.inputs)
        total = inputs.losses.new_zeros(())
        for view, factor in self.views.items():
            wanted = goal if view == "full" else without_constant(goal)
            for found in self._projected(view, maps, inputs.batch.inputs):
                apart = direction_distance(found if view == "full" else without_constant(found), wanted)
                total = total + 2.0 * factor * apart
        if self._said is not None:
            for task in self._tasks:
                reference = rows_of(self._said.outputs[task.name], inputs.batch)
                total = total + softened_divergence(task, reference, inputs.outputs[task.name], self.temperature)
        return self.weight * total

    def _projected(self, view: str, maps: Sequence[Tensor], inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Return what becomes of the student's maps at the teacher's end, one ``[B, C, h, w]`` a map."""
        assert self.stage is not None
        assert isinstance(self.module, nn.ModuleDict)
        found, end = [], None
        for place, states in zip(self._places, maps, strict=True):
            tokens = self.module[f"{view}_{place}"](states, end)
            end = self.stage.run(tokens, inputs) if place == "lower" else tokens
            found.append(self.stage.place(end))
        return found

    def _there(self, found: Mapping[str, Tensor], shared: Tensor | None, path: str) -> Tensor:
        states = found.get(path) if path else shared
        if states is None:
            what = f"The module {path!r} did not run" if path else "The student shares no representation between its tasks"
            raise ConfigError(f"{what}, so ScaleKD has nothing to compare. Name other modules with `taps`.")
        return states
