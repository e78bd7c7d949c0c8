"""The load test of the server in its smallest form: structure and right answers, never time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks import serving
from benchmarks._rows import check_row
from benchmarks.prediction import make_run, make_table


@pytest.mark.slow
def test_a_wrong_answer_is_seen_and_right_ones_are_counted(tmp_path: Path) -> None:
    frame, encoder = make_table(200)
    predictor = make_run(tmp_path / "run", encoder, encoder.transform(frame.head(4)))
    rows = serving.measure_load(tmp_path / "run", frame, predictor, 64)
    assert [row.what for row in rows][::3] == ["1 client, p50", "8 clients, p50", "64 clients, p50"]
    for row in rows:
        check_row(row.json())
        assert row.details["wrong"] == 0
        assert row.details["requests"] == 64
    records, expected = serving.questions(frame, predictor, 16)
    bodies = [serving.json.dumps({"rows": [record]}).encode() for record in records]
    with serving.server(tmp_path / "run") as port:
        _, _, wrong, _ = asyncio.run(serving.load(port, bodies, expected[::-1], 4))
    assert wrong >= 14, "answers of other questions count as wrong"


def test_one_task_of_four_needs_a_quarter_of_the_operations(tmp_path: Path) -> None:
    frame, encoder = make_table(100)
    row = serving.measure_one_task(tmp_path / "run", encoder, encoder.transform(frame), rounds=1)
    check_row(row.json())
    assert row.details["flops_share"] == pytest.approx(0.25, abs=0.01)
