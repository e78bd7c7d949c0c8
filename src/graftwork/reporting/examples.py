"""Sample predictions as the report shows them, with pictures that are safe to embed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from graftwork.reporting.result_view import ResultView

__all__ = ["Example", "Guess", "sample_examples"]

_SAFE_PICTURE = re.compile(r"data:image/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True, slots=True)
class Guess:
    """Prediction and truth of one task on one row."""

    task: str
    truth: str
    prediction: str
    correct: bool | None
    """None where right and wrong do not apply (numbers), or the truth is missing."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of the test data."""

    label: str
    picture: str
    """A ``data:`` URI of a raster picture; empty without one."""
    text: str
    guesses: tuple[Guess, ...]

    @property
    def has_mistake(self) -> bool:
        """Whether any task is wrong on this row."""
        return any(guess.correct is False for guess in self.guesses)


def _joined(value: object) -> str:
    """Keep a number on one line with its percent sign."""
    return str(value).replace(" %", "\u00a0%")


def sample_examples(view: ResultView) -> list[Example]:
    """Return the run's sample predictions; a picture that is no embedded raster image is left out."""
    examples = []
    for row in view.rows("examples"):
        truth, prediction, correct = row.get("truth") or {}, row.get("prediction") or {}, row.get("correct") or {}
        picture = str(row.get("picture") or "")
        guesses = tuple(
            Guess(str(task), _joined(truth.get(task, "")), _joined(value), correct.get(task))
            for task, value in prediction.items()
        )
        # Results may come from elsewhere, and SVG can hold scripts.
        safe = picture if _SAFE_PICTURE.fullmatch(picture) else ""
        examples.append(Example(str(row.get("label") or f"row {row.get('row')}"), safe, str(row.get("text") or ""), guesses))
    return examples
