"""A source, ready to look at the rows: its backbone, the arrays that it reads, and its own classifier if it has one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpec, InputSpecs, read_input_specs
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.encoders import encoder_from_state
from graftwork.data.suite import Suite
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.interfaces.shared_model import SharedModel
from graftwork.interfaces.task_kind import task_kind
from graftwork.nn.backbones.catalog import build_backbone
from graftwork.nn.backbones.source_heads import SourceHead, source_head
from graftwork.workflows.rank.sources import RankSource

__all__ = ["EncodedModel", "LoadedSource", "ModelAnswers", "encoded_rows", "load_source", "pooled"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class LoadedSource:
    """What computes features, and what answers with the source's own classes."""

    backbone: Backbone
    arrays: Mapping[str, Array]
    head: SourceHead | None = None
    """The linear classifier on the features; None if the source has none."""
    answers: ModelAnswers | None = None
    """Of an own run with tasks of classes: reads :attr:`arrays` as well."""

    @property
    def probabilities(self) -> Callable[[NDArray[np.float32]], NDArray[np.float32]] | None:
        """Class probabilities from features; None if the source has no classifier on them."""
        return None if self.head is None else self.head.probabilities

    @property
    def has_classes(self) -> bool:
        """Whether the source has classes of its own."""
        return self.head is not None or self.answers is not None


