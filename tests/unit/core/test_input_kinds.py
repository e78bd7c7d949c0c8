"""Kinds of input are found by name; a new one is a module, or is registered, and nothing else changes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import graftwork.data.inputs
from graftwork.core import input_kinds
from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.input_kinds import InputKind, input_kind, input_kind_names, load_part, register_input_kind
from graftwork.core.input_spec import InputSpec, read_input_specs, write_input_specs
from graftwork.core.plan import Plan
from graftwork.core.records import TaskSpec
from graftwork.data.encoders.base import Encoder
from graftwork.data.encoders.joint import encoder_of_inputs
from graftwork.data.suite import Suite
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.interfaces.learner import LearnerContext
from graftwork.serving.reading import RowReader
from graftwork.training.learner import NeuralLearner
from graftwork.workflows.portfolio import portfolio


@pytest.mark.parametrize("name", input_kind_names())
def test_every_kind_is_whole(name: str) -> None:
    kind = input_kind(name)
    assert issubclass(load_part(kind.encoder), Encoder)
    assert load_part(kind.encoder).kind == name
    assert issubclass(load_part(kind.reader), RowReader)
    assert callable(load_part(kind.trunk))
    assert kind.noun
    assert kind.example


def test_unknown_kinds_are_named() -> None:
    with pytest.raises(ConfigError, match="no input kind 'imge'; there are .*Did you mean 'image'"):
        input_kind("imge")
    with pytest.raises(ConfigError, match="is an input kind 'table' already"):
        register_input_kind(InputKind(**{**_fields("table"), "name": "table"}))


def test_older_files_with_one_input_are_read() -> None:
    old = {"modality": "image", "input_sizes": {"image_size": 8}, "encoder": {"kind": "image", "size": 8}}
    assert read_input_specs(old) == {"image": InputSpec(kind="image", sizes={"image_size": 8}, encoder=old["encoder"])}
    assert read_input_specs({"encoder": {"kind": "text"}})["text"].kind == "text"
    specs = {"a": InputSpec(kind="image", sizes={"image_size": 8}, arrays={"image": "a.image"})}
    assert read_input_specs({"input_specs": write_input_specs(specs)}) == specs
    with pytest.raises(FileFormatError, match="kind is None"):
        read_input_specs({"input_specs": {"a": {"sizes": {}}}})


def _fields(name: str) -> dict[str, Any]:
    kind = input_kind(name)
    return {field: getattr(kind, field) for field in InputKind.__dataclass_fields__}


SPECTRUM = '''
"""Spectra: a kind that nobody foresaw."""
from graftwork.core.input_kinds import InputKind
KIND = InputKind(name="spectrum", noun="spectra", example="spectra.npy", encoder="{here}:SpectrumEncoder",
                 trunk="{here}:spectrum_trunk", trunk_summary="one linear layer, new", reader="graftwork.serving.reading:TableReader",
                 batch_size=16)
'''


class SpectrumEncoder(Encoder):
    kind = "spectrum"

    def transform(self, source: Any) -> dict[str, Any]:
        return {"spectrum": np.asarray(source, dtype=np.float32)}

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> SpectrumEncoder:
        return cls()

    def sizes(self) -> dict[str, Any]:
        return {"bands": 6}


class SpectrumTrunk(Backbone):
    def __init__(self, bands: int) -> None:
        super().__init__()
        self.layer, self.feature_shape = nn.Linear(bands, 12), FeatureShape("vector", 12)

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        features: torch.Tensor = self.layer(inputs["spectrum"])
        return features


def spectrum_trunk(sizes: Mapping[str, Any], *, dense: bool = False) -> Backbone:
    return SpectrumTrunk(sizes["bands"])


@pytest.fixture
def _spectrum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Drop a module into the package of kinds, as somebody would who adds one."""
    (tmp_path / "spectrum.py").write_text(SPECTRUM.format(here=__name__))
    monkeypatch.setattr(graftwork.data.inputs, "__path__", [*graftwork.data.inputs.__path__, str(tmp_path)])
    yield
    sys.modules.pop(f"{input_kinds.PACKAGE}.spectrum", None)


@pytest.mark.usefixtures("_spectrum")
@pytest.mark.parametrize("with_table", [False, True])
def test_a_new_kind_trains_and_is_exported(tmp_path: Path, *, with_table: bool) -> None:
    assert "spectrum" in input_kind_names()
    random, rows = np.random.default_rng(0), 80
    spectra = random.normal(size=(rows, 6))
    inputs: dict[str, Any] = SpectrumEncoder().transform(spectra)
    specs = {"spectrum": SpectrumEncoder().spec()}
    if with_table:
        inputs |= {"numeric": random.normal(size=(rows, 2)).astype(np.float32), "categorical": np.zeros((rows, 0), np.int64)}
        specs = {
            "spectrum": InputSpec(kind="spectrum", sizes={"bands": 6}, arrays={"spectrum": "spectrum"}),
            "table": InputSpec(
                kind="table",
                sizes={"num_numeric": 2, "cardinalities": []},
                arrays={"numeric": "numeric", "categorical": "categorical"},
            ),
        }
    target = (spectra[:, :1] * 3).astype(np.float32)
    suite = Suite.of_arrays(
        name="spectra",
        input_specs=specs,
        tasks=[TaskSpec(name="y", kind="regression", size=1), TaskSpec(name="z", kind="regression", size=1)],
        inputs=inputs,
        targets={"y": target, "z": -target},
        splits={"train": np.arange(60), "val": np.arange(60, 70), "test": np.arange(70, 80)},
    )
    plans = portfolio(suite.kinds, 2)
    assert "shared-trunk" in [plan.name for plan in plans]
    assert "lightgbm" not in [plan.name for plan in plans]
    plan: Plan = next(plan for plan in plans if plan.name == "shared-trunk")
    context = LearnerContext(plan=plan, suite=suite, seed=0, max_steps=150, cache=tmp_path / "cache", threads=1)
    learner = NeuralLearner(context)
    learner.train(150)
    error = np.abs(learner.predict(suite.splits["test"])["y"] - target[70:]).mean()
    assert error < 0.5 * np.abs(target[70:] - target[:60].mean()).mean()
    learner.export(tmp_path / "model")
    assert (tmp_path / "model" / "model.onnx").exists()
    if not with_table:
        encoder = encoder_of_inputs(suite.input_specs)
        np.testing.assert_array_equal(encoder.transform(spectra)["spectrum"], suite.inputs["spectrum"])
