from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from graftwork.math.widths import narrowing_widths

LEVELS = (0.25, 0.5, 0.75, 1.0)


def test_the_way_down_by_hand() -> None:
    found = list(narrowing_widths(dict.fromkeys("abc", (0.5, 0.75, 1.0)), {"a": 4.0, "b": 3.0, "c": 1.0}))
    assert [tuple(widths.values()) for widths in found] == [
        (1.0, 0.75, 0.5),
        (1.0, 0.5, 0.5),
        (0.75, 0.5, 0.5),
        (0.5, 0.5, 0.5),
    ]


def test_equals_shrink_together() -> None:
    found = list(narrowing_widths(dict.fromkeys("ab", LEVELS), {"a": 1.0, "b": 1.0}))
    assert [tuple(widths.values()) for widths in found] == [(level, level) for level in reversed(LEVELS)]


def test_weight_zero_starts_at_the_narrowest() -> None:
    assert next(narrowing_widths(dict.fromkeys("ab", LEVELS), {"a": 0.0, "b": 5.0})) == {"a": 0.25, "b": 1.0}


weights = st.lists(st.floats(0.0, 10.0), min_size=1, max_size=4).filter(lambda values: max(values) > 0)


@given(weights)
def test_more_weight_never_means_narrower_and_the_end_is_the_narrowest(values: list[float]) -> None:
    names = {f"t{index}": value for index, value in enumerate(values)}
    found = list(narrowing_widths(dict.fromkeys(names, LEVELS), names))
    assert set(found[-1].values()) == {0.25}
    assert max(found[0].values()) == 1.0
    for before, after in itertools.pairwise(found):
        assert all(after[name] <= before[name] for name in names)
        assert after != before
    for widths in found:
        assert all(widths[a] >= widths[b] for a in names for b in names if names[a] > names[b])


@given(weights, st.integers(0, 3), st.floats(0.0, 10.0))
def test_raising_one_weight_never_narrows_its_first_width(values: list[float], place: int, more: float) -> None:
    names = {f"t{index}": value for index, value in enumerate(values)}
    chosen = f"t{place % len(values)}"
    before = next(narrowing_widths(dict.fromkeys(names, LEVELS), names))
    after = next(narrowing_widths(dict.fromkeys(names, LEVELS), {**names, chosen: names[chosen] + more}))
    assert after[chosen] >= before[chosen]
