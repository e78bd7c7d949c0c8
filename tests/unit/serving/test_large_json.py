"""Large JSON texts are read in pieces, with the values and the refusals of Python's own decoder."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from graftwork.serving import large_json
from graftwork.serving.large_json import parse_large

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=40
)


def refuse(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def outcome(read: Any, text: str) -> Any:
    """Return the value of a text, or that there is none."""
    try:
        return repr(read(text))
    except ValueError:
        return ValueError


def check_same(text: str, window: int) -> None:
    own = outcome(lambda given: parse_large(given, parse_constant=refuse, window=window), text)
    assert own == outcome(lambda given: json.loads(given, parse_constant=refuse), text), (text, window)


@settings(max_examples=150, deadline=None)
@given(value=VALUES, window=st.integers(4, 40), indent=st.sampled_from([None, 0, 3]), escaped=st.booleans())
def test_values_are_those_of_the_usual_decoder(value: Any, window: int, indent: int | None, escaped: bool) -> None:
    check_same(json.dumps(value, indent=indent, ensure_ascii=escaped), window)


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet='[]{}:,"\\ 01-+.eEnultrfasy\n', max_size=40), window=st.integers(4, 12))
@example(text="[1.5e+3,2]", window=4)
@example(text="[12345678, -1.25]", window=4)
@example(text="[,1]", window=4)
@example(text="[1,]", window=4)
@example(text='{"a":1,}', window=4)
@example(text='["a,b","c,d"', window=8)
@example(text="[NaN, 1, 2, 3]", window=6)
def test_whatever_is_no_json_is_refused_as_usual(text: str, window: int) -> None:
    check_same(text, window)


@settings(max_examples=150, deadline=None)
@given(value=VALUES, window=st.integers(4, 40), where=st.floats(0, 1), sign=st.sampled_from(list('[]{},:"\\0e. ')))
def test_a_damaged_text_is_read_as_usual(value: Any, window: int, where: float, sign: str) -> None:
    text = json.dumps(value)
    at = int(where * len(text))
    check_same(text[:at] + sign + text[at + 1 :], window)
    check_same(text[:at], window)


def test_numbers_of_thousands_of_digits_and_endless_nesting() -> None:
    check_same(f"[{'7' * 5_000}, 1]", 100)
    with pytest.raises(RecursionError):
        parse_large("[" * 200_000, parse_constant=refuse)
    # Each level is larger than a window, so none of them goes to the decoder as a whole.
    with pytest.raises(RecursionError):
        parse_large("[[1,2,3,4]," * 5_000, parse_constant=refuse, window=8)


@pytest.mark.parametrize(
    "value",
    [
        {"rows": [{"age": 1.5 * index, "city": 'Rome, "x"'} for index in range(3_000)]},
        {"rows": [{"series": list(range(40_000))}]},
        [[]] * 50_000,
        [",,"] * 50_000,
    ],
    ids=["rows", "one long row", "empty lists", "commas in texts"],
)
def test_the_decoder_never_gets_more_than_a_window(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    plain = json.JSONDecoder
    sizes: list[int] = []
    pauses: list[None] = []

    class Watched:
        def __init__(self, **options: Any) -> None:
            scan = plain(**options).scan_once

            def watched(text: str, at: int) -> Any:
                sizes.append(len(text) - at if text[at : at + 1] in "[{" else 0)
                return scan(text, at)

            self.scan_once = watched

    monkeypatch.setattr(large_json.json, "JSONDecoder", Watched)
    text = json.dumps(value)
    found = parse_large(text, parse_constant=refuse, pause=lambda: pauses.append(None))
    monkeypatch.undo()
    assert found == value
    assert max(sizes) <= large_json.WINDOW + 2
    assert len(pauses) >= len(text) // large_json.WINDOW
    # Pieces, not single values: a list of many short items costs little more than one call.
    assert len(sizes) < len(text) / 20
