from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graftwork.claims.experiment import Arm, Inequality, Pilot, Recipe
from graftwork.claims.rejudging import rejudge_card
from graftwork.claims.reproduction import pilot_card, reproduce_card
from graftwork.core.cards import Card
from graftwork.core.errors import ConfigError

RECIPE = """
import os
from pathlib import Path
from graftwork.claims.experiment import Arm, Headroom, Inequality, Pilot, Recipe

BEST = {"base": 0.1, "mine": MINE, "half": 0.0, "oracle": 0.0}

def run_arm(arm, seed, context):
    with open(Path(os.environ["TOY_LOG"]), "a") as log:
        log.write(f"{arm.name}-{seed}-{arm.settings.get('rate')}\\n")
    gain = {"base": 0.0, "half": 0.5, "mine": 1.0, "oracle": 5.0}[arm.name]
    lost = abs(arm.settings.get("rate", 0.0) - BEST[arm.name]) if arm.name in ("base", "mine") else 0.0
    return {"score": gain - lost + 0.01 * (seed % 3), "rate": arm.settings.get("rate", 0.0)}

RECIPE = Recipe(
    slug="toy",
    arms=(
        Arm("base", "baseline", settings={"rate": 9.0}),
        Arm("mine", "method", settings={"rate": 9.0, "kind": "a"}),
        Arm("half", "ablation", settings={"rate": 9.0}),
        Arm("oracle", "knows it"),
    ),
    seeds=(0, 1, 2),
    smoke_seeds=(0,),
    run_arm=run_arm,
    inequalities=(Inequality("beats it", "mine.score", "base.score", margin=0.5),),
    headroom=(Headroom("oracle.score", "base.score", margin=0.5),),
    pilot=Pilot(
        grids={"base": {"rate": (0.03, 0.1, 0.3)}, "mine": {"rate": (0.03, 0.1, 0.3)}},
        score=("score",),
        follows={"half": "mine"},
        fixed={"oracle": "it has nothing to tune"},
    ),
)
"""


