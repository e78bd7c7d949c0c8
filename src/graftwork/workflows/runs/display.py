"""What the command line shows while a run trains: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Any, Self

from graftwork.core.plain_text import PlainTerminal
from graftwork.workflows.runs.progress import Progress

__all__ = ["LiveDisplay", "PlainDisplay", "QuietDisplay", "make_display", "terminal_width"]


def terminal_width() -> int:
    """Return the width of the terminal in characters, at most 120."""
    return min(120, shutil.get_terminal_size((100, 24)).columns)


class QuietDisplay:
    """Shows nothing."""

    def handle(self, event: Mapping[str, Any]) -> None:
        """Take an event of the run."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


class PlainDisplay(QuietDisplay):
    """One line for each thing that matters: for logs and pipes."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.progress = Progress()
        self._is_closed = False

    def handle(self, event: Mapping[str, Any]) -> None:
        """Print the lines of an event."""
        for line in self.progress.handle(event):
            self.write(line)

    def write(self, text: str) -> None:
        """Print a text; nothing more once the stream is closed (``| head``, a terminal that is gone): the run goes on."""
        if self._is_closed:
            return
        try:
            print(text, file=self.stream, flush=True)
        except (OSError, ValueError):
            self._is_closed = True


class LiveDisplay(PlainDisplay):
    """A table that is redrawn, with the plain lines of what is finished above it."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(stream)
        from rich.console import Console
        from rich.live import Live

        self._is_live = False
        # Its codes go to the terminal itself; the texts are plain already.
        self._console = Console(file=stream.stream if isinstance(stream, PlainTerminal) else stream)
        # Transient: the table goes when the run ends, the lines above it stay.
        self._live = Live(console=self._console, refresh_per_second=4, transient=True, get_renderable=self._render)
        self._drawn = 0.0

    def __enter__(self) -> Self:
        from rich.errors import LiveError

        # A caller may draw a live table of its own, and there can be only one: then there are lines alone.
        with contextlib.suppress(LiveError):
            self._live.__enter__()
            self._is_live = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._is_live:
            with contextlib.suppress(OSError):  # the terminal is gone
                self._live.__exit__(kind, error, trace)

    def handle(self, event: Mapping[str, Any]) -> None:
        """Take an event and redraw."""
        if self._is_closed:
            return
        try:
            self._show(event)
        except OSError:  # the terminal is gone; the run goes on
            self._is_closed = True

    def _show(self, event: Mapping[str, Any]) -> None:
        routine = event["event"] == "job-end" and event["status"] == "ok"
        for line in self.progress.handle(event):
            if not routine:  # the table shows what runs and what is done
                self._console.print(line, highlight=False, markup=False)
        # Progress comes several times a second from every worker; drawing each time would cost the trainings time.
        if self._is_live and time.monotonic() - self._drawn > 0.2:
            self._drawn = time.monotonic()
            self._live.refresh()

    def _render(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        progress = self.progress
        parts: list[Any] = [Text(progress.headline(), style="bold")]
        if progress.running:
            table = Table(box=None, pad_edge=False, header_style="dim")
            for heading in ("running", "", "step", ""):
                table.add_column(heading)
            for name, detail, step, until in progress.running_rows():
                table.add_row(name, detail, f"{step} / {until}" if until else "", _bar(step, until))
            parts.append(table)
        if progress.scores:
            table = Table(box=None, pad_edge=False, header_style="dim")
            table.add_column("plan")
            table.add_column("change against separate models", justify="right")
            table.add_column("state")
            for name, score, state in progress.ranking():
                style = "dim" if state.startswith("left") else "green" if state == "leads" else ""
                table.add_row(name, score, state, style=style)
            parts.append(table)
        return Group(*parts)


def _bar(step: int, until: int, width: int = 24) -> str:
    filled = round(width * min(1.0, step / until)) if until else 0
    return "━" * filled + "╌" * (width - filled) if until else ""


def make_display(*, quiet: bool = False, to_stderr: bool = False) -> QuietDisplay:
    """Return the display that fits where the output goes."""
    if quiet:
        return QuietDisplay()
    stream = sys.stderr if to_stderr else sys.stdout
    if not stream.isatty():
        return PlainDisplay(stream)
    try:
        return LiveDisplay(stream)
    except ImportError:
        return PlainDisplay(stream)
