"""The benchmark of verdicts: its worlds are what they say, and a verdict is judged by what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.verdicts.__main__ import main, report
from benchmarks.verdicts.batched import judge_networks
from benchmarks.verdicts.judgement import judge_verdict, statements_of
from benchmarks.verdicts.worlds import WORLDS, World, make_world


@pytest.mark.parametrize("world", WORLDS)
def test_worlds_repeat_and_keep_the_oracles_rows_apart(world: World) -> None:
    for seed in range(6):
        made, again = (make_world(world, seed, oracle_rows=50) for _ in range(2))
        assert made.suite.fingerprint() == again.suite.fingerprint()
        splits = made.suite.splits
        assert np.concatenate([splits[name] for name in ("train", "val", "test")]).max() < made.rows
        assert splits["transfer"].tolist() == list(range(made.rows, made.rows + 50))
        assert 60 <= made.rows <= 3000
        assert 2 <= len(made.suite.tasks) <= 8
        if made.data_sets > 1:
            known = np.stack([np.isfinite(t[:, 0]) if t.ndim == 2 else t >= 0 for t in made.suite.targets.values()])
            assert (known[:, : made.rows].sum(0) == 1).all()
            assert known[:, made.rows :].all()


def test_related_targets_go_together_and_shuffled_ones_do_not() -> None:
    def correlation(world: World) -> float:
        found = []
        for seed in range(12):
            made = make_world(world, seed, oracle_rows=10)
            numbers = [task.name for task in made.suite.tasks if task.kind == "regression" and not made.signal[task.name]]
            numbers = numbers if world == "shuffled" else [t.name for t in made.suite.tasks if t.kind == "regression"]
            if len(numbers) > 1 and made.data_sets == 1:
                values = [made.suite.targets[name][: made.rows, 0] for name in numbers[:2]]
                found.append(abs(float(np.corrcoef(values)[0, 1])))
        return float(np.median(found))

    assert correlation("related") > 0.7
    assert correlation("shuffled") < 0.15
    assert correlation("unrelated") < 0.35


def result_of(**more: Any) -> dict[str, Any]:
    """A verdict that says nothing of two tasks."""
    ends = {"value": 1.0, "low": -2.0, "high": 4.0}
    answer = {"plan": "shared-trunk", "reference": "separate", "label": "unclear", "difference": ends, "tasks": []}
    verdict = {"sentences": [], "help": [{**answer, **more.pop("answer", {})}], "ship": None}
    return {"controls": [], "affinity": None, "grouping": None, "verdict": verdict, **more}


def judged(world: World, true: float, **more: Any) -> dict[str, Any]:
    made = make_world(world, 1, oracle_rows=10)
    oracle = {"shared-trunk": {task.name: {"value": true, "error": 0.5} for task in made.suite.tasks}}
    return judge_verdict(made, result_of(**more), oracle)


def test_an_open_verdict_is_right_where_nothing_is_related_or_too_little_to_see() -> None:
    assert judged("unrelated", -1.0)["verdict"] == "right"
    assert judged("shuffled", -1.0)["verdict"] == "right"
    assert judged("related", 15.0)["verdict"] == "open"
    assert judged("conflicting", -15.0)["verdict"] == "open"
    assert judged("related", 2.0)["verdict"] == "right"


def test_what_is_said_must_be_so() -> None:
    helped = [{"task": "target_1", "label": "transfer"}]
    assert judged("related", 15.0, controls=helped)["verdict"] == "right"
    wrong = judged("unrelated", 1.0, controls=helped)
    assert (wrong["verdict"], wrong["tasks_with_null_claims"]) == ("wrong", ["target_1"])
    assert judged("conflicting", -15.0, controls=helped)["verdict"] == "wrong"
    worse = {"label": "worse"}
    assert judged("conflicting", -15.0, answer=worse)["verdict"] == "right"
    assert judged("unrelated", -4.0, answer=worse)["verdict"] == "right"  # true of the models, and nothing on the labels
    assert judged("unrelated", 4.0, answer=worse)["verdict"] == "wrong"
    grouped = judged("shuffled", 0.0, grouping={"advised": [["target_1", "target_2"]]})
    assert grouped["tasks_with_null_claims"] == ["target_1", "target_2"]


def test_leads_and_pairs_are_statements_on_labels() -> None:
    result = result_of(affinity={"tasks": ["a", "b"], "words": [["", "helps"], ["unclear", ""]]})
    result["verdict"]["sentences"] = [
        "The tasks probably hurt each other: learned together (`x`) against separately (`y`), -3 %."
    ]
    found = [(one["what"], one["sign"], one["task"]) for one in statements_of(result)]
    assert found == [("lead", -1, None), ("pair", 1, "b")]


def test_a_suite_is_judged_in_its_smallest_form(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_world("unrelated", 0, oracle_rows=50, most_rows=100)
    done = judge_networks(made, steps=3)
    judgement = judge_verdict(made, done["result"], done["oracle"])
    assert judgement["verdict"] in ("right", "wrong")
    assert judgement["tasks"] == len(made.suite.tasks)
    assert set(done["oracle"]) == {"shared-trunk", "constant"}
    file = tmp_path / "results.json"
    options = ["--by", "networks", "--quick", "--worlds", "unrelated", "--json", str(file)]
    assert main(options) == 0
    first = file.read_bytes()
    assert main(options) == 0  # nothing is left to do
    assert file.read_bytes() == first
    assert "unrelated" in capsys.readouterr().out
    assert "wrong" in report([])
