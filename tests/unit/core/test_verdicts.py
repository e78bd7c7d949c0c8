from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.cards import STATUSES
from graftwork.core.verdicts import EXPLANATION, STATES, VERDICT_WORDS, State, verdict_word


@pytest.mark.parametrize(
    ("states", "word"),
    [
        (["shown"], "holds"),
        (["shown", "shown"], "holds"),
        (["shown", "open"], "partly"),
        (["shown", "refuted"], "mixed"),
        (["shown", "refuted", "open"], "mixed"),
        (["refuted"], "contradicted"),
        (["refuted", "open"], "contradicted"),
        (["open"], "open"),
        (["open", "open"], "open"),
    ],
)
def test_every_word_has_its_inequalities(states: list[State], word: str) -> None:
    assert verdict_word(states) == word


@given(st.lists(st.sampled_from(get_args(State)), min_size=1))
def test_the_word_depends_on_which_states_there_are_alone(states: list[State]) -> None:
    mixed = states[::-1] + states
    assert verdict_word(mixed) == verdict_word(states)
    kinds = set(states)
    assert (verdict_word(states) == "holds") == (kinds == {"shown"})
    assert (verdict_word(states) == "open") == (kinds == {"open"})


@pytest.mark.parametrize("states", [[], ["holds"]])
def test_what_is_no_state_is_refused(states: list[State]) -> None:
    with pytest.raises(ValueError, match="each shown, refuted, open; got"):
        verdict_word(states)


def test_all_words_are_explained_and_listed() -> None:
    text = " ".join(EXPLANATION)
    assert all(word in text for word in (*STATES, *VERDICT_WORDS, "lanned", "no evidence", "stale"))
    assert set(VERDICT_WORDS) < set(STATUSES)
