"""What `graftwork predict` makes of its options before anything is computed."""

from __future__ import annotations

import pytest

from graftwork.cli.predict import _share
from graftwork.core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "share"), [("90", 0.9), (" 90% ", 0.9), ("0.9", 0.9), ("1%", 0.01), ("99.5", 0.995), ("0.5%", 0.005)]
)
def test_the_share_of_an_interval_is_percent_or_a_share(text: str, share: float) -> None:
    assert _share(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1", "may mean 1 % of the rows or all"),
        ("100", "between 0 and 1"),
        ("0", "between 0 and 1"),
        ("nan", "between"),
        ("many", "percent"),
    ],
)
def test_what_may_mean_two_things_or_nothing_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        _share(text)


def test_without_an_interval_there_is_none() -> None:
    assert _share(None) is None
