"""Progress of calls from Python: where it is shown, and how little it writes."""

from __future__ import annotations

import io
import sys
import types
from typing import Any

import pytest

import graftwork as gw
from graftwork.core.errors import ConfigError
from graftwork.workflows.runs import script_progress
from graftwork.workflows.runs.display import LiveDisplay, QuietDisplay
from graftwork.workflows.runs.script_progress import NotebookDisplay, SparseDisplay, in_notebook, listening, script_display

PHASE = {"event": "phase", "phase": "rung 1", "jobs": 3, "plans": ["a", "b"]}
START = {"event": "job-start", "job": "j", "phase": "rung 1", "plan": "a<b>", "seed": 0, "task": None, "until": 10}
STEP = {"event": "progress", "job": "j", "step": 4}
DONE = {"event": "job-end", "job": "j", "status": "ok", "steps": 10, "seconds": 1.0}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Block:
    """What a notebook shows below a cell."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, text: str) -> None:
        self.shown.append(text)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Block:
    """A kernel with a frontend, without IPython."""
    block = Block()
    shell = types.SimpleNamespace(kernel=object())
    module: Any = types.ModuleType("IPython")
    module.get_ipython = lambda: shell
    display: Any = types.ModuleType("IPython.display")
    display.HTML = str

    def show(text: str, display_id: bool) -> Block:
        assert display_id
        block.update(text)
        return block

    display.display = show
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return block


def test_where_progress_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert type(script_display("auto")) is QuietDisplay, "nobody watches a log"
    assert type(script_display(True)) is SparseDisplay
    assert type(script_display(False)) is QuietDisplay
    monkeypatch.setattr("sys.stderr", Terminal())
    assert type(script_display("auto")) is LiveDisplay
    assert type(script_display(False)) is QuietDisplay
    monkeypatch.setattr("sys.stderr", None)
    assert type(script_display(True)) is QuietDisplay, "a program without a console"


def test_a_terminal_of_ipython_is_no_notebook(notebook: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_notebook()
    assert type(script_display("auto")) is NotebookDisplay
    assert type(script_display(False)) is QuietDisplay
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: types.SimpleNamespace())
    assert not in_notebook()


@pytest.mark.parametrize("wrong", ["yes", None, 1, 2.0])
def test_other_words_are_refused_before_anything_is_written(wrong: Any, tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="True, False or 'auto'"):
        gw.fit("emoji", out=tmp_path / "run", progress=wrong)
    with pytest.raises(ConfigError, match="True, False or 'auto'"):
        gw.compare("emoji", out=tmp_path / "run", progress=wrong)
    assert not (tmp_path / "run").exists()


def test_lines_stay_few() -> None:
    stream = io.StringIO()
    notes = [f"column {index} is empty" for index in range(400)]
    suite = {"event": "suite", "name": "s", "modality": "table", "rows": 9, "splits": {"train": 9}, "tasks": [], "notes": notes}
    with SparseDisplay(stream) as display:
        for event in (suite, PHASE, *[START, STEP, DONE] * 500):
            display.handle(event)
        display.handle({**DONE, "status": "diverged", "message": "NaN"})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 22
    assert "... and 382 more lines" in lines[19]
    assert lines[20:] == ["rung 1: 2 plans race: a, b", "  j: diverged: NaN"]


def test_a_long_training_says_now_and_then_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(script_progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    display = SparseDisplay(stream, every=30.0)
    display.handle(PHASE)
    for _ in range(100):
        now[0] += 1.0
        display.handle(STEP)
    lines = stream.getvalue().splitlines()[1:]
    assert len(lines) == 3
    assert all(line.startswith("rung 1 · 0 of 3 jobs") for line in lines)


def test_a_notebook_shows_one_block_of_escaped_text(notebook: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(script_progress.time, "monotonic", lambda: now[0])
    with script_display("auto") as display:
        for index in range(300):
            now[0] += 0.1
            display.handle([PHASE, START, STEP][min(index, 2)])
    assert 25 <= len(notebook.shown) <= 35, "once a second"
    assert "a&lt;b&gt;: rung 1, seed 0, step 4 of 10" in notebook.shown[-2]
    assert notebook.shown[-1] == "<pre>rung 1: 2 plans race: a, b</pre>", "in the end the lines of what happened stay"
    with pytest.raises(RuntimeError), script_display("auto"):
        raise RuntimeError
    assert "stopped" in notebook.shown[-1]


def test_a_live_table_of_the_caller_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = pytest.importorskip("rich.errors")

    def refuse(self: Any, refresh: bool = False) -> None:
        raise errors.LiveError("Only one live display may be active at once")

    monkeypatch.setattr("rich.live.Live.start", refuse)
    stream = Terminal()
    with LiveDisplay(stream) as display:
        display.handle(PHASE)
    assert "rung 1: 2 plans race" in stream.getvalue()


def test_the_callers_listener_gets_every_event_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, seen = io.StringIO(), []
    monkeypatch.setattr("sys.stderr", stream)
    with listening(True, seen.append) as listener:
        listener(PHASE)
        listener(STEP)
    assert seen == [PHASE, STEP]
    assert "rung 1" in stream.getvalue()
