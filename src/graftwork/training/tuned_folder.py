"""What the small folder of a tuned model says, read without building its backbone: the delta, and the heads on given features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import safetensors.torch

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import read_json
from graftwork.core.input_spec import InputSpec, read_input_specs
from graftwork.core.records import Plan, TaskSpec
from graftwork.interfaces.backbone import FeatureShape
from graftwork.interfaces.delta import Delta
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.module_delta import load_delta
from graftwork.training.assembly import FeatureInput
from graftwork.training.description import ModelDescription, read_description

__all__ = ["CONFIG_FILE", "FORMAT", "HEADS_FILE", "TunedFolder", "describe_tuned", "read_tuned_config"]

FORMAT = "graftwork-tuned-1"
_DTYPES = (
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *(f"float{bits}" for bits in (16, 32, 64)),
)
_LARGEST_ROW = 1 << 24
"""Numbers in one row of an input; a picture of 2,000 pixels a side has fewer."""
HEADS_FILE, CONFIG_FILE = "heads.safetensors", "config.json"


def read_tuned_config(folder: str | Path) -> dict[str, Any]:
    """Return the description in the folder of a tuned model.

    Raises:
        FileFormatError: If it is not there, damaged, or another format.
    """
    try:
        config = read_json(Path(folder) / CONFIG_FILE)
    except FileNotFoundError as error:
        raise FileFormatError(
            f"{folder} is no folder of a tuned model: it has no {CONFIG_FILE}, or a link that leads nowhere. Give the `delta` folder "
            "of a tune run, or tune again."
        ) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise FileFormatError(
            f"{Path(folder) / CONFIG_FILE} has format {found!r:.80}; expected {FORMAT!r}. Give the `delta` folder of a tune run."
        )
    return config


def describe_tuned(config: Mapping[str, Any], folder: str | Path) -> ModelDescription:
    """Return what rebuilds a tuned model; deltas are files beside the description, and nothing else.

    Args:
        config: What :func:`read_tuned_config` returned.
        folder: The folder, for messages.

    Raises:
        FileFormatError: If something is missing or of another kind, or a delta is a file elsewhere.
    """
    file = Path(folder) / CONFIG_FILE
    described = read_description(config, file, "Tune again.")
    problems = []
    for key in ("backbones", "deltas"):
        names = config.get(key)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            problems.append(f"{key} is {names!r:.80}; expected a list of texts")
    arrays = config.get("inputs")
    if not isinstance(arrays, dict):
        problems.append(f"inputs is {arrays!r:.80}; expected an object")
    else:
        problems += [
            f"inputs.{name:.80} is {facts!r:.80}; expected an object with the dtype and the shape of a row"
            for name, facts in arrays.items()
            if not _is_array(facts)
        ]
        read = [name for spec in described.inputs.values() for name in spec.arrays.values()]
        if lost := [name for name in read if not isinstance(name, str) or name not in arrays]:
            problems.append(f"its input_specs read {lost!r:.80}, which inputs does not describe")
    thresholds = config.get("thresholds") or {}
    if not isinstance(thresholds, dict) or not all(_are_numbers(value) for value in thresholds.values()):
        problems.append(f"thresholds is {thresholds!r:.80}; expected an object with lists of numbers between 0 and 1")
    tuning = described.plan.train.tuning
    size = None if tuning is None else tuning.settings.get("working_size")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int)):
        problems.append(f"the working_size of its tuner is {size!r:.80}; expected a whole number")
    if not problems:
        # A backslash separates folders on Windows only; `Path.name` would keep it elsewhere.
        problems = [
            f"deltas names {name!r:.80}, which is no .safetensors file beside it; files elsewhere are not read"
            for name in config["deltas"]
            if name != Path(name).name or "\\" in name or not name.endswith(".safetensors")
        ]
    if problems:
        raise FileFormatError(f"{file} is damaged: {'; '.join(problems)}. Tune again.")
    return described


def _are_numbers(value: Any) -> bool:
    return value is None or (
        isinstance(value, list)
        and all(isinstance(one, int | float) and not isinstance(one, bool) and 0 < one < 1 for one in value)
    )


def _is_array(facts: Any) -> bool:
    """Return whether this describes the array of an input: rows like these are made to try a backbone with."""
    shape = facts.get("shape") if isinstance(facts, dict) else None
    if not isinstance(shape, list) or not all(
        isinstance(side, int) and not isinstance(side, bool) and side >= 0 for side in shape
    ):
        return False
    return facts.get("dtype") in _DTYPES and math.prod(shape) <= _LARGEST_ROW


class _GivenFeatures(FeatureInput):
    """Stands where the backbone stood: heads of any layout are built on it, and read ``features``."""

    def __init__(self, shape: FeatureShape) -> None:
        super().__init__(shape.width)
        self.feature_shape = shape


@dataclass(frozen=True, kw_only=True, slots=True)
class TunedFolder:
    """A tuned model whose backbone is elsewhere."""

    folder: Path
    config: Mapping[str, Any]
    """The whole description."""
    tasks: tuple[TaskSpec, ...]
    plan: Plan
    spec: InputSpec
    """What the backbone reads."""

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Read the description.

        Raises:
            FileFormatError: If it is damaged, or another format.
            ComponentError: If it names a component of a package that is not allowed.
            ConfigError: If the model has more than one input, so that its features do not come from one backbone.
        """
        config = read_tuned_config(folder)
        described = describe_tuned(config, folder)
        inputs, prefixes, deltas = described.inputs, config["backbones"], config["deltas"]
        for _, _, component in described.plan.components():
            component.check()
        if len(inputs) != 1 or len(prefixes) != 1 or len(deltas) > 1:
            raise ConfigError(
                f"{folder} reads {len(inputs)} inputs with {len(prefixes)} backbones; models that share one backbone read one input "
                "with it. Serve its run alone."
            )
        spec = next(iter(inputs.values()))
        return cls(folder=Path(folder), config=config, tasks=described.tasks, plan=described.plan, spec=spec)

    @property
    def backbone(self) -> str:
        """Name of the backbone that was tuned."""
        return str(self.config["backbone"])

    @property
    def is_dense(self) -> bool:
        """Whether the backbone gives maps, or tokens, for tasks with a prediction for each position."""
        return any(task.positions in ("pixels", "steps") for task in self.tasks)

    @property
    def working_size(self) -> int | None:
        """Working resolution in pixels that the tuner set; None if it set none."""
        tuning = self.plan.train.tuning
        size = dict(tuning.settings).get("working_size") if tuning else None
        return None if size is None else int(size)

    def delta(self) -> Delta | None:
        """Return what was added to the backbone; None if only the heads learned.

        Raises:
            FileFormatError: If the file is damaged.
        """
        names = self.config["deltas"]
        return load_delta(self.folder / names[0]) if names else None

    def heads(self, shape: FeatureShape) -> SharedModel:
        """Return the model without its backbone, in evaluation mode: it takes ``{"features": tensor}``.

        Args:
            shape: Of the backbone's features.

        Raises:
            FileFormatError: If the weights of the heads are damaged, or do not fit features of this shape.
        """
        inputs = read_input_specs(self.config)
        model: SharedModel = self.plan.train.sharing.build(
            self.tasks, lambda: _GivenFeatures(shape), seam=SharedModel, inputs=inputs
        )
        try:
            tensors = safetensors.torch.load_file(self.folder / HEADS_FILE)
            if self.config["stored_features"]:
                # There it stood behind the backbone, as one part of the whole.
                tensors = {name.removeprefix("inner."): tensor for name, tensor in tensors.items()}
            model.load_state_dict(tensors)
        except (OSError, RuntimeError, safetensors.SafetensorError) as error:
            raise FileFormatError(f"{self.folder / HEADS_FILE} does not fit its {CONFIG_FILE}: {error}. Tune again.") from error
        return model.eval()
