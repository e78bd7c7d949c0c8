"""Ctrl-C: the first one stops softly and keeps everything, the second one at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from graftwork.workflows.runs.pool import StopRequest

__all__ = ["RunStopped", "StopSwitch"]


class RunStopped(KeyboardInterrupt):
    """The user stopped the run; everything finished is in its folder, ``resume=True`` goes on.

    Args:
        folder: The run folder.
        verb: Verb that goes on with it.
    """

    def __init__(self, folder: str, verb: str = "fit") -> None:
        self.folder = folder
        super().__init__(
            f"The run in {folder} was stopped; everything finished is kept. Go on with: graftwork {verb} --resume {folder}"
        )


class StopSwitch:
    """Counts Ctrl-C and watches the clock.

    Args:
        is_late: Whether the time is up, so that running jobs have to come to an end.
        is_over: Whether they were given the time to do so.
    """

    def __init__(self, is_late: Callable[[], bool] = lambda: False, is_over: Callable[[], bool] = lambda: False) -> None:
        self.presses = 0
        self.is_late, self.is_over = is_late, is_over
        self.on_press: Callable[[int], None] = lambda presses: None

    def __call__(self) -> StopRequest | None:
        """Return what running jobs have to do: ``kill``, ``keep``, ``finish``, or None to go on."""
        if self.presses > 1:
            return "kill"
        if self.presses:
            # The user outranks the clock: Ctrl-C after the deadline still means to keep.
            return "keep"
        if not self.is_late():
            return None
        return "kill" if self.is_over() else "finish"

    def by_user(self) -> StopRequest | None:
        """Return what running jobs have to do, the clock aside: ``kill`` or ``keep`` after Ctrl-C, else None."""
        return ("kill" if self.presses > 1 else "keep") if self.presses else None

    def press(self) -> None:
        """Ask for a stop, as Ctrl-C does."""
        self.presses += 1
        self.on_press(self.presses)

    def raise_if_pressed(self, folder: str, verb: str = "fit") -> None:
        """Raise :class:`RunStopped` after Ctrl-C."""
        if self.presses:
            raise RunStopped(folder, verb)

    @contextlib.contextmanager
    def listen(self) -> Iterator[None]:
        """Take Ctrl-C and the polite kill (SIGTERM) over; only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: FrameType | None) -> None:
            self.press()

        before: dict[int, Any] = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                # None stands for a handler that was not installed from Python and cannot be given back.
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
