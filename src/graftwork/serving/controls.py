"""Models that can be made smaller after training: which sub-network fits a budget and the importance of the tasks. No torch.

A controllable run has ``controls.json`` beside ``model.onnx``: ``{"configurations": [{"encoder": 0.5, "decoders": {"depth": 1.0,
...}, "flops": 2.1e6, "file": "configurations/12.onnx"}, ...]}``. Ratios are widths relative to the full model, FLOPs are per
sample, and files are relative to ``controls.json``. The rule is that of Efficient Controllable Multi-Task Architectures
(https://arxiv.org/abs/2308.11744): importance sets the decoders' widths, the budget sets the encoder's.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from graftwork.core.errors import FileFormatError
from graftwork.core.files import read_json
from graftwork.math.widths import narrowing_widths
from graftwork.serving.problems import Problem, RequestError

__all__ = ["Configuration", "Controls", "find_controls"]


@dataclass(frozen=True, slots=True)
class Configuration:
    """One sub-network and its file."""

    encoder: float
    """Width of the encoder relative to the full one, above 0 and at most 1."""
    decoders: Mapping[str, float]
    """Width of each task's decoder, above 0 and at most 1."""
    flops: float
    """Floating-point operations per sample, above 0."""
    file: Path

    def widths(self) -> dict[str, Any]:
        """Return the widths as JSON."""
        return {"encoder": self.encoder, "decoders": dict(self.decoders)}


class Controls:
    """All sub-networks of a controllable model.

    Args:
        configurations: At least one, all with the same tasks.
        source: File they came from, for messages.

    Raises:
        FileFormatError: If there are none, or their tasks differ.
    """

    def __init__(self, configurations: Sequence[Configuration], *, source: str = "controls.json") -> None:
        if not configurations:
            raise FileFormatError(f"{source} lists no configurations. Export the model again, or remove the file.")
        self.configurations = tuple(configurations)
        self.tasks = tuple(self.configurations[0].decoders)
        if any(set(item.decoders) != set(self.tasks) for item in self.configurations):
            raise FileFormatError(f"{source}: all configurations must name the decoders of the tasks {list(self.tasks)}.")
        self.full_flops = max(item.flops for item in self.configurations)
        self._levels = {task: sorted({item.decoders[task] for item in self.configurations}) for task in self.tasks}

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read ``controls.json``.

        Raises:
            FileFormatError: If it is damaged, or names a file that is missing or outside of its folder.
        """
        path = Path(path)
        content = read_json(path)
        try:
            return cls([_configuration(item, path.parent) for item in content["configurations"]], source=str(path))
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(
                f"{path} is damaged ({type(error).__name__}: {error}). It takes a list `configurations` of objects with "
                "encoder, decoders, flops and file. Export the model again."
            ) from error

    def share(self, configuration: Configuration) -> float:
        """Return the FLOPs of a configuration relative to the full model."""
        return configuration.flops / self.full_flops

    def choose(
        self, budget: float = 1.0, importance: Mapping[str, float] | None = None, *, asked: Sequence[str] | None = None
    ) -> Configuration:
        """Return the sub-network for a budget and the importance of the tasks.

        The most important task gets the widest decoder and every other one the width nearest to its share of that importance, so
        that more importance never means a narrower decoder. Then the widest encoder is taken that keeps within the budget. If
        none does, the decoders shrink, the least important first (tasks of equal importance together), until one fits. Where the
        list has no configuration with the decoders that the importances ask for, the nearest one in the right order is taken.

        Args:
            budget: Largest share of the full model's FLOPs, above 0 and at most 1.
            importance: Weight of each task, at least 0; tasks that are not named weigh 1. None weighs all alike, and so do zeros
                alone.
            asked: Tasks whose predictions are wanted; the others weigh nothing. None wants all.

        Raises:
            RequestError: With status 422, if the smallest configuration is above the budget, or the importances are wrong.
        """
        weights = self._weights(importance or {}, asked)
        # A budget that was computed from the same FLOPs must fit in spite of rounding.
        limit = budget * self.full_flops * (1 + 1e-9)
        fitting = [item for item in self.configurations if item.flops <= limit]
        if not fitting:
            smallest = min(item.flops for item in self.configurations) / self.full_flops
            raise RequestError(
                422,
                "No configuration of this model fits the budget.",
                Problem("budget", budget, f"a share of the full cost from {math.ceil(smallest * 1000) / 1000:g} to 1"),
            )
        narrowing = list(narrowing_widths(self._levels, weights))
        # With an export that lists other widths, the search below takes the nearest.
        if any(item.decoders == narrowing[0] for item in self.configurations):
            for widths in narrowing:
                found = [item for item in fitting if item.decoders == widths]
                if found:
                    return max(found, key=lambda item: (item.encoder, item.flops))
        # The order of importance first; nearness decides among what keeps it.
        ordered = [item for item in fitting if _is_monotone(item.decoders, weights)] or fitting
        return min(ordered, key=lambda item: (_distance(item.decoders, narrowing[0], weights), -item.encoder, -item.flops))

    def _weights(self, importance: Mapping[str, float], asked: Sequence[str] | None) -> dict[str, float]:
        unknown = [name for name in importance if name not in self.tasks]
        wrong = [name for name, weight in importance.items() if not (math.isfinite(weight) and weight >= 0)]
        problems = [Problem(f"importance.{name}", importance[name], f"tasks: {', '.join(self.tasks)}") for name in unknown]
        problems += [Problem(f"importance.{name}", importance[name], "a number of at least 0") for name in wrong]
        weights = {task: float(importance.get(task, 1.0)) if asked is None or task in asked else 0.0 for task in self.tasks}
        if problems:
            raise RequestError(422, "The importances cannot be used.", *problems)
        if not any(weights.values()):
            # All zeros say nothing about the order, so all tasks that were asked count alike.
            return {task: 1.0 if asked is None or task in asked else 0.0 for task in self.tasks}
        return weights


def _is_monotone(decoders: Mapping[str, float], weights: Mapping[str, float]) -> bool:
    return all(decoders[more] >= decoders[less] for more in weights for less in weights if weights[more] > weights[less])


def _distance(decoders: Mapping[str, float], wanted: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Return how far widths are from the wanted ones; the width of an important task counts more."""
    return sum(weights[task] * abs(decoders[task] - width) for task, width in wanted.items())


def _configuration(item: Mapping[str, Any], folder: Path) -> Configuration:
    # Resolved, links as well: a file outside must not be opened, whatever the JSON says.
    file = (folder / str(item["file"])).resolve()
    if not file.is_relative_to(folder.resolve()) or not os.path.isfile(file):
        raise FileFormatError(
            f"{folder / 'controls.json'} names the file {item['file']!r}, which is not in {folder}. Export the model again."
        )
    decoders = {str(task): float(width) for task, width in item["decoders"].items()}
    found = Configuration(float(item["encoder"]), decoders, float(item["flops"]), file)
    if not (found.flops > 0 and math.isfinite(found.flops)):
        raise ValueError(f"flops must be above 0; got {item['flops']!r}")
    if not decoders or not all(0 < width <= 1 for width in (found.encoder, *decoders.values())):
        raise ValueError(f"widths must be above 0 and at most 1; got {found.widths()}")
    return found


def find_controls(model: str | Path) -> Controls | None:
    """Return the controls beside ``model.onnx``; None if the model is not controllable."""
    path = Path(model).parent / "controls.json"
    return Controls.read(path) if path.is_file() else None
