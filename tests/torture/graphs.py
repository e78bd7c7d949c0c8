"""Damaged ONNX models and Parquet files: whole by their format, with other nodes, weights, types and sizes in them."""

from __future__ import annotations

import io
import random
from typing import Any

from .pictures import OUTSIDE

__all__ = ["damage_graph", "damage_parquet"]

_OPERATORS = (
    "Loop",
    "If",
    "Scan",
    "MatMul",
    "Gather",
    "Reshape",
    "Expand",
    "ConstantOfShape",
    "Tile",
    "Resize",
    "StringNormalizer",
    "nobody",
    "",
)
_SIZES = (0, 1, -1, 2, 2**20, 2**31 - 1, 2**62, -(2**63))


def damage_graph(rng: random.Random, content: bytes) -> bytes:
    """Return an ONNX model in which one to four things were changed."""
    import onnx

    model = onnx.load_model_from_string(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice((_weights, _weights, _outside, _node, _node, _value, _metadata))(rng, model)
    return bytes(model.SerializeToString())


def _weights(rng: random.Random, model: Any) -> None:
    if not model.graph.initializer:
        return
    weight = rng.choice(model.graph.initializer)
    way = rng.randrange(5)
    if way == 0:
        weight.raw_data = weight.raw_data[: rng.randrange(len(weight.raw_data) + 1)]
    elif way == 1:
        weight.dims.append(rng.choice(_SIZES))
    elif way == 2 and weight.dims:
        weight.dims[rng.randrange(len(weight.dims))] = rng.choice(_SIZES)
    elif way == 3:
        weight.data_type = rng.randrange(-1, 30)
    else:
        weight.name += rng.choice(("x", "\0", "/../x"))


def _outside(rng: random.Random, model: Any) -> None:
    """Let a weight lie in another file."""
    if not model.graph.initializer:
        return
    weight = rng.choice(model.graph.initializer)
    weight.ClearField("raw_data")
    weight.data_location = 1
    places = (
        f"../../{OUTSIDE}/secret.bin",
        f"../{OUTSIDE}/secret.bin",
        f"{OUTSIDE}/secret.bin",
        "/etc/hostname",
        "/dev/zero",
        "",
        "config.json",
        "\0",
    )
    facts = {"location": rng.choice(places), "offset": str(rng.choice(_SIZES)), "length": str(rng.choice(_SIZES))}
    for key, value in facts.items():
        if rng.random() < 0.8:
            entry = weight.external_data.add()
            entry.key, entry.value = key, value


def _node(rng: random.Random, model: Any) -> None:
    node = rng.choice(model.graph.node)
    way = rng.randrange(7)
    if way == 0:
        node.op_type = rng.choice(_OPERATORS)
    elif way == 1 and node.input:
        others = [name for other in model.graph.node for name in (*other.output, *other.input)]
        node.input[rng.randrange(len(node.input))] = rng.choice([*others, "nobody", ""])
    elif way == 2:
        model.graph.node.remove(node)
        if not model.graph.node:
            model.graph.node.append(node)
    elif way == 3 and node.attribute:
        attribute = rng.choice(node.attribute)
        attribute.i, attribute.type = rng.choice(_SIZES), rng.choice((attribute.type, 2, 7, 14))
        del attribute.ints[rng.randrange(len(attribute.ints) + 1) :]
        attribute.ints.append(rng.choice(_SIZES))
    elif way == 4:
        node.domain = rng.choice(("com.microsoft", "ai.onnx.ml", "evil", "\0"))
    elif way == 5 and node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice([node.output[0], *node.input, "new"])
    else:
        model.graph.node.append(node)


def _value(rng: random.Random, model: Any) -> None:
    value = rng.choice([*model.graph.input, *model.graph.output])
    way = rng.randrange(4)
    if way == 0:
        value.type.tensor_type.elem_type = rng.randrange(-1, 24)
    elif way == 1:
        value.name = rng.choice(("x", "", "\0", "é" * 300))
    elif way == 2:
        value.type.tensor_type.shape.dim.add().dim_value = rng.choice(_SIZES)
    elif value.type.tensor_type.shape.dim:
        rng.choice(value.type.tensor_type.shape.dim).dim_value = rng.choice(_SIZES)


def _metadata(rng: random.Random, model: Any) -> None:
    way = rng.randrange(3)
    if way == 0:
        entry = rng.choice(model.metadata_props) if model.metadata_props else model.metadata_props.add()
        entry.key = "graftwork.outputs"
        entry.value = rng.choice(
            ("", "{", "[]", "{}", '{"a": 1}', '{"number": "nobody"}', "[" * 5_000, "7" * 6_000, '{"a": "\\ud800"}')
        )
    elif way == 1:
        model.ir_version = rng.choice(_SIZES)
    else:
        opset = rng.choice(model.opset_import)
        opset.version, opset.domain = rng.choice((0, 1, 7, 99, -1, 2**62)), rng.choice(("", "ai.onnx", "evil"))


def damage_parquet(rng: random.Random, content: bytes) -> bytes:
    """Return a Parquet file in which columns have other types, values, names or numbers, and notes for pandas that do not fit."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(content))
    rows = table.num_rows
    odd: tuple[Any, ...] = (
        pa.array([None] * rows), pa.array([b"\xff\0"] * rows), pa.array([[1, 2], [], None] * rows)[:rows], pa.array([{"a": {"b": [1]}}] * rows),
        pa.array(["x" * 2_000] * rows), pa.array([float("nan"), float("inf"), -1e308] * rows)[:rows], pa.array([2**63 - 1, -(2**63)] * rows)[:rows],
        pa.array([True, None] * rows)[:rows], pa.array(["a", "b"] * rows)[:rows].dictionary_encode(), pa.array([0] * rows, pa.timestamp("ns", "Asia/Kathmandu")),
        pa.array([2**62] * rows, pa.timestamp("s")), pa.array([-(2**31)] * rows, pa.date32()), pa.array([5] * rows, pa.decimal128(38, 30)),
        pa.array([1] * rows, pa.duration("us")), pa.array([1] * rows, pa.time64("ns")), pa.array([1.5] * rows, pa.float16()), pa.array([2**64 - 1] * rows, pa.uint64()),
        pa.array([[("k", 1)]] * rows, pa.map_(pa.string(), pa.int64())), pa.array(["", "\0", "é", "\x1b[31m", "=1+1"] * rows)[:rows],
    )  # fmt: skip
    for _ in range(rng.choice((1, 1, 2, 3))):
        index = rng.randrange(table.num_columns)
        name = table.column_names[index]
        way = rng.randrange(6)
        if way <= 2:
            table = table.set_column(index, name, rng.choice(odd))
        elif way == 3 and table.num_columns > 1:
            table = table.remove_column(index)
        elif way == 4:
            names = list(table.column_names)
            names[index] = rng.choice((names[0], "", "\0", "a" * 5_000, "price", "\x1b[31m"))
            table = table.rename_columns(names)
        else:
            notes = (
                b"{",
                b"[]",
                b'{"index_columns": ["nobody"]}',
                b'{"columns": 7}',
                b'{"index_columns": [{"kind": "range", "start": 0, "stop": 9e9, "step": 1}]}',
            )
            table = table.replace_schema_metadata({b"pandas": rng.choice(notes)})
    if rng.random() < 0.1:
        table = table.slice(0, rng.choice((0, 1)))
    target = io.BytesIO()
    compression, size = rng.choice(("snappy", "zstd", "gzip", "none")), rng.choice((1, 7, 1_000))
    try:
        pq.write_table(table, target, compression=compression, row_group_size=size)
    except pa.ArrowException:  # no file can hold this
        return content
    return target.getvalue()
