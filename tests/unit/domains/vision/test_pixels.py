"""Learners of tables on pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graftwork.core.errors import DataError
from graftwork.core.input_spec import image_input
from graftwork.core.optional import has
from graftwork.core.records import TaskSpec
from graftwork.data.reading.ingest import open_suite
from graftwork.data.suite import Suite
from graftwork.domains.tabular.suite_graph import GraphBuilder
from graftwork.domains.vision.picture_table import PictureTable
from graftwork.domains.vision.pixels import PixelsLearner, PixelsLinearLearner, PixelsTreesLearner
from graftwork.interfaces.learner import LearnerContext
from graftwork.workflows.portfolio import load_catalogue, portfolio

MAKERS: dict[str, type[PixelsLearner]] = {"pixels-linear": PixelsLinearLearner, "pixels-trees": PixelsTreesLearner}


def pictures(rows: int = 400, size: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return noise with a bar, upright or lying, in some corner, and how red it is."""
    draw = np.random.default_rng(seed)
    image = draw.integers(0, 60, (rows, size, size, 3)).astype(np.uint8)
    upright, red = draw.integers(0, 2, rows), draw.integers(100, 250, rows)
    for row in range(rows):
        y, x = draw.integers(1, size // 2, 2)
        high, wide = (size // 2 - 1, 3) if upright[row] else (3, size // 2 - 1)
        image[row, y : y + high, x : x + wide, 0] = red[row]
    return image, upright, red.astype(np.float64), draw.normal(size=rows)


def picture_suite(**sizes: int) -> Suite:
    image, upright, red, _ = pictures(**sizes)
    order = np.arange(len(image))
    return Suite.of_arrays(
        name="bars",
        input_specs=image_input(image.shape[1]),
        tasks=[
            TaskSpec(name="upright", kind="binary", size=1, classes=("no", "yes"), columns=("upright",)),
            TaskSpec(name="red", kind="regression", size=1, columns=("red",)),
        ],
        inputs={"image": image},
        targets={"upright": upright, "red": red[:, None].astype(np.float32)},
        splits={"train": order[::2], "val": order[1::4], "test": order[3::4]},
    )


def context_of(suite: Suite, name: str, folder: Path) -> LearnerContext:
    return LearnerContext(suite=suite, plan=load_catalogue()[name].plan, seed=0, max_steps=1, cache=folder)


def test_columns_by_hand() -> None:
    image = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    image[0, :, 4:] = 100  # the right half is lit
    table = PictureTable("image", 8, coloured=False)
    found = table.matrix({"image": image}, np.arange(1))[0]
    assert found.shape == (table.width,) == (8 * 8 + 16 * 4 * 4 + 2 + 8,)
    light, edges, (total, spread), levels = np.split(found, [64, 64 + 256, 64 + 258])
    assert np.array_equal(light.reshape(8, 8), np.where(np.arange(8) < 4, 0.0, 300.0)[None].repeat(8, axis=0))
    # Inside are 6 x 6 pixels in cells of 1 or 2; both columns at the edge rise by 300, and nothing falls towards the right.
    first, opposite = edges.reshape(16, 4, 4)[:2]
    assert first.sum() == 6 * 2 * 300
    assert opposite.sum() == 0
    assert (first.sum(axis=0) > 0).tolist() == [False, True, True, False]
    assert total == 32 * 100
    assert spread == pytest.approx(64 * 50)  # the number of pixels times the standard deviation
    assert levels.tolist() == [32.0] * 3 + [0.0] * 5  # of 16, 48, 80, 112 ... three lie below 100


def test_a_size_that_no_square_divides_makes_no_edges() -> None:
    image = np.full((1, 97, 97, 3), 100, dtype=np.uint8)
    table = PictureTable("image", 97, coloured=False)
    edges = table.matrix({"image": image}, np.arange(1))[0, 256 : 256 + 256]
    assert not edges.any()


@pytest.mark.skipif(not has("onnxruntime"), reason="needs onnxruntime")
@pytest.mark.parametrize("size", [1, 2, 5, 16, 31, 48, 97, 224])
@pytest.mark.parametrize("coloured", [False, True])
def test_a_graph_has_the_same_bits(size: int, coloured: bool, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    image = np.random.default_rng(size).integers(0, 256, (6, size, size, 3 if coloured else 1)).astype(np.uint8)
    image = np.broadcast_to(image, (6, size, size, 3)).copy()
    image[0], image[1] = 0, 255  # where nothing changes the spread is 0 exactly
    order = np.arange(6)
    suite = Suite.of_arrays(
        name="noise",
        input_specs=image_input(size),
        tasks=[TaskSpec(name="one", kind="regression", size=1, columns=("one",))],
        inputs={"image": image},
        targets={"one": np.ones((6, 1), dtype=np.float32)},
        splits={"train": order, "val": order[:0], "test": order[:0]},
    )
    table = PictureTable.of_suite(suite, "It")
    assert table.coloured == coloured
    builder = GraphBuilder(suite)
    last = table.graph(builder)
    graph = onnx.helper.make_graph(
        builder._nodes,
        "columns",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["n", size, size, 3])],
        [onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, ["n", table.width])],
        builder._constants,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": image})
    assert np.array_equal(found, table.matrix(suite.inputs, order))


@pytest.mark.parametrize("name", MAKERS)
def test_direction_and_colour_are_learned_and_exported(name: str, tmp_path: Path) -> None:
    suite = picture_suite()
    learner = MAKERS[name](context_of(suite, name, tmp_path))
    rows = suite.splits["test"]
    before = learner.predict(rows)
    learner.train(1)
    found = learner.predict(rows)
    assert ((found["upright"] > 0.5) == suite.targets["upright"][rows]).mean() > 0.9
    red = suite.targets["red"][rows].reshape(-1)
    error = float(np.sqrt(np.mean((found["red"].reshape(-1) - red) ** 2)))
    assert error < 0.45 * red.std()
    assert np.sqrt(np.mean((before["red"].reshape(-1) - red) ** 2)) > 0.9 * red.std()
    # Other arrays of the same pictures, as `predict` hands them in.
    again = learner.predict(np.arange(len(rows)), inputs={"image": suite.inputs["image"][rows]})
    assert all(np.array_equal(again[task], found[task]) for task in found)
    learner.save(tmp_path / "checkpoint")
    restored = MAKERS[name](context_of(suite, name, tmp_path))
    restored.load(tmp_path / "checkpoint")
    assert all(np.array_equal(restored.predict(rows)[task], found[task]) for task in found)
    assert restored.ledger().parameters_total == learner.ledger().parameters_total > 0
    if has("onnxruntime"):
        learner.export(tmp_path / "model")  # the graph is checked against the predictions
        assert {"model.onnx", "config.json", "model.safetensors"} <= {file.name for file in (tmp_path / "model").iterdir()}


def test_columns_beside_the_picture_count(tmp_path: Path) -> None:
    from PIL import Image

    image, upright, _, size = pictures()
    colour = np.where(np.random.default_rng(1).integers(0, 2, len(image)), "warm", "cold")
    for row, one in enumerate(image):
        Image.fromarray(one).save(tmp_path / f"{row}.png")
    frame = pd.DataFrame(
        {
            "picture": [str(tmp_path / f"{row}.png") for row in range(len(image))],
            "size": size.round(4),
            "colour": colour,
            "price": (2.0 * upright + 3.0 * size + 4.0 * (colour == "warm")).round(3),
        }
    )
    suite = open_suite(frame, targets="price", image_column="picture")
    assert suite.kinds == ("table", "image")
    learner = PixelsTreesLearner(context_of(suite, "pixels-trees", tmp_path / "cache"))
    learner.train(1)
    rows = suite.splits["test"]
    price = suite.targets["price"][rows].reshape(-1)
    error = np.sqrt(np.mean((learner.predict(rows)["price"].reshape(-1) - price) ** 2))
    assert error < 0.6 * price.std()
    if has("onnxruntime"):
        learner.export(tmp_path / "model")


def test_they_are_plans_of_pictures() -> None:
    both = {"pixels-linear", "pixels-trees"}
    for kinds, wanted in ((["image"], both), (["table", "image"], {"pixels-trees"}), (["table"], set()), (["text"], set())):
        assert {plan.name for plan in portfolio(kinds, 2)} & both == wanted, kinds


def test_a_table_is_refused(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    table = open_suite(pd.DataFrame({"a": draw.normal(size=60), "b": draw.normal(size=60)}), targets="b")
    with pytest.raises(DataError, match="one picture a row"):
        PixelsLinearLearner(context_of(table, "pixels-linear", tmp_path))
