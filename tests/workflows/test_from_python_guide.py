"""The guide "From Python" runs line by line, on small data; only the time limit is replaced by a few steps."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pandas as pd
import pytest


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