class EncodedModel(Backbone):
    """The shared representation of a trained multi-task model as features; those of models that share nothing side by side.

    Args:
        model: The model.
        example: A batch of its inputs.
    """

    def __init__(self, model: SharedModel, example: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.model = model
        with torch.inference_mode():
            self.feature_shape = FeatureShape("vector", int(self(example).shape[1]))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the representation, ``[B, width]``; tokens and maps as their mean."""
        found = self.model.encode(inputs)
        return torch.cat([pooled(part) for part in (found if isinstance(found, tuple) else (found,))], dim=1)


class ModelAnswers(Backbone):
    """What a trained multi-task model says of the classes of its own tasks, as probabilities side by side.

    Args:
        model: The model.
        tasks: Its tasks with one class a row, at least one.
    """

    def __init__(self, model: SharedModel, tasks: Sequence[TaskSpec]) -> None:
        super().__init__()
        self.model, self.tasks = model, tuple(tasks)
        self.heads: dict[str, slice] = {}
        """Columns of each task."""
        start = 0
        for task in self.tasks:
            zeros = torch.zeros(1, task.num_outputs)
            width = int(task_kind(task).class_probabilities(task, zeros).shape[1])
            self.heads[task.name] = slice(start, start + width)
            start += width
        self.feature_shape = FeatureShape("vector", start)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return probabilities, ``[B, classes of all tasks]``; those of each task have the sum 1."""
        outputs = self.model(inputs, [task.name for task in self.tasks])
        parts = [task_kind(task).class_probabilities(task, outputs[task.name].float()) for task in self.tasks]
        return torch.cat(parts, dim=1)


def pooled(features: Tensor) -> Tensor:
    """Return one vector a row: of tokens and maps the mean over places."""
    if features.ndim == 2:
        return features
    # Tokens [B, L, width], maps [B, width, h, w].
    return features.mean(dim=1) if features.ndim == 3 else features.flatten(2).mean(dim=2)


def load_source(source: RankSource, suite: Suite, *, seed: int = 0) -> LoadedSource:
    """Load a source and bring the rows into the form that it reads.

    Args:
        source: The source.
        suite: The sampled rows.
        seed: Draws untrained trunks.

    Raises:
        GraftworkError: If its weights are damaged or out of reach, a package is missing, or it cannot read these rows.
    """
    if source.way == "run":
        return _own_run(Path(source.place), suite, source.given)
    name, spec = _input(suite, source.kind)
    if source.way == "untrained":
        with torch.random.fork_rng():  # the caller's generator stays where it is
            torch.manual_seed(Seeds(seed).integer("untrained source"))
            backbone = build_backbone("scratch", spec)
        return LoadedSource(_checked(source, backbone), spec.own(suite.inputs))
    if source.way == "timm":
        from graftwork.nn.backbones.timm_folder import load_timm_folder

        built, head = load_timm_folder(source.place)
        return LoadedSource(built, spec.own(suite.inputs), head)
    if source.way == "transformers" and source.kind == "image":
        from graftwork.nn.backbones.transformers_vision import load_vision_folder

        vision, head = load_vision_folder(source.place)
        return LoadedSource(vision, spec.own(suite.inputs), head)
    place = f"hf:{source.place}" if source.way == "transformers" else source.place
    if source.kind == "text":
        from graftwork.nn.backbones.transformers_bridge import prepare_suite

        suite = prepare_suite(suite, place, name)
        spec = suite.input_specs[name]
    classifier = source_head(place)
    backbone = _checked(source, build_backbone(place, spec))
    return LoadedSource(backbone, spec.own(suite.inputs), classifier)


def _input(suite: Suite, kind: str) -> tuple[str, InputSpec]:
    """Return the first input of a kind, which the suite has."""
    return next((name, spec) for name, spec in suite.input_specs.items() if spec.kind == kind)


def _checked(source: RankSource, backbone: Backbone) -> Backbone:
    if backbone.feature_shape.layout != "vector":
        raise ConfigError(f"{source.name} gives {backbone.feature_shape.layout} features; scores read one vector a row.")
    return backbone.eval()


def _own_run(folder: Path, suite: Suite, given: Sequence[str]) -> LoadedSource:
    from graftwork.training.model_loading import load_model

    model, tasks, config = load_model(folder, backbone=given)
    specs = read_input_specs(config)
    arrays = encoded_rows(specs, suite, folder)
    example = {name: torch.from_numpy(np.array(array[:2])) for name, array in arrays.items()}
    try:
        own = [task for task in tasks if _has_classes(task)]
        answers = ModelAnswers(model, own).eval() if own else None
        return LoadedSource(EncodedModel(model, example).eval(), arrays, answers=answers)
    except (RuntimeError, KeyError) as error:
        raise ConfigError(f"The model in {folder} cannot read these rows: {str(error)[:200]}") from error


def _has_classes(task: TaskSpec) -> bool:
    """Return whether a task answers with one class a row."""
    if task.is_dense:
        return False
    try:
        task_kind(task).class_probabilities(task, torch.zeros(1, task.num_outputs))
    except ConfigError:
        return False
    return True


def encoded_rows(specs: InputSpecs, suite: Suite, folder: Path) -> dict[str, Array]:
    """Return the suite's rows in the arrays of a trained model, encoded as it was trained.

    Args:
        specs: Inputs of the model.
        suite: The rows.
        folder: Of the model, for messages.

    Raises:
        ConfigError: If the model reads other data, or rows in codes of its own that the suite cannot give.
    """
    found: dict[str, Array] = {}
    for spec in specs.values():
        made = _one_input(spec, suite, folder)
        found |= {spec.arrays.get(name, name): array for name, array in made.items()}
    return found


def _one_input(spec: InputSpec, suite: Suite, folder: Path) -> dict[str, Array]:
    if spec.kind not in suite.kinds:
        raise ConfigError(
            f"The model in {folder} reads {spec.kind} data; the suite's inputs are of the kind {', '.join(suite.kinds)}."
        )
    own = _input(suite, spec.kind)[1]
    # Pictures are read as they are; texts and tables have codes that belong to one encoder.
    if spec.kind == "image" or dict(own.encoder) == dict(spec.encoder):
        return dict(own.own(suite.inputs))
    key = {"text": "text", "table": "frame"}.get(spec.kind, "")
    if not spec.encoder or key not in suite.raw:
        raise ConfigError(
            f"The model in {folder} reads {spec.kind} rows in codes of its own, and the suite keeps no raw rows to encode."
        )
    source: Any = suite.raw[key]
    if key == "frame":
        import pandas as pd

        source = pd.DataFrame(source)
    return encoder_from_state(spec.encoder).transform(source)
