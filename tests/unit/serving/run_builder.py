"""Run folders with tiny models written in ONNX by hand, whose answers can be worked out in the head."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper

from graftwork.core.records import TaskSpec
from graftwork.data.encoders.columns import CategoricalColumn
from graftwork.data.encoders.series import SeriesEncoder
from graftwork.data.encoders.table import TableEncoder
from graftwork.data.encoders.text import TextEncoder

FLOAT = TensorProto.FLOAT


def graph(
    path: Path, nodes: Sequence[Any], inputs: Mapping[str, Any], outputs: Mapping[str, Any], weights: Mapping[str, Any]
) -> None:
    """Write a model; inputs and outputs are ``{name: (type, shape)}``."""
    made = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def describe(
    folder: Path, encoder: Mapping[str, Any], tasks: Sequence[TaskSpec], kept_errors: Mapping[str, Any] | None = None
) -> Path:
    (folder / "model").mkdir(parents=True, exist_ok=True)
    config = {"encoder": dict(encoder), "tasks": [task.to_json() for task in tasks], "outputs": [task.name for task in tasks]}
    config |= {"kept_errors": dict(kept_errors)} if kept_errors else {}
    (folder / "model" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def table_encoder() -> TableEncoder:
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": np.concatenate([[np.nan], draw.normal(40, 10, 59).round(1)]),
            "city": draw.choice(["Oslo", "Rome", "Lima"], 60),
            "since": pd.date_range("2020-01-01", periods=60, freq="37D").strftime("%Y-%m-%d"),
            "id": np.arange(60.0),
        }
    )
    return TableEncoder.fit(frame, list(frame.columns))


def write_table_run(folder: Path, *, further_cities: int = 0) -> Path:
    """``number`` returns the first numeric input, ``third`` a third of the sum of all, ``city`` the level as a one-hot row."""
    encoder = table_encoder()
    if further_cities:
        age, city, *others = encoder.columns
        levels = (*city.levels, *(f"city {index}" for index in range(further_cities)))
        encoder = TableEncoder([age, CategoricalColumn("city", levels), *others])
    width = encoder.sizes()["num_numeric"]
    size = encoder.sizes()["cardinalities"][0]
    nodes = [
        helper.make_node("MatMul", ["numeric", "first"], ["number"]),
        helper.make_node("MatMul", ["numeric", "ones"], ["third"]),
        helper.make_node("Squeeze", ["categorical", "axis"], ["level"]),
        helper.make_node("OneHot", ["level", "depth", "values"], ["city class"]),
    ]
    first = np.zeros((width, 1), np.float32)
    first[0] = 1
    graph(
        folder / "model.onnx",
        nodes,
        {"numeric": (FLOAT, ["batch", width]), "categorical": (TensorProto.INT64, ["batch", 1])},
        {"number": (FLOAT, ["batch", 1]), "third": (FLOAT, ["batch", 1]), "city class": (FLOAT, ["batch", size])},
        {
            "first": first,
            "ones": np.full((width, 1), 1 / 3, np.float32),
            "axis": np.array([1]),
            "depth": np.array(size),
            "values": np.array([0, 1], np.float32),
        },
    )
    tasks = (
        TaskSpec(name="number", kind="regression", size=1),
        TaskSpec(name="third", kind="regression", size=1),
        TaskSpec(name="city class", kind="multiclass", size=size, classes=("?", *encoder.columns[1].levels)),
    )
    return describe(folder, encoder.state(), tasks, {"number": [[float(n) for n in range(1, 20)]], "third": [[0.5] * 30]})


def write_text_run(folder: Path) -> Path:
    """``length`` counts the tokens, ``long`` says whether there are four or more."""
    encoder = TextEncoder.fit(["good day to you", "bad day", "good night", "a day and a night"] * 3, columns=["body"])
    size = encoder.max_length
    nodes = [
        helper.make_node("Greater", ["tokens", "zero"], ["real"]),
        helper.make_node("Cast", ["real"], ["count each"], to=FLOAT),
        helper.make_node("ReduceSum", ["count each", "axis"], ["length"], keepdims=1),
        helper.make_node("Sub", ["length", "limit"], ["above"]),
        helper.make_node("Sigmoid", ["above"], ["wide"]),
        helper.make_node("Squeeze", ["wide", "axis"], ["long"]),
    ]
    graph(
        folder / "model.onnx",
        nodes,
        {"tokens": (TensorProto.INT64, ["batch", size])},
        {"length": (FLOAT, ["batch", 1]), "long": (FLOAT, ["batch"])},
        {"zero": np.array(0), "axis": np.array([1]), "limit": np.array(3.5, np.float32)},
    )
    tasks = (
        TaskSpec(name="length", kind="regression", size=1),
        TaskSpec(name="long", kind="binary", size=1, classes=("no", "yes")),
    )
    return describe(folder, encoder.state(), tasks)


def write_series_run(folder: Path, *, channels: int = 1, columns: Sequence[str] = ()) -> Path:
    """``last`` returns the last number of the first channel of a series of four steps."""
    # Of mean 0 and deviation 1, so that the encoder changes no number.
    values = np.tile([[-1.0], [1.0]], (4, channels)).reshape(2, 4, channels)
    source: Any = pd.DataFrame({name: [[-1.0, 1.0], [1.0, -1.0, 1.0, -1.0]] for name in columns}) if columns else values
    encoder = SeriesEncoder.fit(source, columns=columns, length=4)
    graph(
        folder / "model.onnx",
        [
            helper.make_node("Gather", ["series", "end"], ["step"], axis=1),
            helper.make_node("Gather", ["step", "first"], ["last"], axis=1),
        ],
        {"series": (FLOAT, ["batch", 4, encoder.channels])},
        {"last": (FLOAT, ["batch", 1])},
        {"end": np.array(3), "first": np.array([0])},
    )
    return describe(folder, encoder.state(), (TaskSpec(name="last", kind="regression", size=1),))


def picture_nodes(scale: str = "one") -> list[Any]:
    return [
        helper.make_node("Cast", ["image"], ["float"], to=FLOAT),
        helper.make_node("Mul", ["float", scale], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled", "axes"], ["colour"], keepdims=0),
        helper.make_node("Transpose", ["scaled"], ["channels first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels first", "kernel"], ["grey"]),
    ]


def write_picture_model(path: Path, *, scale: float = 1.0, size: int = 8) -> None:
    """``colour`` is the mean colour times ``scale``; ``grey`` sums the channels of every pixel."""
    graph(
        path,
        picture_nodes(),
        {"image": (TensorProto.UINT8, ["batch", size, size, 3])},
        {"colour": (FLOAT, ["batch", 3]), "grey": (FLOAT, ["batch", 1, size, size])},
        {"one": np.array(scale, np.float32), "axes": np.array([1, 2]), "kernel": np.full((1, 3, 1, 1), 1 / 3, np.float32)},
    )


PICTURE_TASKS = (
    TaskSpec(name="colour", kind="regression", size=3, columns=("red", "green", "blue")),
    TaskSpec(name="grey", kind="dense_regression", size=1),
)


def write_picture_run(folder: Path) -> Path:
    """Mean colour, and a grey picture."""
    write_picture_model(folder / "model.onnx")
    return describe(folder, {"kind": "image", "size": 8}, PICTURE_TASKS)


def write_controllable_run(folder: Path) -> Path:
    """Like the picture run, with every width of an encoder and two decoders; the mean colour is multiplied by the encoder's
    width."""
    write_picture_run(folder)
    configurations = []
    for encoder in (0.25, 0.5, 1.0):
        for colour in (0.5, 1.0):
            for grey in (0.5, 1.0):
                name = f"configurations/{encoder:g}-{colour:g}-{grey:g}.onnx"
                write_picture_model(folder / name, scale=encoder)
                flops = 1000 * encoder + 200 * colour + 200 * grey
                widths = {"colour": colour, "grey": grey}
                configurations.append({"encoder": encoder, "decoders": widths, "flops": flops, "file": name})
    (folder / "controls.json").write_text(json.dumps({"configurations": configurations}), encoding="utf-8")
    return folder
