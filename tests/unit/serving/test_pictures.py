from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from graftwork.core.errors import DataError
from graftwork.core.records import TaskSpec
from graftwork.data.reading.ingest import open_suite
from graftwork.serving.limits import ServeLimits
from graftwork.serving.pictures import PictureReader
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


def test_training_prediction_and_serving_see_the_same_pixels(picture_run: Path, tmp_path: Path) -> None:
    """Floating-point and 16-bit pictures, every orientation, EXIF that cannot be written: alone and in a set, from file and from
    bytes."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for index in range(24):
        ramp = np.linspace(0, 1, 200).reshape(10, 20) * draw.uniform(0.5, 1)
        if index % 3 == 0:
            Image.fromarray(ramp.astype(np.float32)).save(folder / f"{index:02d}.tif")
        elif index % 3 == 1:
            Image.fromarray((ramp * 4095).astype(np.uint16)).save(folder / f"{index:02d}.png")
        else:
            entry = struct.pack("<HHIHH", 0x0112, 3, 1, index // 3 + 1, 0) + struct.pack("<HHII", 0x011A, 10, 1, 38)
            exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entry + struct.pack("<I", 0) + struct.pack("<ii", -1, 0)
            Image.fromarray((ramp * 255).astype(np.uint8)).save(folder / f"{index:02d}.jpg", exif=exif)
    (folder / "labels.csv").write_text(
        "file,y\n" + "".join(f"{path.name},{float(path.stem)}\n" for path in folder.glob("[0-9]*"))
    )
    suite = open_suite(folder, image_size=8)
    assert set(suite.only_input.encoder["scales"]) == {"integer", "float"}
    config = json.loads((picture_run / "model" / "config.json").read_text())
    (picture_run / "model" / "config.json").write_text(json.dumps(config | {"encoder": dict(suite.only_input.encoder)}))
    predictor = Predictor(picture_run, threads=1)
    names, expected = suite.raw["labels"], suite.inputs["image"].mean(axis=(1, 2), dtype=np.float64)
    table = predictor.predict(folder)
    np.testing.assert_allclose(table.loc[names].to_numpy(), expected, rtol=1e-5)
    reader = PictureReader(predictor.encoder, ServeLimits(max_rows=100, max_pixels=10**6, max_picture_pixels=10**6))
    for row, name in enumerate(names):
        np.testing.assert_allclose(predictor.predict(folder / name).to_numpy()[0], expected[row], rtol=1e-5)
        (served,) = reader.finish([(folder / name).read_bytes()])
        np.testing.assert_array_equal(served, suite.inputs["image"][row])


def test_all_unreadable_pictures_of_a_folder_are_named(picture_run: Path, pictures: Path) -> None:
    for index in range(8):
        Image.new("RGB", (8, 8)).save(pictures / f"good{index}.png")
    (pictures / "a.png").write_bytes(b"")
    (pictures / "z.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError) as caught:
        Predictor(picture_run, threads=1, batch_size=2).predict(pictures)
    for part in (
        "2 of 12 pictures cannot be decoded",
        "a.png (zero bytes)",
        "z.png (truncated or damaged)",
        "Replace these files",
    ):
        assert part in str(caught.value)
