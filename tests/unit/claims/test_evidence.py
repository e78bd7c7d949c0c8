from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from graftwork.claims.evidence import build_evidence, code_state, package_versions, write_evidence
from graftwork.claims.experiment import Access, Arm, EqualBudget, Inequality, Recipe
from graftwork.claims.judgement import judge
from graftwork.claims.smoke_numbers import smoke_record
from graftwork.core.cards import Card
from graftwork.core.errors import StorageError

CARD = Card(
    slug="toy",
    title="Toy",
    year=2020,
    room="merging",
    kind="method",
    summary="s",
    claim="Better.",
    components=("graftwork.core.errors:DataError",),
)
RECIPE = Recipe(
    slug="toy",
    arms=(Arm("base", "baseline", Access(source_labels=True)), Arm("mine", "method", settings={"r": 1})),
    seeds=(0, 1, 2),
    smoke_seeds=(0,),
    run_arm=lambda arm, seed, context: {},
    inequalities=(Inequality("beats it", "mine.score", "base.score", unit="points"),),
    equal_budget=(EqualBudget(("steps",)),),
    notes=("scaled down",),
)
RESULTS = {seed: {"base": {"score": 1.0 * seed}, "mine": {"score": 2.0 + seed + 0.1 * seed}} for seed in RECIPE.seeds}


def make_evidence() -> dict[str, Any]:
    steps = {seed: {"base": {"steps": 5}, "mine": {"steps": 5}} for seed in RECIPE.seeds}
    seconds = {seed: {"base": 1.0, "mine": 2.0} for seed in RECIPE.seeds}
    smoke = smoke_record({0: RESULTS[0]}, {0: {"base": 0.7, "mine": None}})
    return build_evidence(
        CARD,
        RECIPE,
        judge(RECIPE, RESULTS),
        RECIPE.looks,
        results=RESULTS,
        budgets=steps,
        seconds=seconds,
        reports={},
        smoke=smoke,
        convergence={"arms": {}, "warnings": []},
    )


def test_evidence_holds_all_numbers() -> None:
    evidence = make_evidence()
    assert evidence["verdict"] == "holds"
    assert evidence["measurements"] == {
        "base": {"0": {"score": 0.0}, "1": {"score": 1.0}, "2": {"score": 2.0}},
        "mine": {"0": {"score": 2.0}, "1": {"score": 3.1}, "2": {"score": 4.2}},
    }
    assert evidence["seconds"] == 9.0
    assert evidence["smoke"]["numbers"] == {"0": {"base": {"score": 0.0, "training_loss": 0.7}, "mine": {"score": 2.0}}}
    assert evidence["seeds"] == [0, 1, 2]
    finding = evidence["inequalities"][0]
    assert finding["differences"] == pytest.approx([2.0, 2.1, 2.2])
    assert finding["difference"]["value"] == pytest.approx(2.1)
    assert finding["state"] == "shown"
    assert [(look["seeds"], look["state"]) for look in finding["looks"]] == [(3, "shown")]
    assert evidence["looks"] == [3]
    assert evidence["reason"] == "of 1 primary inequalities 1 shown, after 3 of at most 3 seeds; no headroom is declared"


def test_evidence_says_what_it_belongs_to() -> None:
    evidence = make_evidence()
    assert evidence["evidence_hash"] == CARD.evidence_hash()
    assert {"graftwork", "python", "numpy"} <= set(evidence["versions"])
    assert json.loads(json.dumps(evidence, allow_nan=False)) == json.loads(json.dumps(evidence))


def test_versions_name_installed_packages_only() -> None:
    assert all(version[0].isdigit() for version in package_versions().values())


def test_code_state_of_a_checkout(tmp_path: Path) -> None:
    assert code_state(tmp_path / "nowhere") == ("", False)

    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments], cwd=tmp_path, check=True, capture_output=True
        )

    git("init")
    (tmp_path / "a.py").write_text("x = 1\n", encoding="utf-8")
    git("add", ".")
    git("commit", "-m", "one")
    commit, dirty = code_state(tmp_path)
    assert (len(commit), dirty) == (40, False)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "other.json").write_text("{}", encoding="utf-8")
    assert code_state(tmp_path) == (commit, False), "fresh evidence beside the code is no change of the code"
    (tmp_path / "installed").mkdir()
    assert code_state(tmp_path / "installed") == ("", False), "the commit of another project is not ours"
    (tmp_path / "a.py").write_text("x = 2\n", encoding="utf-8")
    assert code_state(tmp_path) == (commit, True)


def test_unwritable_place_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StorageError, match=r"The evidence was not stored: .*--out.*--resume"):
        write_evidence({}, tmp_path / "file" / "toy.json")
