"""Many findings of one kind as one line."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["fold", "fold_by_example"]

_MOST = 3


def fold(notes: Sequence[str], head: str) -> list[str]:
    """Return up to three notes as they are; of more, one line with how many there are and the first three.

    Args:
        notes: Sentences of one kind.
        head: What they have in common, the beginning of a sentence.

    Example:
        >>> fold(["A.", "B.", "C.", "D."], "Remarks on columns")
        ['Remarks on columns, 4 in all, the first 3: A. B. C.']
    """
    if len(notes) <= _MOST:
        return list(notes)
    return [f"{head}, {len(notes)} in all, the first {_MOST}: {' '.join(notes[:_MOST])}"]


def fold_by_example(found: Sequence[tuple[str, str]], many: str) -> list[str]:
    """Return the sentences of up to three findings; of more, one line with up to three examples.

    Args:
        found: ``(example, sentence)`` of each finding.
        many: The line, with ``{count}`` and ``{examples}``.

    Example:
        >>> fold_by_example([("a", "A.")] * 5, "{count} columns: {examples}.")
        ['5 columns: a, a, a and 2 more.']
    """
    if len(found) <= _MOST:
        return [sentence for _, sentence in found]
    examples = ", ".join(example for example, _ in found[:_MOST])
    return [many.format(count=len(found), examples=f"{examples} and {len(found) - _MOST} more")]
