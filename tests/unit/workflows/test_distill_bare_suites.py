"""``distill`` of a ``suite.yaml`` whose data sets have no labels, or whose labels are put away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import graftwork as gw
from graftwork.core.errors import ConfigError, DataError
from graftwork.data.options import DataOptions
from graftwork.data.reading.source_hashes import source_hashes
from graftwork.data.store import load_suite
from graftwork.workflows.distill.bare_data import open_bare

BARE = """\
name: shop
mixing: uniform
datasets:
  - {name: web, source: web.csv, targets: {}, domain: online}
  - {name: phone, source: phone.csv, targets: {}, ignore: [clerk]}
"""
NONE = DataOptions.of_user(targets="none")
SETTINGS: dict[str, Any] = {"steps": 30, "seeds": 1, "workers": 0, "progress": False, "overrides": {"batch_size": 16}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    web = pd.DataFrame(random.standard_normal((100, 2)).round(4), columns=["a", "b"])
    phone = pd.DataFrame(random.standard_normal((60, 2)).round(4), columns=["a", "c"]).assign(clerk=range(60))
    web.to_csv(tmp_path / "web.csv", index=False)
    phone.to_csv(tmp_path / "phone.csv", index=False)
    first = pd.concat([web["a"], phone["a"]], ignore_index=True)
    answers = pd.DataFrame({"row": np.arange(160), "kind": np.where(first > 0, "red", "blue"), "kind_probability": 0.9})
    answers.to_csv(tmp_path / "predictions.csv", index=False)
    (tmp_path / "suite.yaml").write_text(BARE)
    return tmp_path


def test_the_student_learns_what_teachers_answer_for_all_data_sets(folder: Path) -> None:
    file, out = folder / "suite.yaml", folder / "run"
    run = gw.distill(file, targets="none", teachers=str(folder / "predictions.csv"), out=out, **SETTINGS)
    assert run.result["labels"] == "none"
    assert run.result["suite"]["domains"] == ["online", "phone"]
    suite = load_suite(out / "suite")
    kinds = suite.task("kind").classes
    assert [kinds[index] for index in suite.targets["kind"]] == pd.read_csv(folder / "predictions.csv")["kind"].tolist()
    assert run.teachers[0]["agreement"]["kind"]["taught"]["value"] > 0.6
    # New rows need the columns of one data set, and no target.
    for name in ("web.csv", "phone.csv"):
        told = run.predict(folder / name)
        assert (told["kind"] == np.where(pd.read_csv(folder / name)["a"] > 0, "red", "blue")).mean() > 0.6
    again = gw.distill(file, targets="none", out=out, resume=True, **{**SETTINGS, "progress": False})
    assert again.result == run.result


def test_nothing_of_the_stand_in_stays(folder: Path) -> None:
    suite = open_bare(folder / "suite.yaml", NONE)
    assert (suite.tasks, dict(suite.targets), len(suite), suite.domains) == ((), {}, 160, ("online", "phone"))
    assert suite.domain is not None
    assert np.bincount(suite.domain).tolist() == [100, 60]
    assert sorted(np.concatenate([suite.splits[name] for name in ("train", "val", "test")]).tolist()) == list(range(160))
    assert "(no target)" not in repr((suite.notes, suite.input_specs, suite.raw["columns"], suite.raw.get("frame")))
    assert "Data sets: web (100 rows), phone (60 rows)." in suite.notes
    assert suite.raw["mixing"] == "uniform"
    assert dict(suite.sources) == source_hashes(folder / "suite.yaml", NONE)
    assert set(suite.sources) == {"suite.yaml", "web: web.csv", "phone: phone.csv"}


def test_labels_of_a_suite_file_are_put_away(folder: Path) -> None:
    (folder / "suite.yaml").write_text(BARE.replace("web.csv, targets: {}", "web.csv, targets: {b: regression}"))
    suite = open_bare(folder / "suite.yaml", NONE)
    assert (suite.tasks, dict(suite.targets), len(suite)) == ((), {}, 160)
    (spec,) = suite.input_specs.values()
    assert "'b'" not in repr(spec), "a target is no feature, whether it is asked for or not"


def test_folders_of_pictures_need_no_labels(folder: Path) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    for place, count in (("old", 24), ("new", 20)):
        (folder / place).mkdir()
        for number in range(count):
            Image.fromarray(random.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(folder / place / f"{number:02}.png")
    (folder / "new" / "labels.csv").write_text("name,site\n" + "".join(f"{number:02}.png,{number % 5}\n" for number in range(20)))
    (folder / "suite.yaml").write_text(
        "datasets:\n  - {source: old, targets: {}}\n  - {source: new, labels: new/labels.csv, targets: {}, group: site}\n"
    )
    suite = open_bare(folder / "suite.yaml", NONE)
    assert (suite.tasks, len(suite), suite.kinds) == ((), 44, ("image",))
    parts = [{row % 5 for row in suite.splits[split] - 24 if row >= 0} for split in ("train", "val", "test")]
    assert len(set.union(*parts)) == sum(map(len, parts)), "rows of a site stay together"


def test_what_the_file_says_is_not_said_again(folder: Path) -> None:
    with pytest.raises(DataError, match=r"suite\.yaml describes its own data, so group cannot be set beside it"):
        open_bare(folder / "suite.yaml", DataOptions.of_user(targets="none", group="a"))
    (folder / "suite.yaml").write_text(BARE.replace("web.csv", "wib.csv"))
    with pytest.raises(ConfigError, match=r"'wib\.csv' does not exist beside suite\.yaml"):
        open_bare(folder / "suite.yaml", NONE)


def test_without_the_flag_the_message_names_it(folder: Path) -> None:
    for call in (gw.fit, gw.distill):
        more: dict[str, Any] = {"teachers": str(folder / "predictions.csv")} if call is gw.distill else {}
        with pytest.raises(ConfigError, match="must name at least one target .*graftwork distill --targets none"):
            call(folder / "suite.yaml", out=folder / "out", steps=8, progress=False, **more)
