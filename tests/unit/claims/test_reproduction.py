from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graftwork.claims.evidence import mark_stale
from graftwork.claims.reproduction import Reproduction, reproduce, reproduce_card
from graftwork.claims.reproduction_job import load_recipe
from graftwork.claims.run_plan import choose_looks, choose_seeds
from graftwork.core.cards import Card
from graftwork.core.errors import AccessError, BudgetError, CheckpointError, ConfigError, GraftworkError

RECIPE = """
import os, time
from pathlib import Path
from graftwork.claims.experiment import Access, Arm, EqualBudget, Inequality, Recipe

PAUSE = float(os.environ.get("TOY_PAUSE", "0"))

def run_arm(arm, seed, context):
    folder = context.once("trunk", lambda folder: (folder / "value").write_text(str(context.seeds.integer("trunk") % 7)))
    context.count("steps", arm.settings.get("steps", 10))
    for part in arm.settings.get("asks", ()):
        context.require_access(part)
    if arm.settings.get("fails"):
        raise ZeroDivisionError("no luck")
    with open(Path(os.environ["TOY_LOG"]), "a") as log:
        log.write(f"{arm.name}-{seed}\\n")
    time.sleep(PAUSE)
    context.progress(0.5, "half")
    context.record_curve("accuracy", [(step, float(step)) for step in range(8)], larger_is_better=True)
    noise = context.seeds.numpy("noise").normal()
    return {"score": int((folder / "value").read_text()) + noise + GAIN * (arm.name == "mine"), "sizes": {"rows": 3}}

GAIN = 2.0
RECIPE = Recipe(
    slug="toy",
    arms=(Arm("base", "baseline"), Arm("mine", "method", Access(), MINE)),
    seeds=(0, 1, 2),
    smoke_seeds=(0,),
    run_arm=run_arm,
    inequalities=(Inequality("beats it", "mine.score", "base.score", margin=0.5, min_sign_seeds=3),),
    equal_budget=(EqualBudget(("steps",)),),
)
"""


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path / "cache"))
    return make_card(tmp_path, monkeypatch)


