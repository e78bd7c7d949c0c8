"""A worker process hears stops at any time."""

from __future__ import annotations

import io
import json
import queue
from typing import Any

import pytest

from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.worker import _Current, _listen


def heard(monkeypatch: pytest.MonkeyPatch, current: _Current, *messages: dict[str, Any]) -> int:
    """Let the worker hear messages; return how many jobs it will run."""

    def end(code: int) -> None:
        raise EOFError(code)

    monkeypatch.setattr("graftwork.workflows.runs.worker.os._exit", end)
    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    with pytest.raises(EOFError):
        _listen(io.StringIO("".join(json.dumps(message) + "\n" for message in messages)), jobs, current)
    return jobs.qsize()


JOB: dict[str, Any] = {"type": "job", "job": {"id": "a"}}
STOP = {"type": "stop", "id": "a", "mode": "keep"}


def test_a_stop_before_the_job_begins_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    current, control, other = _Current(), JobControl(), JobControl()
    assert heard(monkeypatch, current, JOB, {"type": "job", "job": {"id": "b"}}, STOP) == 2
    current.begin("a", control)
    assert control.stop == "keep"
    current.end()
    current.begin("b", other)
    assert other.stop is None


def test_a_stop_reaches_the_running_job_only(monkeypatch: pytest.MonkeyPatch) -> None:
    current, control, later = _Current(), JobControl(), JobControl()
    heard(monkeypatch, current, JOB)
    current.begin("a", control)
    heard(monkeypatch, current, {**STOP, "id": "b"})
    assert control.stop is None
    heard(monkeypatch, current, {**STOP, "mode": "finish"})
    assert control.stop == "finish"
    current.end()
    heard(monkeypatch, current, STOP, JOB)
    current.begin("a", later)
    assert later.stop is None, "the stop of an earlier try is not that of a later one"


def test_an_unreadable_job_is_passed_on_to_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert heard(monkeypatch, _Current(), {"type": "job", "job": 7}, {"type": "exit"}) == 2
