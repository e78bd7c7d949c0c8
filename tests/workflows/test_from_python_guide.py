"""The guide "From Python" runs line by line, on small data; only the time limit is replaced by a few steps."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import graftwork as gw

from .conftest import linear_plan, linear_suite  # type: ignore[import-not-found]


def houses(rows: int, seed: int) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    size, age = draw.uniform(40, 200, rows).round(1), draw.integers(0, 90, rows)
    price = (size * 3.1 - age + draw.normal(0, 20, rows)).round(2)
    condition = np.where(age + draw.normal(0, 8, rows) < 30, "good", "poor")
    return pd.DataFrame({"size": size, "age": age, "price": price, "condition": condition, "sold": (price > 300).astype(int)})


@pytest.mark.slow
def test_every_line_gives_what_the_guide_says(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    houses(240, 0).to_csv("houses.csv", index=False)
    houses(20, 1)[["size", "age"]].to_csv("new.csv", index=False)
    text = (repository / "docs" / "from-python.md").read_text(encoding="utf-8")
    quick = 'steps=12, seeds=1, folds=0, single=True, plans=["shared-trunk"], workers=0'
    changed = text.replace('time_limit="2m"', quick)
    assert changed != text
    examples = doctest.DocTestParser().get_doctest(changed.replace("```\n", "\n"), {}, "from-python", "from-python.md", 0)
    assert len(examples.examples) > 20
    problems: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    found = runner.run(examples, out=problems.append)
    assert found.failed == 0, "".join(problems)


@pytest.mark.usefixtures("fake_learners")
def test_a_run_shows_progress_where_it_is_asked_for_and_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plans = ["none", linear_plan("alone", "reference"), linear_plan("fast", "joint", rate=0.3)]
    settings = {"plans": plans, "steps": 16, "seeds": 1, "workers": 0, "backbone": "none"}
    events: list[str] = []
    run = gw.fit(
        linear_suite(), out=tmp_path / "shown", progress=True, on_event=lambda event: events.append(event["event"]), **settings
    )
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert lines[0].startswith("data: linear (table), 120 rows")
    assert lines[-1].startswith("done in")
    assert "progress" in events
    assert events[-1] == "done"
    gw.compare(linear_suite(), out=tmp_path / "silent", **settings)
    assert capsys.readouterr().err == "", "nobody watches a captured stream"
    again = gw.load_run(tmp_path / "shown")
    assert again.result == run.result
    assert again.leaderboard().equals(run.leaderboard())
    assert set(again.leaderboard()["plan"]) - {"mixed"} == {"alone", "fast", "ensemble"}
    assert gw.fit(linear_suite(), out=tmp_path / "dry", dry_run=True, **settings).result == {}
    with pytest.raises(ValueError, match=r"its schedule is made, .*graftwork fit --resume"):
        gw.load_run(tmp_path / "dry")
