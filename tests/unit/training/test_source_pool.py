"""Pool and transfer table: cached, resumable, checked when read, made again on demand, and judged by rank correlation."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import read_json, write_json
from graftwork.data.suites.glyph_styles import SIZE, SOURCES, STYLES, TARGETS, GlyphDomain, draw_domain
from graftwork.nn.backbones.cnn import ConvBackbone
from graftwork.training.source_pool import table as table_module
from graftwork.training.source_pool.fitting import Classifier
from graftwork.training.source_pool.lessons import changed_views, fit_lesson, pair_loss
from graftwork.training.source_pool.members import POOL, pool_members, pool_names
from graftwork.training.source_pool.settings import PoolSettings
from graftwork.training.source_pool.table import audit_table, build_table

SMALL = PoolSettings(
    source_rows=60,
    target_rows=30,
    test_rows=40,
    source_steps=4,
    tune_steps=3,
    packaged=False,
    members=("plain", "inverted", "untrained"),
    targets=("new-plain", "new-inverted"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pool")
    build_table(SMALL, place)
    return place


def test_domains_share_styles_and_no_alphabet() -> None:
    plain = draw_domain(GlyphDomain(name="a"), num_train=30, num_test=5)
    inverted = draw_domain(GlyphDomain(name="a", style="inverted"), num_train=30, num_test=5)
    np.testing.assert_array_equal(255 - np.asarray(plain.inputs["image"]), inverted.inputs["image"])
    other = draw_domain(GlyphDomain(name="b"), num_train=30, num_test=5)
    assert not np.array_equal(plain.inputs["image"], other.inputs["image"])
    shuffled = draw_domain(GlyphDomain(name="a", shuffled=True), num_train=30, num_test=5)
    np.testing.assert_array_equal(shuffled.inputs["image"], plain.inputs["image"])
    assert not np.array_equal(shuffled.targets["letter"], plain.targets["letter"])
    for style in STYLES:
        drawn = np.asarray(draw_domain(GlyphDomain(name="a", style=style), num_train=30, num_test=5).inputs["image"])
        assert drawn.dtype == np.uint8
        assert drawn.std() > 5
    names = [domain.name for domain in (*SOURCES, *TARGETS)]
    assert len(set(names)) == len(names)
    with pytest.raises(ConfigError, match="no style"):
        draw_domain(GlyphDomain(name="a", style="odd"), num_train=30, num_test=5)


def test_a_second_call_reads_everything_and_a_lost_row_is_made_alone(folder: Path) -> None:
    first = build_table(SMALL, folder)
    said: list[str] = []
    again = build_table(SMALL, folder, on_progress=lambda done, rows, what: said.append(what))
    assert said == []
    np.testing.assert_array_equal(first.fine_tuned, again.fine_tuned)
    rows = sorted((folder / "rows").rglob("*.json"))
    assert len(rows) == 6
    rows[0].unlink()
    damaged = read_json(rows[1])
    rows[1].write_text(json.dumps({**damaged, "fine_tuned": 1.0}))
    rows[2].write_text("{")
    mended = build_table(SMALL, folder, on_progress=lambda done, count, what: said.append(what))
    assert len(said) == 3
    np.testing.assert_array_equal(first.fine_tuned, mended.fine_tuned)
    np.testing.assert_array_equal(first.probed, mended.probed)
    assert ((first.fine_tuned >= 0) & (first.fine_tuned <= 1)).all()


def test_rows_come_out_again_and_predictions_are_kept(folder: Path) -> None:
    table = build_table(SMALL, folder)
    audits = audit_table(table, rows=2, seed=1)
    assert len(audits) == 2
    assert all(item.agrees and item.stored == item.again for item in audits)
    labels = draw_domain(TARGETS[0], num_train=30, num_test=40)
    wanted = np.asarray(labels.targets["letter"])[labels.splits["test"]]
    answers = table.predictions("new-plain", "plain").argmax(axis=1)
    assert (answers == wanted).mean() == table.fine_tuned[table.targets.index("new-plain"), table.sources.index("plain")]


def test_members_are_what_was_trained(folder: Path, tmp_path: Path) -> None:
    member = pool_members("plain", SMALL, folder / "members")
    suite = draw_domain(SOURCES[0], num_train=60, num_test=10)
    features = member.features(np.asarray(suite.inputs["image"]))
    probabilities = member.probabilities(features)
    assert probabilities is not None
    assert probabilities.shape == (len(suite), 20)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
    facts = member.facts()
    assert facts.features is not None
    assert facts.labels is not None
    assert len(facts.features) == len(facts.labels) == 60
    assert pool_members("untrained", SMALL, tmp_path).probabilities(features) is None
    elsewhere = pool_members("plain", SMALL, tmp_path)
    assert elsewhere.fingerprint() == member.fingerprint(), "training repeats bit for bit"
    (file,) = tmp_path.glob("plain-*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(FileFormatError, match="damaged"):
        pool_members("plain", SMALL, tmp_path)


def test_members_without_labels_learn_from_pictures_alone(tmp_path: Path) -> None:
    lessons = {source.lesson for source in POOL}
    assert lessons == {"labels", "turns", "views"}
    assert len({source.name for source in POOL}) == len(POOL)
    images = np.asarray(draw_domain(SOURCES[0], num_train=40, num_test=1).inputs["image"])
    states = []
    for labels in (np.zeros(len(images), np.int64), np.arange(len(images)) % 4):
        for lesson, width in (("turns", 4), ("views", 64)):
            torch.manual_seed(0)
            model = Classifier(ConvBackbone(SIZE, channels=(8, 8, 8, 8)), width)
            before = model.backbone.stem.weight.detach().clone()  # type: ignore[union-attr]
            fit_lesson(model, lesson, images, labels, steps=2, rate=1e-3, seed=0)  # type: ignore[arg-type]
            after = model.backbone.stem.weight.detach()  # type: ignore[union-attr]
            assert not torch.equal(before, after)
            states.append(after.clone())
    assert torch.equal(states[0], states[2]), "labels are not looked at"
    assert torch.equal(states[1], states[3])
    member = pool_members("plain-turns", SMALL, tmp_path)
    assert member.probabilities(member.features(images)) is None
    assert member.facts().labels is None
    assert member.facts().mean is not None


def test_views_of_one_picture_are_told_from_others() -> None:
    images = np.asarray(draw_domain(SOURCES[0], num_train=20, num_test=1).inputs["image"])
    first, second = (changed_views(images, np.random.default_rng(seed)) for seed in (0, 1))
    assert first.shape == images.shape
    assert first.dtype == np.uint8
    assert not np.array_equal(first, second)
    rows = torch.eye(6)
    # Partners agree and all others are orthogonal: e^5 against nine others.
    assert pair_loss(rows, rows).item() == pytest.approx(np.log(1 + 10 * np.exp(-5.0)), rel=1e-4)
    assert pair_loss(rows, rows.flip(0)) > pair_loss(rows, rows)


def test_settings_and_names_are_checked() -> None:
    with pytest.raises(ConfigError, match="target_rows"):
        PoolSettings(target_rows=3)
    with pytest.raises(ConfigError, match="no generated source"):
        pool_names(dataclasses.replace(SMALL, members=("plain", "nothing")))
    with pytest.raises(ConfigError, match="no target"):
        build_table(dataclasses.replace(SMALL, targets=("nothing",)), Path("unused"))
    assert SMALL.row_key() != dataclasses.replace(SMALL, tune_steps=4).row_key()
    assert SMALL.row_key() == dataclasses.replace(SMALL, members=("plain",)).row_key(), "rows do not depend on the others"


def test_a_changed_result_is_seen(folder: Path) -> None:
    from graftwork.workflows.rank.trust import judge_scores

    table = build_table(SMALL, folder)
    found = judge_scores(table, ["logme", "leep", "probe"])
    titles = {line["name"]: line for line in found["scores"]}
    assert "leep" not in titles, "two sources with classes are too few"
    assert titles["logme"]["low"] <= titles["logme"]["tau"] <= titles["logme"]["high"]
    assert len([point for point in found["points"] if point["title"] == "LogME"]) == 6
    wrong = dataclasses.replace(table, fine_tuned=table.fine_tuned + 0.5)
    assert not any(item.agrees for item in audit_table(wrong, rows=1))


def test_a_stale_table_is_refused_and_a_sound_one_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graftwork.cli.main import main
    from graftwork.workflows.rank import trust

    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path))
    monkeypatch.setattr(trust, "TABLE_SIZES", {"full": SMALL})
    assert main(["rank", "--transfer-table", "--scores", "logme,knn", "--quiet"]) == 0
    assert trust.known_agreement(["image"])["sources"] == list(SMALL.members)
    assert trust.known_agreement(["text"]) == {}
    assert main(["rank", "rows.csv", "--transfer-table"]) == 2
    for path in (tmp_path / "transfer-table" / "full" / "rows").rglob("*.json"):
        row = read_json(path)
        row["fine_tuned"] = 0.99
        row["sha256"] = table_module._digest(row)
        write_json(path, row)
    with pytest.raises(FileFormatError, match="stale"):
        trust.transfer_table(scores="logme")
