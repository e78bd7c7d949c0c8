"""Which source to take, in sentences that follow from standings, costs and a control that learned nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graftwork.evaluation.score_stability import Standing

__all__ = ["RankedSource", "SourceChoice", "choose_source"]

SURE, LIKELY, POSSIBLE = 0.95, 0.8, 0.1
"""Shares of draws in which a source must be first to be called best, probably best, and not ruled out."""
_CHEAPER = 0.5
"""A source that is not ruled out is named as the cheaper one if a row takes at most this share of the best one's time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedSource:
    """What the choice depends on."""

    name: str
    standing: Standing
    milliseconds: float
    """Time of the features of one row."""
    is_control: bool = False
    """Whether it is an untrained trunk, which is never recommended."""


@dataclass(frozen=True, slots=True)
class SourceChoice:
    """The choice, and why."""

    name: str
    strength: str
    """``"sure"``, ``"probable"``, ``"open"`` or ``"control"``: no source does better than an untrained trunk."""
    cheaper: str
    """A source that is not ruled out and costs at most half; empty if there is none."""
    sentences: tuple[str, ...]


def choose_source(
    sources: Sequence[RankedSource],
    *,
    num_tasks: int,
    num_scores: int,
    draws: int,
    by_task: Mapping[str, Sequence[Standing]] | None = None,
) -> SourceChoice:
    """Return the source to take.

    Args:
        sources: At least one that is no control.
        num_tasks: Tasks whose scores the standings hold.
        num_scores: Different scores.
        draws: Half-samples.
        by_task: Standings of the sources for each task alone, in the same order.
    """
    # At equal ranks the quicker source.
    order = sorted(sources, key=lambda source: (source.standing.mean_rank, source.milliseconds))
    trained = [source for source in order if not source.is_control]
    best, first = trained[0], order[0]
    basis = f"over {_count(num_tasks, 'task')} and {_count(num_scores, 'score')}"
    if len(sources) == 1:
        return SourceChoice(best.name, "open", "", (f"`{best.name}` is the only source: there is nothing to compare it with.",))
    share = best.standing.first_share
    figures = (
        f"mean rank {best.standing.mean_rank:.2f} of {len(sources)} {basis}, first in {_percent(share)} of {draws} half-samples"
    )
    others = [source for source in trained[1:] if source.standing.first_share >= POSSIBLE]
    if first.is_control:
        strength = "control"
        sentences = [
            f"No source does better than the untrained trunk `{first.name}` (mean rank {first.standing.mean_rank:.2f} {basis}); the best "
            f"of them is `{best.name}` ({figures}). Consider training from scratch, or other sources."
        ]
    elif share >= SURE:
        strength, sentences = "sure", [f"Take `{best.name}`: {figures}."]
    elif share >= LIKELY:
        strength, sentences = "probable", [f"`{best.name}` is probably the best source: {figures}."]
    else:
        strength = "open"
        sentences = [f"No source is clearly the best. `{best.name}` stands first: {figures}."]
    if others and strength != "control":
        named = ", ".join(f"`{source.name}` ({_percent(source.standing.first_share)})" for source in others)
        sentences.append(f"Not ruled out: {named}. More rows (--rows) narrow this, or fine-tune these and compare.")
    if num_tasks > 1:
        sentences += _exceptions(sources, best.name, by_task or {})
    cheap = [source for source in others if source.milliseconds <= _CHEAPER * best.milliseconds]
    cheaper = min(cheap, key=lambda source: source.standing.mean_rank) if cheap else None
    if cheaper is not None:
        sentences.append(
            f"`{cheaper.name}` costs {cheaper.milliseconds:.3g} ms a row, `{best.name}` {best.milliseconds:.3g} ms: consider it where "
            "time matters."
        )
    return SourceChoice(best.name, strength, cheaper.name if cheaper else "", tuple(sentences))


def _exceptions(sources: Sequence[RankedSource], best: str, by_task: Mapping[str, Sequence[Standing]]) -> list[str]:
    """Return a sentence for each source that stands first for some tasks, though another one is recommended."""
    found: dict[str, list[str]] = {}
    for task, standings in by_task.items():
        first = max(range(len(sources)), key=lambda index: standings[index].first_share)
        if sources[first].name != best and standings[first].first_share >= LIKELY:
            found.setdefault(sources[first].name, []).append(f"`{task}`")
    return [
        f"Not for every task: `{name}` is first for {', '.join(tasks)} in at least {_percent(LIKELY)} of the half-samples."
        for name, tasks in found.items()
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
