"""Headers of safetensors files: what the safetensors library refuses is refused here, with an error that names the file."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from graftwork.core.errors import FileFormatError
from graftwork.core.tensor_files import TensorFile
from graftwork.core.tensor_header import read_header

DATA = b"\0" * 8
TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
TEXT = json.dumps(TENSOR)


def written(path: Path, header: Any, data: bytes = DATA) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def library_takes(path: Path) -> bool:
    try:
        with safe_open(path, "np") as source:
            list(source.keys())
    except (SafetensorError, OSError):
        return False
    return True


def one(**changes: Any) -> dict[str, Any]:
    return {"a": {**TENSOR, **changes}}


REFUSED: dict[str, tuple[Any, str]] = {
    "float offset": (one(data_offsets=[0, 8.0]), "data_offsets is"),
    "text offset": (one(data_offsets=["0", "8"]), "data_offsets is"),
    "negative offset": (one(data_offsets=[-8, 0]), "data_offsets is"),
    "boolean offset": (one(data_offsets=[False, 8]), "data_offsets is"),
    "one offset": (one(data_offsets=[8]), "data_offsets is"),
    "offsets from back to front": (one(data_offsets=[8, 0]), "contradicts itself"),
    "offset of 30 digits": (one(data_offsets=[0, 10**30]), "data_offsets is"),
    "minus nought": (b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[-0,8]}}', "data_offsets is"),
    "float size": (one(shape=[2.0]), "shape is"),
    "text size": (one(shape=["2"]), "shape is"),
    "negative size": (one(shape=[-2]), "shape is"),
    "boolean size": (one(shape=[True, 2]), "shape is"),
    "shape that is a number": (one(shape=2), "shape is 2"),
    "shape that overflows": (one(shape=[2**40, 2**40]), "too large for any file"),
    "shape that overflows before a nought": (one(shape=[2**40, 2**40, 0]), "too large for any file"),
    "shape that overflows in bytes": (one(shape=[2**62]), "too large for any file"),
    "shape that wraps around to fit": (one(shape=[2**62 + 2]), "too large for any file"),
    "unknown type": (one(dtype="F33"), "dtype is 'F33'"),
    "type that is a list": (one(dtype=["F32"]), "dtype is"),
    "no type": ({"a": {"shape": [2], "data_offsets": [0, 8]}}, "has no dtype"),
    "tensor that is null": ({"a": None}, "it is None"),
    "tensor that is a number": ({"a": 3}, "it is 3"),
    "metadata that is a number": ({"__metadata__": {"x": 1}, **one()}, "other than texts"),
    "metadata that is a list": ({"__metadata__": ["x"], **one()}, "other than texts"),
    "two metadata": (b'{"__metadata__":{"x":"1"},"__metadata__":{"y":"1"},"a":%s}' % TEXT.encode(), "comes twice"),
    "two types": (b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', "comes twice"),
    "two tensors, the last one wrong": (b'{"a":%s,"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' % TEXT.encode(), "4 bytes after"),
    "overlap": ({"a": {**TENSOR}, "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, "overlaps 'a'"),
    "hole": ({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}, "b": {"dtype": "U8", "shape": [2], "data_offsets": [6, 8]}}, "4 unused bytes"),
    "hole in front": ({"b": {"dtype": "U8", "shape": [2], "data_offsets": [6, 8]}}, "6 unused bytes"),
    "bytes behind": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, "4 bytes after"),
    "bytes behind nothing": ({}, "8 bytes after"),
    "too few bytes": (one(shape=[4], data_offsets=[0, 16]), "is truncated"),
    "bytes that do not fit the shape": (one(shape=[3]), "contradicts itself"),
    "half a byte": ({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 8]}}, "contradicts itself"),
    "byte order mark": (b"\xef\xbb\xbf" + json.dumps(one()).encode(), "not JSON"),
    "UTF-16": (json.dumps(one()).encode("utf-16"), "not JSON"),
    "bytes that are no text": (b'{"\xff": %s}' % TEXT.encode(), "not JSON"),
    "half a surrogate pair": (b'{"a\\ud800": %s}' % TEXT.encode(), "not valid Unicode"),
    "half a surrogate pair deep inside": (b'{"a": {"x": [["\\udfff"]], %s}' % TEXT[1:].encode(), "not valid Unicode"),
    "NaN": (b'{"a": {"x": NaN, %s}' % TEXT[1:].encode(), "NaN is no number"),
    "number out of range": (b'{"a": {"x": 1e999, %s}' % TEXT[1:].encode(), "out of range"),
    "number of 5000 digits": (b'{"a": {"x": %s, %s}' % (b"9" * 5000, TEXT[1:].encode()), "out of range"),
    "size of 5000 digits": (b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,8]}}' % (b"9" * 5000), "out of range"),
    "deep nesting": (b'{"a": {"x": %s%s, %s}' % (b"[" * 126, b"]" * 126, TEXT[1:].encode()), "levels deep"),
    "very deep nesting": (b'{"a": {"x": %s%s, %s}' % (b"[" * 200_000, b"]" * 200_000, TEXT[1:].encode()), "too deeply"),
    "deep objects": (b'{"a": {"x": %s1%s, %s}' % (b'{"y":' * 126, b"}" * 126, TEXT[1:].encode()), "levels deep"),
    "zero bytes behind the header": (json.dumps(one()).encode() + b"\0\0", "not JSON"),
    "list": (b"[]", "no JSON object"),
    "number": (b"12", "no JSON object"),
    "nothing but spaces": (b"    ", "not JSON"),
}  # fmt: skip

TAKEN: dict[str, Any] = {
    "plain": one(),
    "unknown key": one(note=[1, {"x": -1.5}]),
    "nested as deep as allowed": b'{"a": {"x": %s%s, %s}' % (b"[" * 125, b"]" * 125, TEXT[1:].encode()),
    "metadata that is null": {"__metadata__": None, **one()},
    "metadata with a key that comes twice": b'{"__metadata__":{"x":"1","x":"2"},"a":%s}' % TEXT.encode(),
    "spaces around": b"  " + json.dumps(one()).encode() + b" \n\t ",
    "the same tensor twice": b'{"a":%s,"a":%s}' % (TEXT.encode(), TEXT.encode()),
    "surrogate pair": b'{"a\\ud83d\\ude00":%s}' % TEXT.encode(),
    "empty name": {"": TENSOR},
    "eight bits": {"a": {"dtype": "F8_E4M3", "shape": [2, 4], "data_offsets": [0, 8]}},
    "four bits": {"a": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}},
    "complex": {"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}},
    "no entries, at an odd place": {
        "a": {"dtype": "U8", "shape": [5], "data_offsets": [0, 5]},
        "b": {"dtype": "F32", "shape": [0, 7], "data_offsets": [5, 5]},
        "c": {"dtype": "U8", "shape": [3], "data_offsets": [5, 8]},
    },
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_library_refuses_is_refused_by_name(what: str, tmp_path: Path) -> None:
    header, message = REFUSED[what]
    path = written(tmp_path / "m.safetensors", header)
    assert not library_takes(path)
    with pytest.raises(FileFormatError, match=message) as caught:
        TensorFile(path)
    assert "m.safetensors" in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("what", TAKEN)
def test_what_the_library_takes_is_taken(what: str, tmp_path: Path) -> None:
    path = written(tmp_path / "m.safetensors", TAKEN[what])
    with safe_open(path, "np") as theirs:
        ours = TensorFile(path)
        assert list(ours) == sorted(theirs.keys())
        assert dict(ours.metadata) == (theirs.metadata() or {})
        for name in ours:
            assert list(ours.shape(name)) == theirs.get_slice(name).get_shape()
            assert ours[name].nbytes <= 8


def test_shapes_that_numpy_cannot_hold_are_named(tmp_path: Path) -> None:
    for shape in ([1] * 70 + [2], [2**63, 0]):
        offsets = [0, 8] if shape[-1] else [0, 0]
        path = written(tmp_path / "m.safetensors", one(shape=shape, data_offsets=offsets), DATA if shape[-1] else b"")
        assert library_takes(path)
        with pytest.raises(FileFormatError, match="'a' has a shape that cannot be used"):
            TensorFile(path)


def test_a_header_of_any_length_is_no_pickle(tmp_path: Path) -> None:
    """The first byte of a file is the lowest of the header's length; that of a header of 128 bytes is also the first of a
    pickle."""
    for length in (128, 384, 640):
        text = json.dumps(one()).encode().ljust(length)
        path = written(tmp_path / "m.safetensors", text)
        assert path.read_bytes()[0] == 0x80
        assert list(TensorFile(path)) == ["a"]


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"cannot be read: Is a directory"):
        read_header(tmp_path)


def sample() -> bytes:
    random_values = np.random.default_rng(0)
    tensors = {
        "layer.0.weight": random_values.normal(size=(3, 4)).astype(np.float32),
        "layer.0.bias": random_values.normal(size=4).astype(np.float16),
        "count": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
    }
    return save(tensors, {"note": "a model"})


def mutants(count: int) -> Iterator[bytes]:
    """Damaged copies: bits flipped, bytes replaced, cut, doubled, numbers of the header changed, the length changed."""
    whole, chance = sample(), random.Random(0)
    header_end = 8 + int.from_bytes(whole[:8], "little")
    tokens = [
        b"0",
        b"-1",
        b"1e3",
        b"1.0",
        b"true",
        b"null",
        b'"x"',
        b"[]",
        b"{}",
        b"99999999999999999999",
        b"18446744073709551615",
        b"F64",
    ]
    for number in range(count):
        broken = bytearray(whole)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            place = chance.randrange(header_end)
            kind = number % 6
            if kind == 0:
                broken[min(place, len(broken) - 1)] ^= 1 << chance.randrange(8)
            elif kind == 1:
                broken[min(place, len(broken) - 1)] = chance.choice(b'{}[]",:0123456789-.eE \x00\xff\\')
            elif kind == 2:
                del broken[chance.randrange(len(broken)) :]
                broken = broken or bytearray(b"\0")
            elif kind == 3:
                broken[place:place] = broken[place : place + chance.randrange(1, 20)]
            elif kind == 4:
                digits = [at for at in range(8, min(header_end, len(broken))) if chr(broken[at]).isdigit()]
                at = chance.choice(digits)
                broken[at : at + 1] = chance.choice(tokens)
            else:
                broken[chance.randrange(8)] = chance.randrange(256)
        if kind in (1, 3, 4) and number % 2:  # with a length that fits again, more mutants get to the checks behind the parser
            end = broken.rfind(b"}") + 1
            broken[:8] = struct.pack("<Q", max(end - 8, 0))
        yield bytes(broken)


def test_damaged_files_are_refused_when_the_library_refuses_them_and_never_crash(tmp_path: Path) -> None:
    path, refused = tmp_path / "m.safetensors", 0
    for broken in mutants(600):
        path.write_bytes(broken)
        try:
            ours = TensorFile(path)
            for name in ours:
                np.asarray(ours[name])
        except FileFormatError:
            refused += 1
            continue
        assert library_takes(path), broken[:300]
    assert 300 < refused < 600


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["F32", "dtype"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), JSON | st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F32", "U8", "F4", "X"]) | JSON, "shape": st.lists(st.integers(-1, 5) | JSON, max_size=3) | JSON,
     "data_offsets": st.lists(st.integers(-1, 12) | JSON, min_size=1, max_size=3) | JSON}
), max_size=3))  # fmt: skip
def test_any_header_gets_the_verdict_of_the_library(tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any]) -> None:
    path = written(tmp_path_factory.mktemp("h") / "m.safetensors", header)
    try:
        TensorFile(path)
        taken = True
    except FileFormatError:
        taken = False
    assert taken == library_takes(path)
