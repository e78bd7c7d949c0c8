"""What scripts and notebooks see while a run trains: the live table on a terminal, one block that changes in a notebook, and
elsewhere, if asked for, few lines."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Any, Literal

from graftwork.core.errors import ConfigError
from graftwork.workflows.runs.display import LiveDisplay, PlainDisplay, QuietDisplay
from graftwork.workflows.runs.progress import Progress

__all__ = ["NotebookDisplay", "ProgressChoice", "SparseDisplay", "check_progress", "in_notebook", "listening", "script_display"]

ProgressChoice = bool | Literal["auto"]
Listener = Callable[[dict[str, Any]], None]

_MOST_LINES = 20
"""Lines that one event may print: wide tables have hundreds of notes."""
_KEPT_LINES = 12
"""Lines of the past that a notebook shows."""


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, without importing IPython."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None and hasattr(module, "get_ipython") else None
    return getattr(shell, "kernel", None) is not None


def check_progress(progress: Any) -> None:
    """Check a caller's choice.

    Raises:
        ConfigError: If it is none of True, False and ``"auto"``.
    """
    if not (isinstance(progress, bool) or progress == "auto"):
        raise ConfigError(f"`progress` is True, False or 'auto'; got {progress!r}.")


def _folded(lines: list[str]) -> list[str]:
    if len(lines) <= _MOST_LINES:
        return lines
    return [*lines[: _MOST_LINES - 1], f"  ... and {len(lines) - _MOST_LINES + 1} more lines, see log.jsonl in the run folder"]


def _is_routine(event: Mapping[str, Any]) -> bool:
    return event["event"] == "job-end" and event["status"] == "ok"


class SparseDisplay(PlainDisplay):
    """The lines of what matters, and in between one on how far the run is.

    Args:
        stream: Where to write.
        every: Least seconds between lines on how far it is.
    """

    def __init__(self, stream: IO[str], every: float = 30.0) -> None:
        super().__init__(stream)
        self._every, self._last = every, time.monotonic()

    def handle(self, event: Mapping[str, Any]) -> None:
        """Take an event of the run."""
        lines = _folded(self.progress.handle(event))
        # Trainings end several times a second in small runs: how many did is in the line on how far it is.
        if _is_routine(event):
            lines = []
        if not lines and time.monotonic() - self._last >= self._every:
            lines = [self.progress.headline()]
        if lines:
            self._last = time.monotonic()
            self.write("\n".join(lines))


class NotebookDisplay(QuietDisplay):
    """One block of text below the cell that is replaced, at most once a second.

    Raises:
        ImportError: If IPython is not installed.
    """

    def __init__(self, every: float = 1.0) -> None:
        from IPython.display import HTML, display

        self.progress = Progress()
        self._html, self._lines, self._every, self._drawn = HTML, list[str](), every, time.monotonic()
        self._block = display(HTML("<pre>reading data</pre>"), display_id=True)

    def handle(self, event: Mapping[str, Any]) -> None:
        """Take an event of the run."""
        lines = _folded(self.progress.handle(event))
        self._lines += [] if _is_routine(event) else lines
        if time.monotonic() - self._drawn >= self._every:
            self._draw(progress_text(self.progress, self._lines))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._draw("\n".join([*self._lines[-_KEPT_LINES:], *(["stopped"] if kind is not None else [])]))

    def _draw(self, text: str) -> None:
        self._drawn = time.monotonic()
        # display() returns None where no frontend listens.
        if self._block is not None:
            self._block.update(self._html(f"<pre>{html.escape(text)}</pre>"))


def progress_text(progress: Progress, lines: list[str]) -> str:
    """Return the last lines and the present state as plain text."""
    rows = [*lines[-_KEPT_LINES:], "", progress.headline()]
    for name, detail, step, until in progress.running_rows():
        rows.append(f"  {name}: {detail}" + (f", step {step} of {until}" if until else ""))
    rows += [f"  {name}  {score}  {state}".rstrip() for name, score, state in progress.ranking()[:_KEPT_LINES]]
    return "\n".join(rows)


def script_display(progress: ProgressChoice) -> QuietDisplay:
    """Return the display for a call from Python.

    Args:
        progress: False shows nothing; ``"auto"`` shows where somebody watches, in a notebook or on a terminal (stderr); True
            shows in any case.

    Raises:
        ConfigError: If it is something else.
    """
    check_progress(progress)
    if progress is False:
        return QuietDisplay()
    if in_notebook():
        return NotebookDisplay()
    stream = sys.stderr
    if stream is not None and stream.isatty():
        try:
            return LiveDisplay(stream)
        except ImportError:
            return SparseDisplay(stream)
    return QuietDisplay() if progress == "auto" or stream is None else SparseDisplay(stream)


@contextmanager
def listening(progress: ProgressChoice, listener: Listener | None) -> Iterator[Listener]:
    """Show progress inside a ``with`` block; yields the listener for the run.

    Args:
        progress: As :func:`script_display` takes it.
        listener: The caller's own listener, which gets every event after it is shown.

    Raises:
        ConfigError: If ``progress`` cannot be used.
    """
    with script_display(progress) as display:

        def both(event: dict[str, Any]) -> None:
            display.handle(event)
            if listener is not None:
                listener(event)

        yield both
