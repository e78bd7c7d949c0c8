from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.data.suites import load_embedded
from graftwork.data.suites.glyphs import glyphs

SMALL = {"num_train": 60, "num_val": 10, "num_test": 30}


def test_sizes_and_kinds_are_those_asked_for() -> None:
    suite = glyphs(**SMALL, num_classes=7, size=12)
    assert {name: len(rows) for name, rows in suite.splits.items()} == {"train": 60, "val": 10, "test": 30}
    assert suite.inputs["image"].shape == (100, 12, 12, 3)
    assert suite.inputs["image"].dtype == np.uint8
    assert suite.tasks[0].size == 7
    assert set(suite.targets["letter"]) <= set(range(7))


def test_equal_seeds_give_equal_bits_and_others_another_alphabet() -> None:
    one, two, other = (load_embedded("glyphs", **SMALL, seed=seed) for seed in (1, 1, 2))
    assert one.fingerprint() == two.fingerprint()
    assert one.fingerprint() != other.fingerprint()


def test_without_jitter_and_noise_a_letter_has_one_shape() -> None:
    suite = glyphs(**SMALL, num_classes=3, jitter=0.0, noise=0.0, clutter=0, seed=0)
    pictures, letters = suite.inputs["image"][..., 0].reshape(100, -1).astype(np.float64), suite.targets["letter"]
    likeness = np.corrcoef(pictures)
    same = letters[:, None] == letters[None]
    assert likeness[same].min() > 0.9 > likeness[~same].max()


def test_letters_of_a_family_are_more_alike_than_others() -> None:
    suite = glyphs(num_train=400, num_val=0, num_test=1, num_classes=8, jitter=0.0, noise=0.0, clutter=0, seed=3)
    pictures, letters = suite.inputs["image"][..., 0].reshape(401, -1).astype(np.float64), suite.targets["letter"]
    means = np.corrcoef(np.stack([pictures[letters == letter].mean(axis=0) for letter in range(8)]))
    family = np.arange(8) // 4
    inside = (family[:, None] == family[None]) & ~np.eye(8, dtype=bool)
    assert means[inside].mean() > means[family[:, None] != family[None]].mean() + 0.1


def test_jitter_noise_and_clutter_make_pictures_differ() -> None:
    plain = {"jitter": 0.0, "noise": 0.0, "clutter": 0}
    for change in ({"jitter": 1.0}, {"noise": 0.2}, {"clutter": 2}):
        pictures = glyphs(**SMALL, **{**plain, **change}, num_classes=2).inputs["image"]  # type: ignore[arg-type]
        assert len(np.unique(pictures.reshape(100, -1), axis=0)) == 100


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        glyphs(num_train=0, num_classes=1, size=4, noise=-0.1, clutter=-1)
    assert len(caught.value.problems) == 5
    assert "num_train must be at least 1; got 0" in str(caught.value)
