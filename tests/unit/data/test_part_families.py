from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.data.suites.part_families import FAMILIES, MAX_CLASSES, SIZE, STOCK, class_parts, part_family


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_and_kinds_are_those_asked_for_and_equal_seeds_give_equal_bits(family: str) -> None:
    suite, again, other = (part_family(family, num_classes=5, num_train=60, num_test=30, seed=seed) for seed in (1, 1, 2))
    assert {name: len(rows) for name, rows in suite.splits.items()} == {"train": 60, "test": 30}
    assert suite.inputs["image"].shape == (90, SIZE, SIZE, 3)
    assert suite.inputs["image"].dtype == np.uint8
    assert set(suite.targets["class"]) == set(range(5))
    assert suite.fingerprint() == again.fingerprint() != other.fingerprint()
    # No picture twice, and none without ink: they vary more than the paper does.
    assert len(np.unique(suite.inputs["image"].reshape(90, -1), axis=0)) == 90
    clean = part_family(family, num_classes=5, num_train=60, num_test=30, noise=0.0, seed=1).inputs["image"].mean(axis=3)
    assert clean.reshape(90, -1).std(axis=1).min() > 3.0


def test_ranges_of_classes_share_parts_and_no_class() -> None:
    source, target = (class_parts(count, skip=skip, seed=4, family="icons") for count, skip in ((8, 0), (12, 8)))
    sets = {tuple(row) for row in np.concatenate([source, target]).tolist()}
    assert len(sets) == 20
    assert all(len(set(row)) == 3 for row in sets)
    assert len(np.intersect1d(source, target)) >= 6
    assert set(class_parts(MAX_CLASSES, skip=0, seed=4, family="icons").ravel()) == set(range(STOCK))
    assert not np.array_equal(source, class_parts(8, skip=0, seed=5, family="icons"))
    assert not np.array_equal(source, class_parts(8, skip=0, seed=4, family="spots"))


def test_a_picture_shows_the_three_parts_of_its_class_in_three_quarters() -> None:
    pictures = part_family("rosettes", num_classes=6, num_train=50, num_test=1, noise=0.0, seed=3).inputs["image"].mean(axis=3)
    half = SIZE // 2
    spread = pictures.reshape(51, 2, half, 2, half).transpose(0, 1, 3, 2, 4).reshape(51, 4, -1).std(axis=2)
    assert ((spread > 0.5).sum(axis=1) == 3).all()
    # The empty quarter is any of them.
    assert len(np.unique(spread.argmin(axis=1))) == 4


def test_suites_of_a_family_are_drawn_with_the_same_stock() -> None:
    """The quarters of two suites without a common class are more alike than those of two families."""

    def quarters(family: str, skip: int) -> np.ndarray:
        pictures = part_family(family, num_classes=12, skip=skip, num_train=200, num_test=1, noise=0.0, seed=6).inputs["image"]
        half = SIZE // 2
        parts = (
            pictures[..., 0].reshape(-1, 2, half, 2, half).transpose(0, 1, 3, 2, 4).reshape(-1, half * half).astype(np.float64)
        )
        shown = parts[parts.std(axis=1) > 0.5]
        shown = shown - shown.mean(axis=1, keepdims=True)
        return shown / np.linalg.norm(shown, axis=1, keepdims=True)

    first = quarters("icons", 0)
    same, other = ((first @ quarters(family, 12).T).max(axis=1).mean() for family in ("icons", "gratings"))
    assert same > 0.9
    assert other < same - 0.1


def test_every_family_has_a_paint_of_its_own() -> None:
    contrasts = []
    for family in FAMILIES:
        pictures = part_family(family, num_train=100, num_test=1, noise=0.0, seed=2).inputs["image"]
        spread = pictures.reshape(101, -1, 3).std(axis=1).mean(axis=0)
        # The other channels show the paper alone.
        assert np.logical_xor(spread > 5.0, spread < 1.0).all()
        contrasts.append(tuple(spread > 5.0))
    assert len(set(contrasts)) == len(FAMILIES)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        part_family("letters", num_classes=1)
    assert len(caught.value.problems) == 2
    assert "strokes, spots" in str(caught.value)
    with pytest.raises(ConfigError, match="120 classes"):
        part_family("icons", num_classes=8, skip=MAX_CLASSES - 7)
    for change in ({"num_train": 0}, {"num_test": 0}, {"noise": -0.1}):
        with pytest.raises(ConfigError, match="at least 1 picture"):
            part_family("icons", **change)  # type: ignore[arg-type]
