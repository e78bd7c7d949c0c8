"""Settings from signatures: names, types, texts of the command line, and errors that name what is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from graftwork.core.errors import ConfigError
from graftwork.core.settings import build_from_settings, settings_of


class Reader:
    def __init__(self, path: str) -> None:
        self.path = str(path)


class Plain:
    def __init__(
        self,
        *,
        rate: float,
        count: int = 3,
        is_fast: bool = False,
        rule: Literal["mean", "median"] = "mean",
        title: str = "x",
        weights: Sequence[float] | None = None,
        pair: tuple[int, float] = (1, 0.5),
        names: list[str] | None = None,
        table: Mapping[str, float] | None = None,
        place: Path | None = None,
        readers: Sequence[Reader] = (),
        anything: Any = None,
        mixed: int | str = 0,
        **others: object,
    ) -> None:
        self.values = {key: value for key, value in locals().items() if key not in ("self", "others")}


@dataclass(frozen=True, kw_only=True)
class Record:
    density: float = 0.2
    rule: Literal["a", "b"] = "a"


class WithRecord:
    def __init__(self, config: Record | None = None, *, extra: int = 0) -> None:
        self.config, self.extra = config, extra


class Twice:
    def __init__(self, config: Record | None = None, density: float = 1.0) -> None: ...


def built(**values: object) -> dict[str, Any]:
    return build_from_settings(Plain, {"rate": 0.5, **values}).values


def from_text(**values: str) -> dict[str, Any]:
    return build_from_settings(Plain, {"rate": "0.5", **values}, from_text=True, converters={Reader: Reader}).values


def test_keywords_are_settings_in_their_order() -> None:
    found = settings_of(Plain)
    assert list(found)[:3] == ["rate", "count", "is_fast"]
    assert "others" not in found
    assert (found["rate"].is_required, found["count"].is_required, found["count"].default) == (True, False, 3)
    assert found["rule"].values == "one of mean, median"
    assert found["weights"].values == "a list of which each is a finite number or none"


def test_fields_of_a_record_are_settings_of_the_class() -> None:
    assert list(settings_of(WithRecord)) == ["density", "rule", "extra"]
    made = build_from_settings(WithRecord, {"density": 1, "extra": 2})
    assert (made.config, made.extra) == (Record(density=1.0), 2)
    assert build_from_settings(WithRecord, {}).config is None
    with pytest.raises(ConfigError, match="two settings called 'density'"):
        settings_of(Twice)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("rate", 1, 1.0),
        ("weights", [1, 2.5], (1.0, 2.5)),
        ("weights", None, None),
        ("pair", [2, 3], (2, 3.0)),
        ("names", ("a",), ["a"]),
        ("table", {"a": 1}, {"a": 1.0}),
        ("place", "x/y", Path("x/y")),
        ("anything", {"x": [1]}, {"x": [1]}),
        ("mixed", "word", "word"),
    ],
)
def test_values_are_converted(key: str, value: object, expected: object) -> None:
    assert built(**{key: value})[key] == expected
    assert type(built(**{key: value})[key]) is type(expected)


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("rate", "2", 2.0),
        ("rate", "1e-3", 1e-3),
        ("count", "7", 7),
        ("is_fast", "true", True),
        ("is_fast", "False", False),
        ("rule", "median", "median"),
        ("title", "12", "12"),
        ("title", "true", "true"),
        ("weights", "1,0.5", (1.0, 0.5)),
        ("weights", "[1, 0.5]", (1.0, 0.5)),
        ("weights", "3", (3.0,)),
        ("weights", "none", None),
        ("pair", "2,3", (2, 3.0)),
        ("names", "a,b", ["a", "b"]),
        ("table", '{"a": 1}', {"a": 1.0}),
        ("place", "12", Path("12")),
        ("mixed", "word", "word"),
    ],
)
def test_texts_are_read_as_the_annotation_says(key: str, text: str, expected: object) -> None:
    assert from_text(**{key: text})[key] == expected


def test_paths_become_what_a_converter_makes_of_them() -> None:
    readers = from_text(readers="a.x, b.x")["readers"]
    assert [type(reader) for reader in readers] == [Reader, Reader]
    assert [reader.path for reader in readers] == ["a.x", "b.x"]
    with pytest.raises(ConfigError, match="readers must be a list of which each is an object of Reader; got 'a.x'"):
        built(readers="a.x")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("rate", "fast", "a finite number; got 'fast'"),
        ("rate", True, "a finite number; got True"),
        ("rate", float("nan"), "a finite number; got nan"),
        ("rate", None, "a finite number; got None"),
        ("count", 1.5, "an integer; got 1.5"),
        ("count", True, "an integer; got True"),
        ("is_fast", 1, "true or false; got 1"),
        ("rule", "mode", "one of mean, median; got 'mode'"),
        ("title", 3, "a text; got 3"),
        ("weights", [1, "x"], "a list of which each is a finite number or none"),
        ("weights", 3, "a list of which each is a finite number or none; got 3"),
        ("pair", [1], "a list"),
        ("table", [1], "an object"),
        ("readers", [3], "a list of which each is an object of Reader"),
    ],
)
def test_wrong_values_say_what_is_allowed(key: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key} must be .*{words}"):
        built(**{key: value})


def test_all_problems_are_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        build_from_settings(Plain, {"cuont": 3, "rule": "mode", "what": 1}, name="plain")
    assert len(caught.value.problems) == 4
    assert "unknown setting 'cuont'. Did you mean 'count'? Settings of plain: rate, count" in str(caught.value)
    assert "rate must be given: a finite number" in str(caught.value)


@pytest.mark.parametrize("from_text", [False, True])
def test_an_integer_beyond_all_floats_is_a_wrong_value(from_text: bool) -> None:
    digits = "1" + "0" * 400
    with pytest.raises(ConfigError, match="rate must be a finite number; got"):
        build_from_settings(Plain, {"rate": digits if from_text else int(digits)}, from_text=from_text)
