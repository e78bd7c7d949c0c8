"""Two mergers that exist in a temporary folder only, a card and a module each: nothing of the package is edited to make them
usable."""

from __future__ import annotations

import atexit
import functools
import importlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from graftwork.core.cards import Card, load_cards

__all__ = ["throw_away_cards"]

CARD = """
slug = "{slug}"
title = "A merger that is made for a test"
year = 2024
link = "https://example.org"
room = "merging"
kind = "method"
summary = "A merger that lives in a temporary folder, to show that a new one is found without any edit elsewhere."
claim = "It is found by its card, takes its settings from its signature, and passes the contract of its seam."
aliases = ["{alias}"]
components = ["graftwork.methods.merging.{module}:Helper", "graftwork.methods.merging.{module}:{name}"]
recipe = "graftwork.recipes.merging.{module}"
seams = ["{seam}"]

[contract.{name}]
strength = 0.5
"""

MERGER = '''
"""Moves the base towards the median of the models."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.interfaces.merger import Merger


def Helper() -> None:
    """Cards may name components that are no mergers."""


class ThrowAwayMedian(Merger):
    """``base + strength * (median of the models - base)``."""

    def __init__(self, *, strength: float, rule: Literal["median", "mean"] = "median", steps: int = 1) -> None:
        if not 0.0 <= strength <= 1.0:
            raise ConfigError(f"`strength` must be from 0 to 1; got {strength!r}.")
        self.strength, self.rule, self.steps = strength, rule, steps

    def merge_tensor(self, name: str, base: NDArray[Any], experts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Return the merged tensor."""
        values = np.stack([np.asarray(expert, np.result_type(base.dtype, np.float32)) for expert in experts])
        middle = np.median(values, axis=0) if self.rule == "median" else values.mean(axis=0)
        return np.asarray(base + np.asarray(self.strength, middle.dtype) * (middle - base))

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "throw-away-median", "strength": self.strength, "rule": self.rule, "steps": self.steps}
'''

MODEL_MERGER = '''
"""Scales the mean of the models so that it predicts best on the validation rows, in a network with another shape if asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.interfaces.model_merger import MergeContext, MergeModel, ModelMerger


def Helper() -> None:
    """Cards may name components that are no mergers."""


class ThrowAwayScaled(ModelMerger):
    """The mean of the models times ``strength``, or times what fits the rows best where there are rows; ``extra`` outputs are added."""

    def __init__(self, *, strength: float = 1.0, extra: int = 0) -> None:
        self.strength, self.extra = strength, extra

    def merge(self, base: MergeModel | None, experts: Sequence[MergeModel], context: MergeContext) -> Mapping[str, NDArray[Any]]:
        """Return the merged tensors."""
        merged = {name: np.mean([model.tensors[name] for model in experts], axis=0) for name in experts[0].tensors}
        strength = self.strength
        if context.rows:
            import torch

            network = experts[0].build()
            network.load_state_dict({name: torch.from_numpy(value.astype(np.float32)) for name, value in merged.items()})
            seen = [network(batch.inputs["numeric"]).abs().mean().item() for batch in context.batches("val", 8)]
            context.count("steps")
            strength = strength / (1e-6 + float(np.mean(seen)))
        noise = np.random.default_rng(context.seed).normal(size=self.extra).astype(np.float32)
        merged = {name: np.asarray(strength * value, np.float32) for name, value in merged.items()}
        return {**merged, "extra": noise} if self.extra else merged

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "throw-away-scaled", "strength": self.strength, "extra": self.extra}
'''


@functools.cache
def throw_away_cards() -> Mapping[str, Card]:
    """Write the files, make the modules importable, and return the cards by slug."""
    folder = Path(tempfile.mkdtemp(prefix="throw-away-mergers-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for slug, alias, name, seam, source in (
        ("throw-away-median", "median", "ThrowAwayMedian", "Merger", MERGER),
        ("throw-away-scaled", "scaled", "ThrowAwayScaled", "ModelMerger", MODEL_MERGER),
    ):
        module = slug.replace("-", "_")
        (folder / f"{slug}.toml").write_text(CARD.format(slug=slug, alias=alias, module=module, name=name, seam=seam))
        (folder / f"{module}.py").write_text(source)
    room = importlib.import_module("graftwork.methods.merging")
    room.__path__.append(str(folder))
    return load_cards(folder)
