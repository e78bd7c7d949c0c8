"""The benchmark of predictions: losses, ranks, divisions, and the peers in their smallest form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.quality import peers
from benchmarks.quality.__main__ import PEERS_OF, judge, mean_ranks, report
from benchmarks.quality.suites import SUITES, split_rows

pytest.importorskip("sklearn")


def test_the_trivial_answer_has_a_loss_of_one() -> None:
    numbers = pd.Series([1.0, 2.0, 6.0, np.nan])
    assert judge("number", numbers, {"values": [3.0, 3.0, 3.0, 99.0]}) == pytest.approx(1.0)
    classes = pd.Series(["a", "a", "b", None])
    constant = {"classes": ["a", "b"], "probabilities": [[0.6, 0.4]] * 4}
    assert judge("class", classes, constant) == pytest.approx(1.0)
    assert judge("class", classes, {"classes": ["b", "a"], "probabilities": [[0, 1], [0, 1], [1, 0], [1, 0]]}) == 0.0


def test_only_contenders_with_all_answers_are_ranked() -> None:
    losses = {"a": {"x": 0.1, "y": 0.2, "z": 0.0}, "b": {"x": 0.5, "y": 0.4}}
    assert mean_ranks(losses) == {"x": 1.5, "y": 1.5}


def test_kept_back_rows_are_a_quarter_and_nobodys_training_rows() -> None:
    frame = pd.DataFrame({"row": np.arange(41)})
    train, test = split_rows(frame, 3)
    assert (len(train), len(test)) == (31, 10)
    assert sorted([*train["row"], *test["row"]]) == list(range(41))
    assert list(split_rows(frame, 3)[1]["row"]) == list(test["row"])
    assert list(split_rows(frame, 4)[1]["row"]) != list(test["row"])


def test_suites_are_of_every_kind_and_load_as_they_say(tmp_path: Path) -> None:
    kinds = [suite.kind for suite in SUITES.values()]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"table": 19, "text": 3, "image": 3, "mixed": 1}
    assert set(PEERS_OF) == set(kinds)
    assert {name for names in PEERS_OF.values() for name in names} <= set(peers.PEERS)
    for name in ("wine", "diabetes", "cancer"):
        frame = SUITES[name].load(tmp_path)
        assert set(SUITES[name].targets) < set(frame)
        for target, kind in SUITES[name].targets.items():
            assert pd.api.types.is_numeric_dtype(frame[target]) == (kind == "number")


@pytest.mark.parametrize("name", ["extra-trees", "linear", "lightgbm", "joined-linear", "joined-lightgbm"])
def test_peers_answer_every_target_for_every_row(name: str, tmp_path: Path) -> None:
    if name.endswith("lightgbm"):
        pytest.importorskip("lightgbm")
    draw = np.random.default_rng(0)
    x = draw.normal(size=(120, 3))
    frame = pd.DataFrame(x, columns=list("abc")).assign(place=np.where(x[:, 2] > 0, "north", "south"))
    frame["amount"] = 3 * x[:, 0] + (x[:, 2] > 0)
    frame["level"] = np.where(x[:, 1] > 0.3, "high", "low")
    train, test = split_rows(frame, 0)
    train.loc[3, "level"] = None
    if name.startswith("joined"):
        # What only the picture tells.
        features = {part: own[["c", "b"]].to_numpy() for part, own in (("train", train), ("test", test))}
        np.savez(tmp_path / "features.npz", **features)
        train, test = (own.drop(columns=["b", "c", "place"]).assign(picture="a file") for own in (train, test))
    train.to_csv(tmp_path / "train.csv", index=False)
    test.drop(columns=["amount", "level"]).to_csv(tmp_path / "test.csv", index=False)
    targets = {"amount": "number", "level": "class"}
    (tmp_path / "job.json").write_text(json.dumps({"targets": targets, "kind": "table", "seconds": 5, "cores": 1}))
    subprocess.run([sys.executable, str(peers.__file__), name, str(tmp_path)], check=True, capture_output=True)
    answers = json.loads((tmp_path / "answers.json").read_text())["answers"]
    for target, kind in targets.items():
        assert judge(kind, test[target], answers[target]) < 0.6


def test_the_report_names_losses_ranks_and_failures() -> None:
    rows = [
        {"suite": "s", "kind": "table", "seed": 0, "contender": "graftwork", "loss": 0.25},
        {"suite": "s", "kind": "table", "seed": 0, "contender": "linear", "loss": 0.5},
        {"suite": "s", "kind": "table", "seed": 0, "contender": "lightgbm", "failed": "no memory"},
    ]
    text = report(rows)
    assert "0.250" in text
    assert "1.00" in text
    assert "lightgbm failed on s: no memory" in text
