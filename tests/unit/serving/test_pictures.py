from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from graftwork.core.errors import DataError
from graftwork.core.records import TaskSpec
from graftwork.serving.predict import Predictor


@pytest.fixture
def picture_run(tmp_path: Path) -> Path:
    """A run whose model returns the mean colour, written with ONNX alone."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float", "axes"], ["colour"], keepdims=0),
        ],
        "mean",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 8, 8, 3])],
        [helper.make_tensor_value_info("colour", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.array([1, 2]), "axes")],
    )
    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "model.onnx")
    task = TaskSpec(name="colour", kind="regression", size=3, columns=("red", "green", "blue"), center=(0, 0, 0), scale=(1, 1, 1))
    config = {"encoder": {"kind": "image", "size": 8}, "tasks": [task.to_json()], "outputs": ["colour"]}
    (folder / "model" / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    Image.new("RGB", (20, 20), (255, 0, 10)).save(folder / "b.png")
    Image.new("RGB", (5, 5), (0, 128, 0)).save(folder / "deep" / "a.png")
    return folder


def test_folder_of_pictures_is_indexed_by_file_name(picture_run: Path, pictures: Path) -> None:
    table = Predictor(picture_run, batch_size=1, threads=1).predict(pictures)
    assert list(table.index) == ["b.png", "deep/a.png"]
    assert table.loc["b.png"].tolist() == [255.0, 0.0, 10.0]
    assert table.loc["deep/a.png", "colour[green]"] == 128.0


def test_one_file_a_list_and_bytes(picture_run: Path, pictures: Path) -> None:
    predictor = Predictor(picture_run, threads=1)
    assert list(predictor.predict(pictures / "b.png").index) == ["b.png"]
    twice = predictor.predict([pictures / "b.png", str(pictures / "b.png"), (pictures / "b.png").read_bytes()])
    assert twice.index.is_unique
    assert (twice["colour[red]"] == 255.0).all()


def test_sources_that_are_no_pictures(picture_run: Path, pictures: Path) -> None:
    predictor = Predictor(picture_run, threads=1)
    table = pictures / "rows.csv"
    table.write_text("a\n1\n")
    with pytest.raises(DataError, match="is not a picture"):
        predictor.predict(table)
    (pictures / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="bad.png"):
        predictor.predict(pictures)
