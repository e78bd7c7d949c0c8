"""The pool of tables: related generated tasks, members that are kept and checked, and its transfer table, made by the same command."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from graftwork.cli.main import main
from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import read_json
from graftwork.training.source_pool.table import audit_table, build_table
from graftwork.training.source_pool.table_pool import TablePoolSettings, table_member, table_names
from graftwork.training.source_pool.table_tasks import COLUMNS, SOURCE_TABLES, TARGET_TABLES, draw_table
from graftwork.workflows.rank import trust

SMALL = TablePoolSettings(
    width=16,
    source_rows=200,
    target_rows=40,
    test_rows=60,
    source_steps=20,
    tune_steps=5,
    members=("all", "first", "last", "untrained"),
    targets=("new-first", "new-last"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pool")
    build_table(SMALL, place)
    return place


def test_tables_of_a_world_share_concepts_and_no_readout() -> None:
    names = [task.name for task in (*SOURCE_TABLES, *TARGET_TABLES)]
    assert len(set(names)) == len(names)
    first = next(task for task in SOURCE_TABLES if task.name == "first")
    rows, labels = draw_table(first, num_train=300, num_test=20)
    again = draw_table(first, num_train=300, num_test=20)
    np.testing.assert_array_equal(rows, again[0])
    np.testing.assert_array_equal(labels, again[1])
    assert (rows.shape, rows.dtype, labels.dtype) == ((320, COLUMNS), np.float32, np.int64)
    assert np.bincount(labels, minlength=6).min() > 10, "no class wins nearly everywhere"
    few = dataclasses.replace(first, share=0.1)
    assert len(draw_table(few, num_train=300, num_test=20)[0]) == 50
    shuffled = draw_table(dataclasses.replace(first, shuffled=True), num_train=300, num_test=20)
    np.testing.assert_array_equal(shuffled[0], rows)
    assert (shuffled[1] != labels).mean() > 0.5
    np.testing.assert_array_equal(np.bincount(shuffled[1]), np.bincount(labels))
    other = draw_table(dataclasses.replace(first, world=1), num_train=300, num_test=20)
    np.testing.assert_array_equal(other[0], rows)
    assert (other[1] != labels).mean() > 0.5


def test_a_second_call_reads_everything_and_a_lost_row_is_made_alone(folder: Path) -> None:
    first = build_table(SMALL, folder)
    said: list[str] = []
    again = build_table(SMALL, folder, on_progress=lambda done, rows, what: said.append(what))
    assert said == []
    np.testing.assert_array_equal(first.fine_tuned, again.fine_tuned)
    rows = sorted((folder / "rows").rglob("*.json"))
    assert len(rows) == 8
    rows[0].unlink()
    rows[1].write_text("{")
    mended = build_table(SMALL, folder, on_progress=lambda done, count, what: said.append(what))
    assert len(said) == 2
    np.testing.assert_array_equal(first.fine_tuned, mended.fine_tuned)
    np.testing.assert_array_equal(first.probed, mended.probed)
    audits = audit_table(first, rows=2, seed=1)
    assert all(item.agrees and item.stored == item.again for item in audits)
    labels = first.rows("new-first").labels[first.rows("new-first").test]
    answers = first.predictions("new-first", "all").argmax(axis=1)
    assert (answers == labels).mean() == first.fine_tuned[0, 0]


def test_members_are_what_was_trained_and_damage_is_seen(folder: Path, tmp_path: Path) -> None:
    member = table_member("first", SMALL, folder / "members")
    assert table_member("first", SMALL, tmp_path).fingerprint() == member.fingerprint(), "training repeats bit for bit"
    rows = draw_table(SOURCE_TABLES[1], num_train=30, num_test=1)[0]
    probabilities = member.probabilities(member.features(rows))
    assert probabilities is not None
    assert probabilities.shape == (31, 6)
    facts = member.facts()
    assert facts.features is not None
    assert facts.labels is not None
    assert facts.features.shape == (len(facts.labels), 16)
    bare = table_member("untrained", SMALL, tmp_path)
    assert (bare.probabilities(bare.features(rows)), bare.facts().features) == (None, None)
    (file,) = tmp_path.glob("first-*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(FileFormatError, match="damaged"):
        table_member("first", SMALL, tmp_path)


def test_what_a_source_learned_shows_on_related_targets_only(tmp_path: Path) -> None:
    settings = TablePoolSettings(
        source_rows=1500, source_steps=150, target_rows=100, test_rows=400, tune_steps=1,
        members=("first", "last", "shuffled"), targets=("new-first", "new-last"),
    )  # fmt: skip
    probed = build_table(settings, tmp_path).probed
    assert probed[0, 0] > probed[0, 1] + 0.03
    assert probed[1, 1] > probed[1, 0] + 0.03
    assert probed[0, 0] > probed[0, 2] + 0.03


def test_settings_and_names_are_checked() -> None:
    with pytest.raises(ConfigError, match="target_rows"):
        TablePoolSettings(target_rows=3)
    with pytest.raises(ConfigError, match="no generated source 'nothing'"):
        table_names(dataclasses.replace(SMALL, members=("nothing",)))
    with pytest.raises(ConfigError, match="no generated target 'nothing'"):
        table_names(dataclasses.replace(SMALL, targets=("nothing",)))
    assert SMALL.row_key() != dataclasses.replace(SMALL, tune_steps=4).row_key()
    assert SMALL.row_key() == dataclasses.replace(SMALL, members=("first",)).row_key(), "rows do not depend on the others"
    assert SMALL.key() == dataclasses.replace(SMALL, tune_steps=4).key()


def test_the_command_judges_scores_and_reports_of_tables_show_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path))
    monkeypatch.setattr(trust, "TABLE_SIZES", {"tables": SMALL})
    assert main(["rank", "--transfer-table", "tables", "--scores", "logme,leep,knn", "--quiet"]) == 0
    told = capsys.readouterr().out
    place = tmp_path / "transfer-table" / "tables"
    assert str(place / "report.html") in told
    found = read_json(place / "agreement.json")
    lines = {line["name"]: line for line in found["scores"]}
    assert set(lines) == {"logme", "leep", "knn"}
    assert lines["leep"]["sources"] == 3, "the untrained one has no classes"
    assert all(line["low"] <= line["tau"] <= line["high"] for line in lines.values())
    page = (place / "report.html").read_text(encoding="utf-8")
    for words in ('"agreement"', '"score-truth"', "After fine-tuning", "weighted Kendall tau", "Made again and found equal"):
        assert words in page
    assert trust.known_agreement(["table"])["sources"] == list(SMALL.members)
    assert trust.known_agreement(["image"]) == {}
    assert main(["rank", "--transfer-table", "tables", "--scores", "logme", "--quiet", "--out", str(tmp_path / "own")]) == 0
    assert (tmp_path / "own" / "report.html").exists()
