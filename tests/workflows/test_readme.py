"""The README's examples run as they stand, on small data; only the time limits are replaced by a few steps."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

QUICK = "--steps 12 --folds 3 --plans shared-trunk"


def blocks(repository: Path, language: str) -> list[str]:
    text = (repository / "README.md").read_text(encoding="utf-8").split("## Six examples")[1]
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def houses(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    size, age = random.uniform(40, 200, rows), random.integers(0, 90, rows)
    price = size * 3.1 - age + random.normal(0, 20, rows)
    return pd.DataFrame(
        {
            "size": size.round(1),
            "age": age,
            "quarter": random.choice(["north", "south", "harbour"], rows),
            "price": price.round(2),
            "condition": pd.cut(age + random.normal(0, 8, rows), [-99, 25, 55, 199], labels=["good", "fair", "poor"]).astype(str),
            "sold": (price + random.normal(0, 60, rows) > 300).astype(int),
        }
    )


@pytest.mark.slow
def test_all_examples_run(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    houses(240, 0).to_csv("houses.csv", index=False)
    houses(20, 1).drop(columns=["price", "condition", "sold"]).to_csv("new.csv", index=False)
    base = {"w": torch.randn(20, 8)}
    save_file(base, "base.safetensors")
    for name in "ab":
        save_file({"w": base["w"] + torch.randn(20, 8)}, f"{name}.safetensors")

    commands = [line for block in blocks(repository, "bash") for line in block.strip().splitlines()]
    scripts = blocks(repository, "python")
    assert len(commands) + len(scripts) >= 6
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in commands:
        quick = command.replace("--time-limit 5m", QUICK).replace("--steps 300", "--steps 12 --seeds 2")
        done = subprocess.run(shlex.split(quick), capture_output=True, text=True, env=environment, check=False, timeout=900)
        assert done.returncode == 0, f"{quick}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    for script in scripts:
        quick = script.replace('time_limit="2m"', "steps=12, plans=['shared-trunk'], folds=3")
        assert quick != script
        Path("example.py").write_text(quick)
        done = subprocess.run(
            [sys.executable, "example.py"], capture_output=True, text=True, env=environment, check=False, timeout=900
        )
        assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"

    predictions = pd.read_csv("predictions.csv")
    assert len(predictions) == 20
    assert any(column.startswith("price") for column in predictions)
    assert not any(column.startswith("condition") for column in predictions)
    assert "<html" in Path("runs/houses/report.html").read_text(encoding="utf-8")[:500]
    assert Path("merged.safetensors").exists()