def make_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str = "{}", gain: str = "2.0") -> Card:
    name = f"toy_recipe_{abs(hash((tmp_path, settings, gain)))}"
    text = RECIPE.replace("MINE)", f"{settings})").replace("GAIN = 2.0", f"GAIN = {gain}")
    (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return Card(slug="toy", title="Toy", year=2020, room="merging", kind="method", summary="s", claim="c", recipe=name)


def run(card: Card, tmp_path: Path, **options: Any) -> Reproduction:
    return reproduce_card(card, **{"work": tmp_path / "work", "out": tmp_path / "toy.json", "workers": 0, **options})


def log_of(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text(encoding="utf-8").split()


def test_full_run_judges_and_writes_evidence(card: Card, tmp_path: Path) -> None:
    events: list[Any] = []
    done = run(card, tmp_path, on_event=events.append)
    assert done.verdict.word == "holds"
    # all arms draw the same streams, so that only the method differs
    assert done.verdict.findings[0].differences == pytest.approx((2.0, 2.0, 2.0))
    stored = json.loads((tmp_path / "toy.json").read_text(encoding="utf-8"))
    assert stored["verdict"] == "holds"
    assert stored["budgets"]["mine"] == {
        "0": {"steps": 10, "labels": 0},
        "1": {"steps": 10, "labels": 0},
        "2": {"steps": 10, "labels": 0},
    }
    assert stored["measurements"]["base"]["0"]["sizes.rows"] == 3
    assert [event["kind"] for event in events].count("job") == 6
    assert stored["convergence"]["warnings"][0] == "arm 'base': accuracy still rising at the end in 3 of 3 seeds"
    assert stored["convergence"]["arms"]["mine"]["accuracy"]["points"][-1] == [7, 7.0]
    assert [event["seeds"] for event in events if event["kind"] == "look"] == [3]
    assert log_of(tmp_path)[:6] == ["base-0", "mine-0", "base-1", "mine-1", "base-2", "mine-2"]
    assert log_of(tmp_path)[6:] == ["base-0", "mine-0"], "then the smoke seed, whose numbers the evidence keeps"
    assert set(stored["smoke"]["numbers"]["0"]) == {"base", "mine"}


def with_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gain: str) -> Card:
    card = make_card(tmp_path, monkeypatch, gain=gain)
    path = tmp_path / f"{card.recipe}_looks.py"
    text = (tmp_path / f"{card.recipe}.py").read_text(encoding="utf-8")
    # Noise of each arm's own, so that differences vary.
    text = text.replace('context.seeds.numpy("noise")', 'context.seeds.numpy("noise" + arm.name)')
    path.write_text(text.replace("    seeds=(0, 1, 2),\n", "").replace(", min_sign_seeds=3", ""), encoding="utf-8")
    return replace(card, recipe=path.stem)


def test_seeds_are_added_until_the_claim_is_decided(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []
    done = run(with_looks(tmp_path, monkeypatch, "5.0"), tmp_path, on_event=events.append)
    assert done.verdict.word == "holds"
    assert done.seeds == tuple(range(8))
    stored = json.loads((tmp_path / "toy.json").read_text(encoding="utf-8"))
    assert (stored["looks"], stored["seeds"]) == ([3, 5, 8, 13, 20], list(range(8)))
    looks = stored["inequalities"][0]["looks"]
    assert [(look["seeds"], look["state"]) for look in looks] == [(3, "open"), (5, "open"), (8, "shown")]
    assert [event["seeds"] for event in events if event["kind"] == "look"] == [3, 5, 8]
    # No seed is run twice, the smoke seed aside.
    assert log_of(tmp_path).count("mine-7") == 1
    assert log_of(tmp_path).count("mine-1") == 1


def test_an_undecided_claim_is_open_after_the_last_look(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = with_looks(tmp_path, monkeypatch, "0.5")
    done = run(toy, tmp_path, seeds=5)
    assert (done.verdict.word, done.seeds) == ("open", tuple(range(5)))
    assert done.verdict.reason == "of 1 primary inequalities 1 open, after 5 of at most 20 seeds; no headroom is declared"
    assert done.evidence is not None, "five seeds are a look"
    assert len(run(toy, tmp_path, resume=True, seeds=8).seeds) == 8
    assert log_of(tmp_path).count("mine-4") == 1


def test_failing_claim_is_evidence_too(tmp_path: Path, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(make_card(tmp_path, monkeypatch, gain="-1.0"), tmp_path)
    assert done.verdict.word == "contradicted"
    assert json.loads((tmp_path / "toy.json").read_text(encoding="utf-8"))["verdict"] == "contradicted"


def test_smoke_and_few_seeds_leave_no_evidence(card: Card, tmp_path: Path) -> None:
    assert "not that the claim holds" in run(card, tmp_path, smoke=True).notes[0]
    assert "2 of 3 seeds" in run(card, tmp_path, seeds=2).notes[0]
    assert not (tmp_path / "toy.json").exists()


def test_resume_repeats_nothing_and_changes_nothing(card: Card, tmp_path: Path) -> None:
    whole = run(card, tmp_path).results
    (tmp_path / "work" / "done" / "mine-1.json").unlink()
    (tmp_path / "log").unlink()
    assert run(card, tmp_path, resume=True).results == whole
    assert log_of(tmp_path) == ["mine-1"]
    run(card, tmp_path)
    assert len(log_of(tmp_path)) == 1 + 6 + 2


def test_a_smoke_run_says_what_no_longer_comes_out(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(card, tmp_path)
    stored = json.loads((tmp_path / "toy.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(Card, "evidence_file", tmp_path / "toy.json")
    fresh = make_card(tmp_path, monkeypatch)
    assert fresh.status == "holds"
    assert run(fresh, tmp_path, smoke=True, work=tmp_path / "again").changed == ()
    # shared code changed: the system's own files are as they were, its numbers are not
    stored["smoke"]["numbers"]["0"]["mine"]["score"] += 1.0
    (tmp_path / "toy.json").write_text(json.dumps(stored), encoding="utf-8")
    fresh = make_card(tmp_path, monkeypatch)
    done = run(fresh, tmp_path, smoke=True, work=tmp_path / "third")
    assert [line.split(":")[0] for line in done.changed] == ["seed 0, mine, score"]
    mark_stale(fresh, done.changed)
    marked = make_card(tmp_path, monkeypatch)
    assert marked.status == "stale"
    assert run(marked, tmp_path, smoke=True, work=tmp_path / "fourth").changed == (), "what is stale is not compared again"


def test_worker_processes_give_the_same_numbers(card: Card, tmp_path: Path) -> None:
    assert run(card, tmp_path, workers=2).results == run(card, tmp_path, work=tmp_path / "other").results


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_numbers(card: Card, tmp_path: Path) -> None:
    whole = run(card, tmp_path, work=tmp_path / "undisturbed").results
    (tmp_path / "toy.json").unlink()
    code = (
        "from graftwork.core.cards import Card; from graftwork.claims.reproduction import reproduce_card;card = "
        "Card(slug='toy', title='', year=0, room='merging', kind='method', summary='', claim='c', "
        f"recipe={card.recipe!r});reproduce_card(card, work={str(tmp_path / 'work')!r}, out={str(tmp_path / 'toy.json')!r}, "
        "workers=2)"
    )
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TOY_PAUSE": "1.5"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    deadline = time.monotonic() + 600
    while not list((tmp_path / "work").glob("done/*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "toy.json").exists()
    finished = len(list((tmp_path / "work").glob("done/*.json")))
    assert 0 < finished < 6
    time.sleep(3)  # workers of the killed parent end after their job at the latest
    finished = len(list((tmp_path / "work").glob("done/*.json")))
    with pytest.raises(ConfigError, match=rf"holds {finished} finished jobs of this very recipe.*--resume"):
        run(card, tmp_path)
    assert len(list((tmp_path / "work").glob("done/*.json"))) == finished, "hours of work, perhaps"
    assert run(card, tmp_path, resume=True).results == whole
    assert run(card, tmp_path).results == whole, "a run that ended is made again when asked for"


def test_other_code_does_not_resume(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(card, tmp_path)
    with pytest.raises(CheckpointError, match=r"another recipe, module or claim .* without --resume"):
        run(make_card(tmp_path, monkeypatch, gain="3.0"), tmp_path, resume=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_undeclared_access_stops_the_run(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    with pytest.raises(AccessError, match="asked for target labels but declares access to nothing"):
        run(make_card(tmp_path, monkeypatch, settings="{'asks': ['target_labels']}"), tmp_path, workers=workers)


def test_unequal_budgets_give_no_verdict(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BudgetError, match="steps, seed 0: base 10, mine 20"):
        run(make_card(tmp_path, monkeypatch, settings="{'steps': 20}"), tmp_path)
    assert not (tmp_path / "toy.json").exists()


def test_failing_arm_is_named(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GraftworkError, match=r"Arm 'mine', seed 0 failed with ZeroDivisionError: no luck"):
        run(make_card(tmp_path, monkeypatch, settings="{'fails': True}"), tmp_path, workers=1)
    assert [path.name for path in (tmp_path / "work" / "done").iterdir()] == ["base-0.json"]


def test_two_runs_do_not_share_a_folder(card: Card, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "work").mkdir()
    with open(tmp_path / "work" / "lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(GraftworkError, match=r"Another process is working in .*work\. .*--work"):
            run(card, tmp_path)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Content and time of change of everything below a folder."""
    paths = [folder, *folder.rglob("*")]
    return {str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in paths}


def test_a_work_folder_of_the_user_is_refused(card: Card, tmp_path: Path) -> None:
    work = tmp_path / "project"
    for name in ("shared", "jobs", "done"):
        (work / name).mkdir(parents=True)
        (work / name / "mine.txt").write_text("mine")
    (work / "state.json").write_text('{"window": [1, 2]}')
    before = snapshot(work)
    for resume in (False, True):
        with pytest.raises(ConfigError, match=r"project is not empty.*it holds done/, jobs/, shared/, state\.json.*--work"):
            run(card, tmp_path, work=work, resume=resume)
    assert snapshot(work) == before
    assert not (tmp_path / "log").exists()
    assert not (tmp_path / "toy.json").exists()


def test_results_behind_a_link_are_neither_removed_nor_taken_for_new_ones(card: Card, tmp_path: Path) -> None:
    run(card, tmp_path)
    work = tmp_path / "work"
    (work / "done").rename(tmp_path / "elsewhere")
    (work / "done").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"done is a link\. .* holds none"):
        run(card, tmp_path)
    assert len(list((tmp_path / "elsewhere").iterdir())) == 6


def test_a_work_folder_from_before_it_named_its_format_goes_on(card: Card, tmp_path: Path) -> None:
    whole = run(card, tmp_path).results
    state = tmp_path / "work" / "state.json"
    stored = json.loads(state.read_text(encoding="utf-8"))
    assert stored.pop("format") == "graftwork-reproduction-1"
    assert stored.pop("ended")
    state.write_text(json.dumps(stored), encoding="utf-8")
    (tmp_path / "log").unlink()
    assert run(card, tmp_path, resume=True).results == whole
    assert "mine-0" not in (log_of(tmp_path) if (tmp_path / "log").exists() else [])


@pytest.mark.parametrize("content", ["a paper", '{"format": "other"}', "[]"])
def test_a_file_that_is_not_evidence_is_not_replaced(card: Card, tmp_path: Path, content: str) -> None:
    (tmp_path / "mine.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.json is not evidence.*--out"):
        run(card, tmp_path, out=tmp_path / "mine.json")
    assert (tmp_path / "mine.json").read_text(encoding="utf-8") == content
    with pytest.raises(ConfigError, match=r"is a folder\. Name the file to write with --out"):
        run(card, tmp_path, out=tmp_path)
    assert not (tmp_path / "log").exists()
    assert not (tmp_path / "work").exists()


def test_seeds_are_chosen_predictably(card: Card) -> None:
    recipe = load_recipe(card.recipe, "toy")
    assert choose_seeds(recipe, smoke=False, number=None) == (0, 1, 2)
    assert choose_seeds(recipe, smoke=False, number=2) == (0, 1)
    assert choose_seeds(recipe, smoke=False, number=5) == (0, 1, 2, 3, 4)
    assert choose_seeds(recipe, smoke=True, number=None) == (0,)
    assert choose_looks(recipe, 2) == (3,)
    assert choose_looks(recipe, 5) == (3, 5)
    with pytest.raises(ConfigError, match="--seeds 4 adds a look"):
        choose_looks(recipe, 4)
    with pytest.raises(ConfigError, match="at least 1; got 0"):
        choose_seeds(recipe, smoke=False, number=0)


def test_unknown_and_planned_systems_are_explained() -> None:
    with pytest.raises(ConfigError, match=r"no system 'rep-mlt'. Nearest: rep-mtl"):
        reproduce("rep-mlt")
    with pytest.raises(GraftworkError, match=r"'gpipe' is planned"):
        reproduce_card(Card(slug="gpipe", title="", year=0, room="scaling", kind="method", summary="", claim=""))


def test_recipes_belong_to_their_card(card: Card) -> None:
    with pytest.raises(ConfigError, match=r"is that of 'toy', but the card is 'other'"):
        load_recipe(card.recipe, "other")
    with pytest.raises(ConfigError, match=r"'json' has no constant RECIPE"):
        load_recipe("json", "toy")
