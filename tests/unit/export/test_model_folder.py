"""A model that is written into the folder of an earlier one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graftwork.core.errors import StorageError
from graftwork.data.suite import Suite
from graftwork.data.suites.scenes import scenes
from graftwork.export.delta_files import delta_files
from graftwork.export.model_folder import write_model
from graftwork.methods.sharing.ecmt import ECMT
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.cnn import ConvBackbone
from graftwork.serving.controls import find_controls


@pytest.fixture(scope="module")
def suite() -> Suite:
    return scenes(num_train=8, num_val=4, num_test=4, size=16, tasks=("main_body",))


def write(folder: Path, suite: Suite, *, is_controllable: bool) -> None:
    torch.manual_seed(0)
    model = (
        ECMT(suite.tasks, inputs=suite.input_specs, channels=(16,) * 4, decoder_width=16, ratios=(0.5, 1.0))
        if is_controllable
        else SharedTrunk(suite.tasks, lambda: ConvBackbone(16), inputs=suite.input_specs)
    )
    write_model(model, suite, folder, {}, stored=False)


def test_what_only_the_earlier_model_had_does_not_stay(tmp_path: Path, suite: Suite) -> None:
    write(tmp_path, suite, is_controllable=True)
    graphs = list((tmp_path / "configurations").iterdir())
    assert graphs
    assert find_controls(tmp_path / "model.onnx") is not None
    for name in ("delta.safetensors", "delta-main_body.safetensors", "notes.txt", "deltas.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "configurations" / "mine.onnx").write_bytes(b"x")
    write(tmp_path, suite, is_controllable=False)
    assert find_controls(tmp_path / "model.onnx") is None, "the new model has no smaller configurations"
    assert not any(graph.exists() for graph in graphs)
    assert delta_files(tmp_path) == []
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    ours = {"model.safetensors", "model.onnx", "config.json"}
    assert left == {*ours, "notes.txt", "deltas.safetensors", "configurations/mine.onnx"}, "what is not ours stays"


def test_a_link_among_them_is_not_followed(tmp_path: Path, suite: Suite) -> None:
    folder, other = tmp_path / "model", tmp_path / "other.json"
    folder.mkdir()
    other.write_text("{}")
    (folder / "controls.json").symlink_to(other)
    with pytest.raises(StorageError, match=r"controls\.json belongs to an earlier model and cannot be removed"):
        write(folder, suite, is_controllable=False)
    assert other.read_text() == "{}"
    assert not (folder / "model.safetensors").exists()


def test_the_model_that_is_written_stays_in_its_mode(tmp_path: Path, suite: Suite) -> None:
    model = SharedTrunk(suite.tasks, lambda: ConvBackbone(16), inputs=suite.input_specs).train()
    model.backbone.eval()
    write_model(model, suite, tmp_path, {}, stored=False)
    assert model.training
    assert not model.backbone.training
