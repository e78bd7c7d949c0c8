"""A terminal gets no control characters from data or files, and still the colours of the command line itself."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.cli import main as cli
from graftwork.cli.tables import colour
from graftwork.core.plain_text import PlainTerminal, own_code, plain_terminal, plain_text
from graftwork.workflows.runs.display import LiveDisplay
from graftwork.workflows.runs.progress import Progress

EVIL = "a\x1b]0;title\x07\x1b[2J\rb\x9b31m\x7f\u202ec"
CONTROLS = {chr(number) for number in [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminals(monkeypatch: pytest.MonkeyPatch) -> tuple[Terminal, Terminal]:
    """Let standard output and error be terminals; in the test itself, since pytest puts its own streams in place before."""
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return out, err


def check_plain(text: str) -> None:
    assert not (CONTROLS - {"\n", "\t"}) & set(text), ascii(text)


@given(st.text())
def test_texts_lose_their_controls_and_nothing_else(text: str) -> None:
    found = plain_text(text)
    check_plain(found)
    kept = CONTROLS - {"\n", "\t"}
    assert plain_text(found) == found
    if not kept & set(text):
        assert found == text


@given(st.lists(st.text() | st.just("\x02") | st.just("\x03")))
def test_only_own_codes_reach_a_terminal(parts: list[str]) -> None:
    target = Terminal()
    stream: Any = plain_terminal(target)
    assert isinstance(stream, PlainTerminal)
    assert plain_terminal(stream) is stream
    code = own_code("\x1b[31m", stream)
    stream.writelines([*parts, code])
    assert target.getvalue() == "".join(map(plain_text, parts)) + "\x1b[31m"
    assert own_code("\r", target) == "\r"


def test_files_and_pipes_get_what_there_is() -> None:
    pipe = io.StringIO()
    assert plain_terminal(pipe) is pipe


def test_errors_and_notes_of_verbs_are_plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out, err = terminals(monkeypatch)
    assert cli.main(["predict", str(tmp_path / EVIL), "x.csv"]) == 2
    assert r"\x1b[2J\x0db\x9b31m\x7f\u202ec" in err.getvalue()
    assert cli.main(["fit", f"--{EVIL}"]) == 2
    assert cli.main([EVIL]) == 2
    table = tmp_path / "t.csv"
    table.write_text(f'"{EVIL}",b\n1,2\n3,4\n')
    assert cli.main(["fit", str(table), "--targets", "c", "--quiet"]) == 2
    plan = tmp_path / "plan.yaml"
    plan.write_text('"a\\e[31m": 1\n')
    assert cli.main(["validate", str(plan)]) == 2
    check_plain(out.getvalue() + err.getvalue())
    assert (sys.stdout, sys.stderr) == (out, err), "the streams are as they were"


def test_own_colours_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = terminals(monkeypatch)
    assert colour("good", "green") == "\x1b[32mgood\x1b[0m"
    module: Any = types.ModuleType("verb")
    module.NAME, module.HELP, module.add_arguments = "test", "test", lambda parser: None
    module.run = lambda args: print(f"{colour('good', 'green')} {EVIL}")
    monkeypatch.setattr(cli, "_find", lambda word: module)
    assert cli.main(["test"]) == 0
    assert out.getvalue() == f"\x1b[32mgood\x1b[0m {plain_text(EVIL)}\n"


def test_lines_of_verbs_that_are_written_over_reach_a_terminal_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    from graftwork.cli.rank import _say

    _, err = terminals(monkeypatch)
    module: Any = types.ModuleType("verb")
    module.NAME, module.HELP, module.add_arguments = "test", "test", lambda parser: None
    events = (
        {"event": "features", "source": EVIL, "done": 1, "rows": 2, "seconds": 0.5},
        {"event": "source", "source": EVIL, "seconds": 1.0},
    )

    def run(args: Any) -> int:
        for event in events:
            _say(event)
        return 0

    module.run = run
    monkeypatch.setattr(cli, "_find", lambda word: module)
    assert cli.main(["test"]) == 0
    name = plain_text(EVIL)
    assert err.getvalue() == f"\r\x1b[K{name}: features of 1 of 2 rows\r\x1b[K{name}: judged in 1.0 s\n"


def test_progress_is_plain() -> None:
    events: list[dict[str, Any]] = [
        {"event": "phase", "phase": "estimate", "jobs": 1, "plans": [EVIL]},
        {"event": "job-start", "job": "j", "phase": "rung 1", "plan": EVIL, "seed": 0, "task": EVIL, "until": 10},
    ]
    progress = Progress()
    lines = [line for event in events for line in progress.handle(event)]
    check_plain("".join(lines) + "".join(name + detail for name, detail, _, _ in progress.running_rows()))
    assert lines
    stream = Terminal()
    with LiveDisplay(stream) as display:
        for event in events:
            display.handle(event)
    assert "\x1b]0;" not in stream.getvalue()
    assert "\x9b" not in stream.getvalue()
