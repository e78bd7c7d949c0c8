"""The words of verdicts: what the inequalities of a claim come to, the same rule for every system. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

__all__ = ["EVIDENCE_FORMAT", "EXPLANATION", "STATES", "VERDICT_WORDS", "State", "VerdictWord", "verdict_word"]

EVIDENCE_FORMAT = "graftwork-evidence-2"
"""Format of evidence files that were judged by the rule below."""

State = Literal["shown", "refuted", "open"]
"""What the measurements say about one inequality."""
STATES: tuple[str, ...] = get_args(State)

VerdictWord = Literal["holds", "partly", "mixed", "open", "contradicted"]
"""What the primary inequalities of a claim come to."""
VERDICT_WORDS: tuple[str, ...] = get_args(VerdictWord)

EXPLANATION = (
    "A claim is a list of inequalities between a system and its baselines; each is shown (the interval of the difference lies on "
    "the claimed side), refuted (the interval excludes what is claimed) or open (the seeds do not decide it, or the setting could "
    "not have shown it).",
    "A system holds if all its primary inequalities are shown, partly if some are and none is refuted, mixed if some are shown "
    "and some refuted, contradicted if some are refuted and none is shown, and open if none is decided.",
    "Planned systems have a card but no code, systems with no evidence have no full run yet, and stale means that the code or the "
    "claim changed since the run, or that it was judged by earlier rules.",
)
"""All words of the catalogue in three sentences."""


def verdict_word(states: Sequence[State]) -> VerdictWord:
    """Return what the primary inequalities of a claim come to, given what each of them is.

    Args:
        states: One a primary inequality; a claim has at least one.

    Raises:
        ValueError: If there are none, or a word is no state.

    Example:
        >>> verdict_word(["shown", "open"]), verdict_word(["shown", "refuted", "open"]), verdict_word(["refuted", "open"])
        ('partly', 'mixed', 'contradicted')
    """
    unknown = sorted(set(states) - set(STATES))
    if unknown or not states:
        raise ValueError(f"A claim has at least one primary inequality, each {', '.join(STATES)}; got {list(states)}.")
    if all(state == "shown" for state in states):
        return "holds"
    if "refuted" in states:
        return "mixed" if "shown" in states else "contradicted"
    return "partly" if "shown" in states else "open"
