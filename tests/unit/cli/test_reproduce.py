from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest

from graftwork.cli import reproduce as verb
from graftwork.core.cards import Card
from graftwork.core.errors import ConfigError

RECIPE = """
from graftwork.claims.experiment import Arm, Inequality, Recipe

RECIPE = Recipe(
    slug="toy",
    arms=(Arm("base", "baseline"), Arm("mine", "method")),
    seeds=(0, 1, 2),
    smoke_seeds=(0,),
    run_arm=lambda arm, seed, context: {"score": seed + 2.0 * (arm.name == "mine")},
    inequalities=(Inequality("beats it", "mine.score", "base.score"), Inequality("never", "base.score", "mine.score", primary=False)),
    notes=("a toy",),
)
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "toy_cli_recipe.py").write_text(RECIPE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("toy_cli_recipe", None)
    card = Card(
        slug="toy", title="Toy", year=2020, room="merging", kind="method", summary="s", claim="c", recipe="toy_cli_recipe"
    )
    for module in ("run_plan", "reproduction"):
        monkeypatch.setattr(f"graftwork.claims.{module}.load_cards", lambda: {"toy": card})


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return verb.run(parser.parse_args(words))


def test_prints_the_verdict_and_exits_with_zero(toy: None, tmp_path: Path, capsys: pytest.CaptureFixture[Any]) -> None:
    assert call("toy", "--workers", "0", "--out", str(tmp_path / "toy.json")) == 0
    shown = capsys.readouterr()
    assert (
        "Verdict: holds: of 1 primary inequalities 1 shown, after 3 of at most 3 seeds; no headroom is declared. Evidence: "
        in shown.out
    )
    assert "refuted: never: the interval is not above 0" in shown.out
    assert "look after 3 seeds: of 1 primary" in shown.err
    assert "note: a toy" in shown.out
    assert "toy: 6 jobs, 1 at a time" in shown.err
    assert "[  6/6] seed 2  mine" in shown.err
    assert (tmp_path / "toy.json").exists()


def test_smoke_runs_give_no_verdict(toy: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("toy", "--smoke") == 0
    text = capsys.readouterr().out
    assert "No verdict: a smoke run says that everything runs" in text
    assert "one seed" in text
    assert "open:" not in text


def test_marking_needs_smoke_numbers(toy: None) -> None:
    with pytest.raises(ConfigError, match="together with --smoke"):
        call("toy", "--mark")


def test_asks_for_one_system_or_stale(toy: None) -> None:
    with pytest.raises(ConfigError, match="Name one system, or give --stale"):
        call()
    with pytest.raises(ConfigError, match="Name one system, or give --stale"):
        call("toy", "--stale")
    with pytest.raises(ConfigError, match="leave them out with --stale"):
        call("--stale", "--out", "x.json")


def test_nothing_stale_is_fine(toy: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--stale") == 0
    assert "No evidence is stale." in capsys.readouterr().out


def test_ctrl_c_says_how_to_go_on(toy: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("graftwork.claims.measuring.run_jobs", stop)
    assert call("toy") == 130
    assert "graftwork reproduce toy --resume goes on" in capsys.readouterr().err


def test_kept_measurements_are_judged_again(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Card, "evidence_file", tmp_path / "toy.json")
    call("toy", "--workers", "0")
    capsys.readouterr()
    assert call("toy", "--rejudge") == 0
    assert "toy: holds -> holds (of 1 primary inequalities 1 shown" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="runs nothing"):
        call("toy", "--rejudge", "--smoke")
    with pytest.raises(ConfigError, match="give it with SLUG and --rejudge"):
        call("toy", "--because", "I say so")


def test_a_pilot_shows_its_trials_and_refuses_edges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = RECIPE.replace(
        "    notes=",
        '    pilot=Pilot(grids={"base": {"rate": (1, 2, 3)}, "mine": {"rate": (1, 2, 3)}}, score=("score",)),\n    notes=',
    )
    text = text.replace("Inequality, Recipe", "Inequality, Pilot, Recipe").replace('line")', 'line", settings={"rate": 1})')
    text = text.replace('method")', 'method", settings={"rate": 1})').replace(
        "seed + 2.0", "-abs(arm.settings['rate'] - BEST) + 2.0"
    )
    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(Card, "evidence_file", tmp_path / "toy.json")
    for best, name in ((2, "toy_pilot_inside"), (3, "toy_pilot_edge")):
        (tmp_path / f"{name}.py").write_text(text.replace("BEST", str(best)), encoding="utf-8")
        card = Card(slug="toy", title="Toy", year=2020, room="merging", kind="method", summary="s", claim="c", recipe=name)
        monkeypatch.setattr("graftwork.claims.run_plan.load_cards", lambda card=card: {"toy": card})
        if best == 2:
            assert call("toy", "--pilot", "--workers", "0") == 0
        else:
            with pytest.raises(ConfigError, match="arm 'base': rate = 3 is at the edge of its grid"):
                call("toy", "--pilot", "--workers", "0")
        shown = capsys.readouterr().out
        assert f"rate {best}" in next(line for line in shown.splitlines() if "chosen" in line)
        assert "score, higher is better" in shown
    with pytest.raises(ConfigError, match="give it with SLUG, and without --seeds"):
        call("toy", "--pilot", "--seeds", "3")