def card_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, best: float = 0.1, text: str = RECIPE) -> Card:
    module = f"{name}_{abs(hash(tmp_path))}"
    (tmp_path / f"{module}.py").write_text(text.replace("MINE", str(best)), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(Card, "evidence_file", tmp_path / "toy.json")
    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    return Card(slug="toy", title="Toy", year=2020, room="merging", kind="method", summary="s", claim="c", recipe=module)


def stored(tmp_path: Path) -> dict[str, Any]:
    return dict(json.loads((tmp_path / "toy.json").read_text(encoding="utf-8")))


def log_of(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text(encoding="utf-8").split()


def test_the_counting_run_takes_what_the_pilot_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = card_with(tmp_path, monkeypatch, "toy")
    with pytest.raises(ConfigError, match=r"declares grids, and no pilot has been run: run graftwork reproduce toy --pilot"):
        reproduce_card(card, workers=0)
    assert not (tmp_path / "log").exists(), "nothing is run without a pilot"
    done = pilot_card(replace(card), workers=0)
    assert done.record["chosen"] == {"base": {"rate": 0.1}, "mine": {"rate": 0.1}, "half": {"rate": 0.1}, "oracle": {}}
    assert [item.state for item in done.headroom] == ["shown"]
    # Two arms with three trials, the oracle, then the arm that follows: two seeds each.
    assert len(log_of(tmp_path)) == 2 * (2 * 3 + 1 + 1)
    assert all(entry.split("-")[1] in ("100", "101") for entry in log_of(tmp_path))
    assert replace(card).status == "no evidence"
    judged = reproduce_card(replace(card), workers=0)
    assert judged.verdict.word == "holds"
    assert judged.results[0]["half"]["rate"] == 0.1
    evidence = stored(tmp_path)
    assert evidence["pilot"]["arms"]["mine"]["trials"][0] == {
        "settings": {"rate": 0.03},
        "scores": {"100": pytest.approx(0.94), "101": pytest.approx(0.95)},
        "mean": pytest.approx(0.945),
    }
    assert {arm["name"]: arm["settings"].get("rate") for arm in evidence["arms"]}["half"] == 0.1
    assert {arm["name"]: arm["settings"].get("kind") for arm in evidence["arms"]}["mine"] == "a"
    assert evidence["smoke"]["numbers"]["0"]["mine"]["rate"] == 9.0, "smoke runs need no pilot"
    assert replace(card).status == "holds"


def test_a_reason_keeps_the_pilot_that_the_counting_run_took_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = card_with(tmp_path, monkeypatch, "before")
    pilot_card(card, workers=0)
    reproduce_card(replace(card), workers=0)
    renamed = card_with(tmp_path, monkeypatch, "renamed", text=RECIPE.replace("lost", "missed"))
    with pytest.raises(ConfigError, match="changed since its run. Say with --because"):
        rejudge_card(replace(renamed))
    assert rejudge_card(replace(renamed), because="a variable has another name").verdict.word == "holds"
    assert stored(tmp_path)["pilot"]["evidence_hash"] == replace(renamed).evidence_hash()
    assert replace(renamed).status == "holds"
    evidence = stored(tmp_path)
    (tmp_path / "toy.json").write_text(
        json.dumps({**evidence, "pilot": {**evidence["pilot"], "evidence_hash": "of a later pilot"}})
    )
    again = card_with(tmp_path, monkeypatch, "again", text=RECIPE.replace("lost", "gone"))
    with pytest.raises(ConfigError, match="its pilot belongs to other code or another claim"):
        rejudge_card(replace(again), because="a variable has another name")


def test_a_value_at_the_edge_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = card_with(tmp_path, monkeypatch, "edge", best=0.5)
    assert pilot_card(card, workers=0).edges == ["arm 'mine': rate = 0.3 is at the edge of its grid (0.03, 0.1, 0.3)"]
    with pytest.raises(ConfigError, match=r"arm 'mine': rate = 0\.3 is at the edge of its grid \(0\.03, 0\.1, 0\.3\)"):
        reproduce_card(replace(card), workers=0)


def test_a_limit_is_no_edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = RECIPE.replace('follows={"half"', 'limits={"rate": (0.3,)}, follows={"half"')
    card = card_with(tmp_path, monkeypatch, "limit", best=0.5, text=text)
    assert pilot_card(card, workers=0).edges == []
    assert reproduce_card(replace(card), workers=0).verdict.word == "holds"


def test_a_pilot_of_other_code_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pilot_card(card_with(tmp_path, monkeypatch, "first"), workers=0)
    other = card_with(tmp_path, monkeypatch, "second", best=0.11)
    with pytest.raises(ConfigError, match="its pilot belongs to other code or another claim"):
        reproduce_card(other, workers=0)


def test_a_later_pilot_that_chooses_otherwise_makes_the_verdict_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = card_with(tmp_path, monkeypatch, "later")
    pilot_card(card, workers=0)
    reproduce_card(replace(card), workers=0)
    pilot_card(replace(card), workers=0)
    assert replace(card).status == "holds", "the same choice changes nothing"
    evidence = stored(tmp_path)
    evidence["pilot"]["chosen"]["mine"] = {"rate": 0.03}
    (tmp_path / "toy.json").write_text(json.dumps(evidence), encoding="utf-8")
    assert replace(card).status == "stale"
    with pytest.raises(ConfigError, match=r"arm 'mine': rate = 0\.1, the pilot chose 0\.03"):
        rejudge_card(replace(card))


def test_a_stopped_pilot_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = card_with(tmp_path, monkeypatch, "stopped")
    work = tmp_path / "work"
    before = pilot_card(card, workers=0, work=work).record
    (work / "done" / "mine-101-trial-2.json").unlink()
    (tmp_path / "log").unlink()
    after = pilot_card(card, workers=0, work=work, resume=True).record
    assert log_of(tmp_path) == ["mine-101-0.3"]
    assert after["arms"] == before["arms"]


def test_recipes_without_grids_have_no_pilot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = RECIPE[: RECIPE.index("    pilot=Pilot(")] + ")\n"
    card = card_with(tmp_path, monkeypatch, "none", text=text)
    with pytest.raises(ConfigError, match="declares no grids, so there is nothing to tune"):
        pilot_card(card, workers=0)
    assert reproduce_card(card, workers=0).evidence is not None


def make_recipe(**changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "grids": {"base": {"rate": (1, 2, 3)}, "mine": {"rate": (1, 2, 3)}},
        "score": ("score",),
        "fixed": {"oracle": "a rule"},
    }
    arms = (
        Arm("base", "", settings={"rate": 1}),
        Arm("mine", "", settings={"rate": 1, "deep": True}),
        Arm("oracle", ""),
    )
    return Recipe(
        slug="toy",
        arms=arms,
        smoke_seeds=(0,),
        run_arm=lambda arm, seed, context: {},
        inequalities=(Inequality("beats it", "mine.score", "base.score"),),
        pilot=Pilot(**{**fields, **changes}),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fixed": {}}, "arm 'oracle' is in one of grids, follows and fixed; it is in none"),
        ({"follows": {"oracle": "mine"}}, "it is in follows and fixed"),
        ({"fixed": {"oracle": "", "god": ""}}, "no arm 'god'; the arms are base, mine, oracle"),
        ({"grids": {"base": {"rate": (1, 2, 3)}, "mine": {"rate": (1, 2, 3, 4)}}}, "equally many trials; got base 3, mine 4"),
        (
            {"grids": {"base": {"rate": (1, 2, 3)}, "mine": {"speed": (1, 2, 3)}}},
            "has no setting 'speed' to tune; it has rate, deep",
        ),
        ({"grids": {"base": {"rate": (1, 2)}, "mine": {"rate": (1, 2)}}}, "3 different numbers or 2 different words"),
        ({"seeds": (3, 100)}, "its seeds are 100 or more"),
        (
            {"fixed": {}, "follows": {"oracle": "mine"}},
            r"arm 'oracle' follows 'mine', which has no grid or other settings \(rate\)",
        ),
        ({"score": ()}, "at least one grid and one score"),
    ],
)
def test_unfair_grids_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_recipe(**changes)


def test_grids_of_several_settings_are_all_combinations() -> None:
    grid = {"rate": (0.1, 0.2, 0.3), "deep": (False, True)}
    other = {"rate": (1, 2, 3, 4, 5, 6)}
    recipe = make_recipe(grids={"base": other, "mine": grid}, lower_is_better=True)
    assert recipe.pilot is not None
    assert len(recipe.pilot.trials("mine")) == len(recipe.pilot.trials("base")) == 6
    assert recipe.pilot.trials("mine")[1] == {"rate": 0.1, "deep": True}
    assert recipe.pilot.best([3.0, 1.0, 1.0]) == 1
    # Words and switches have no edge.
    assert recipe.pilot.edges("mine", {"rate": 0.2, "deep": True}) == []
