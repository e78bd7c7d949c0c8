"""Which sub-network fits a budget and the importance of the tasks."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import FileFormatError
from graftwork.serving.controls import Configuration, Controls, find_controls
from graftwork.serving.problems import RequestError

LEVELS = (0.25, 0.5, 1.0)
GRID = Controls(
    [
        Configuration(encoder, {"a": a, "b": b}, 800 * encoder + 100 * a + 100 * b, Path("x"))
        for encoder, a, b in itertools.product(LEVELS, LEVELS, LEVELS)
    ]
)


def widths(found: Configuration) -> tuple[float, float, float]:
    return (found.encoder, found.decoders["a"], found.decoders["b"])


@pytest.mark.parametrize(
    ("budget", "importance", "expected"),
    [
        (1.0, None, (1.0, 1.0, 1.0)),
        (0.6, None, (0.5, 1.0, 1.0)),  # 400 + 200 = 600 of 1000
        (0.599, None, (0.25, 1.0, 1.0)),
        (0.35, None, (0.25, 0.5, 0.5)),  # the decoders of equal tasks shrink together: 200 + 100
        (0.25, None, (0.25, 0.25, 0.25)),
        (1.0, {"a": 1, "b": 0.5}, (1.0, 1.0, 0.5)),
        (1.0, {"a": 0.2}, (1.0, 0.25, 1.0)),  # b was not named and weighs 1
        (0.55, {"a": 3, "b": 0.75}, (0.5, 1.0, 0.25)),  # only shares count: 0.75 of 3 is a quarter
        (0.3, {"a": 1, "b": 0.5}, (0.25, 0.5, 0.25)),  # first b shrinks, then a: 200 + 50 + 25
        (1.0, {"a": 0, "b": 0}, (1.0, 1.0, 1.0)),
    ],
)
def test_choices_by_hand(budget: float, importance: dict[str, float] | None, expected: tuple[float, ...]) -> None:
    assert widths(GRID.choose(budget, importance)) == expected


def test_tasks_that_are_not_asked_leave_their_share_to_the_encoder() -> None:
    assert widths(GRID.choose(0.54, asked=["a"])) == (0.5, 1.0, 0.25)
    assert widths(GRID.choose(0.54)) == (0.25, 1.0, 1.0)


@given(budget=st.floats(0.25, 1.0), a=st.floats(0, 10), b=st.floats(0, 10), smaller=st.floats(0.25, 1.0))
def test_more_importance_never_means_a_narrower_decoder(budget: float, a: float, b: float, smaller: float) -> None:
    found = GRID.choose(budget, {"a": a, "b": b})
    assert found.flops <= budget * 1000 * (1 + 1e-6)
    if a != b:
        assert (found.decoders["a"] >= found.decoders["b"]) or a < b
        assert (found.decoders["b"] >= found.decoders["a"]) or b < a
    more = GRID.choose(budget, {"a": a + 1, "b": b})
    assert more.decoders["a"] >= found.decoders["a"] or more.encoder > found.encoder
    assert GRID.choose(min(budget, smaller), {"a": a, "b": b}).flops <= found.flops


def test_an_incomplete_list_still_gives_the_largest_that_keeps_the_order() -> None:
    listed = [(1.0, 1.0, 1.0, 1000.0), (0.5, 0.25, 1.0, 600.0), (0.5, 1.0, 0.5, 500.0), (0.25, 1.0, 1.0, 300.0)]
    controls = Controls([Configuration(e, {"a": a, "b": b}, flops, Path("x")) for e, a, b, flops in listed])
    assert widths(controls.choose(0.7, {"a": 1, "b": 0.1})) == (0.5, 1.0, 0.5)


def test_a_list_without_the_wanted_decoders_gives_the_nearest() -> None:
    listed = [(1.0, 1.0, 1.0, 1.0), (1.0, 1.0, 0.25, 0.25), (0.5, 1.0, 1.0, 1.0), (0.25, 0.25, 0.25, 0.25)]
    controls = Controls(
        [Configuration(e, dict(zip("abc", rest, strict=True)), 100 * (e + sum(rest)), Path("x")) for e, *rest in listed]
    )
    found = controls.choose(1.0, {"a": 1, "b": 1, "c": 0.1})
    assert (found.encoder, *found.decoders.values()) == (1.0, 1.0, 1.0, 1.0), "nobody listed a wide a and b with a narrow c"
    assert controls.choose(0.9, {"a": 1, "b": 1, "c": 0.1}).encoder == 0.5
    assert controls.choose(1.0, {"a": 1, "b": 0.1, "c": 0.1}).decoders == {"a": 1.0, "b": 0.25, "c": 0.25}


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    with pytest.raises(RequestError) as caught:
        GRID.choose(0.1)
    assert caught.value.status == 422
    assert caught.value.json()["problems"] == [
        {"field": "budget", "value": 0.1, "allowed": "a share of the full cost from 0.25 to 1"}
    ]
    with pytest.raises(RequestError) as caught:
        GRID.choose(1.0, {"c": 1, "a": -1})
    assert [problem.field for problem in caught.value.problems] == ["importance.c", "importance.a"]


def write(folder: Path, **changes: object) -> Path:
    (folder / "small.onnx").write_bytes(b"x")
    item = {"encoder": 0.5, "decoders": {"a": 1.0}, "flops": 2.0, "file": "small.onnx"} | changes
    (folder / "controls.json").write_text(json.dumps({"configurations": [item]}))
    return folder / "controls.json"


def test_reading_the_file(tmp_path: Path) -> None:
    assert find_controls(tmp_path / "model.onnx") is None
    write(tmp_path)
    controls = find_controls(tmp_path / "model.onnx")
    assert controls is not None
    assert controls.configurations[0].file == (tmp_path / "small.onnx").resolve()
    assert controls.share(controls.configurations[0]) == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "../small.onnx"}, "which is not in"),
        ({"file": "none.onnx"}, "which is not in"),
        ({"flops": 0}, "flops must be above 0"),
        ({"encoder": 1.5}, "widths must be above 0"),
        ({"decoders": {}}, "widths must be above 0"),
        ({"decoders": [1]}, "is damaged"),
        ({"flops": None}, "is damaged"),
        ({"flops": 10**400}, "is damaged"),
        ({"file": "a" * 300}, "which is not in"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(FileFormatError, match=message):
        Controls.read(path)
    path.write_text("{}")
    with pytest.raises(FileFormatError, match="is damaged"):
        Controls.read(path)
    with pytest.raises(FileFormatError, match="no configurations"):
        Controls([])
    two = [Configuration(1.0, {"a": 1.0}, 1.0, path), Configuration(1.0, {"b": 1.0}, 1.0, path)]
    with pytest.raises(FileFormatError, match="must name the decoders"):
        Controls(two)
