"""A run goes on with what it began with: other settings and changed data are said, never passed over."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pandas")
pytest.importorskip("torch")

import pandas as pd

from graftwork.cli.main import main
from graftwork.core.components import components_allowed
from graftwork.core.errors import ConfigError, DataError
from graftwork.workflows.compare import compare
from graftwork.workflows.fit import fit

from .conftest import linear_plan, linear_suite  # type: ignore[import-not-found]


def table() -> Any:
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(draw.normal(size=(80, 3)), columns=list("abc"))
    return frame.assign(price=frame["a"] * 2 + draw.normal(size=80))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ``fit`` on ``table.csv``, scheduled and not yet trained, and a finished comparison."""
    folder = tmp_path_factory.mktemp("begun")
    table().to_csv(folder / "table.csv", index=False)
    fit(
        folder / "table.csv",
        targets="price",
        steps=4,
        seeds=5,
        folds=0,
        plans=["separate"],
        dry_run=True,
        workers=0,
        out=folder / "run",
    )
    with pytest.MonkeyPatch.context() as patch, components_allowed("fake_learners"):
        patch.syspath_prepend(str(Path(__file__).parent))
        plans = ["none", linear_plan("alone", "reference"), linear_plan("together", "joint")]
        compare(linear_suite(), plans=plans, steps=4, seeds=1, workers=0, out=folder / "compared", progress=False)
    return folder


@pytest.fixture
def place(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = Path(shutil.copytree(begun, tmp_path / "place"))
    state = json.loads((copy / "run" / "run.json").read_text())
    state["settings"]["source"] = str(copy / "table.csv")
    (copy / "run" / "run.json").write_text(json.dumps(state))
    monkeypatch.chdir(copy)
    return copy


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--seeds", "3"], "seeds: the run has 5, you gave 3"),  # 3 is what a run has without the flag
        (["--seed", "7"], "seed: the run has 0, you gave 7"),
        (["--preset", "best"], "preset: the run has 'good', you gave 'best'"),
        (["--targets", "a"], "targets: the run has ['price'], you gave ['a']"),
        (["--no-refit"], "refit: the run has True, you gave False"),
        (["--keep", "chosen"], "keep: the run has 'finalists', you gave 'chosen'"),
        (["--set", "learning_rate=0.1"], "overrides: the run has {}, you gave {'learning_rate': 0.1}"),
        (["--strict"], "strict: the run has False, you gave True"),
    ],
)
def test_flags_that_would_not_be_applied_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    before = (place / "run" / "run.json").read_bytes()
    assert main(["fit", "--resume", "run", *flags]) == 2
    assert words in capsys.readouterr().err
    assert (place / "run" / "run.json").read_bytes() == before


def test_what_is_equal_or_may_change_is_taken(place: Path) -> None:
    words = ["fit", "--resume", "run", "--seeds", "5", "--seed", "0", "--prefer", "score", "--targets", "price", "--workers", "0"]
    assert main([*words, "--time-limit", "7m", "--dry-run", "--quiet"]) == 0
    state = json.loads((place / "run" / "run.json").read_text())
    assert state["settings"]["time_limit"] == 420.0, "the next resume has this limit, too"


def test_a_table_that_changed_is_refused_where_it_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table().assign(a=0.0).to_csv("table.csv", index=False)
    assert main(["fit", "table.csv", "--resume", "run", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert "The data of the run in run has changed since it was read: table.csv" in said
    assert "--out" in said
    assert "--resume run alone" in said


def test_a_table_that_was_written_to_is_said_and_not_read_where_it_is_not_named(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    plain = io.open

    def checked(file: Any, *more: Any, **settings: Any) -> Any:
        assert Path(str(file)).name != "table.csv"
        return plain(file, *more, **settings)

    events: list[dict[str, Any]] = []
    fit(out="run", resume=True, dry_run=True, workers=0, on_event=events.append, progress=False)
    assert "data_changed" not in [event["event"] for event in events]
    table().assign(a=0.0).to_csv("table.csv", index=False)
    monkeypatch.setattr("builtins.open", checked)
    fit(out="run", resume=True, dry_run=True, workers=0, on_event=events.append, progress=False)
    assert [event["files"] for event in events if event["event"] == "data_changed"] == [["table.csv"]]
    (place / "table.csv").unlink()
    fit(out="run", resume=True, dry_run=True, workers=0, progress=False)


def test_another_table_is_refused_by_its_name(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table().to_csv("other.csv", index=False)
    assert main(["fit", "other.csv", "--resume", "run", "--dry-run"]) == 2
    assert "you gave 'other.csv'" in capsys.readouterr().err


def test_objects_handed_in_are_compared_as_well(place: Path, fake_learners: None) -> None:
    again = compare(linear_suite(), out="compared", resume=True, plans=["none"], workers=0, progress=False)
    assert again.result["leaderboard"]
    with pytest.raises(DataError, match="has changed since it was read: suite"):
        compare(linear_suite(seed=1), out="compared", resume=True, workers=0, progress=False)
    plans = ["none", linear_plan("alone", "reference"), linear_plan("together", "joint", rate=0.9)]
    with pytest.raises(ConfigError, match="other plan records"):
        compare(out="compared", resume=True, plans=plans, workers=0, progress=False)
    for name, value, words in (("seeds", 3, "seeds: the run has 1, you gave 3"), ("max_groups", 2, "max-groups: the run has 3")):
        with pytest.raises(ConfigError, match=words):
            compare(out="compared", resume=True, workers=0, progress=False, **{name: value})


def test_a_frame_that_changed_is_refused(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"targets": "price", "steps": 4, "folds": 0, "plans": ["separate"], "dry_run": True, "workers": 0}
    fit(table(), out=tmp_path / "run", **fields)
    fit(table(), out=tmp_path / "run", resume=True, **fields)
    with pytest.raises(DataError, match="has changed since it was read: DataFrame"):
        fit(table().assign(b=1.0), out=tmp_path / "run", resume=True, **fields)


def test_another_limit_for_a_finished_run_is_refused(place: Path) -> None:
    state = json.loads((place / "run" / "run.json").read_text())
    (place / "run" / "run.json").write_text(json.dumps(state | {"state": "done"}))
    with pytest.raises(ConfigError, match="time-limit: the run is finished"):
        fit(out="run", resume=True, time_limit="9m", workers=0, progress=False)


@pytest.mark.parametrize("flags", [[], ["--resume"], ["--resume", "compared"]])
def test_an_old_run_without_its_marker_is_not_reported_as_a_new_one(
    place: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    (place / "compared" / "run.json").unlink()
    before = sorted(path.relative_to(place) for path in place.rglob("*"))
    assert main(["compare", "table.csv", "--targets", "price", "--plans", "none", "--out", "compared", *flags]) == 2
    said = capsys.readouterr()
    assert "compared is not empty and is not a run of graftwork" in said.err
    assert "report:" not in said.out
    assert sorted(path.relative_to(place) for path in place.rglob("*")) == before


def test_a_result_that_another_run_left_is_not_shown(place: Path, fake_learners: None) -> None:
    """An unfinished run says itself how far it is; a ``result.json`` in its folder does not make it finished."""
    old = json.loads((place / "compared" / "result.json").read_text())
    state = json.loads((place / "compared" / "run.json").read_text())
    (place / "compared" / "run.json").write_text(json.dumps(state | {"state": "scheduled"}))
    (place / "compared" / "result.json").write_text(json.dumps(old | {"created": "1999-01-01T00:00:00+00:00"}))
    again = compare(out="compared", resume=True, workers=0, progress=False, allow_components="fake_learners")
    assert again.result["created"] > "2000"
