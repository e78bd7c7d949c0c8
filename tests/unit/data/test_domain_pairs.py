from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.data.suite import Suite
from graftwork.data.suites.domain_pairs import rotated_moons, textured_digits


def test_source_and_target_digits_are_disjoint() -> None:
    suite = textured_digits(copies=2, num_emoji=20)
    assert suite.groups is not None
    originals = [set(suite.groups[rows].tolist()) for rows in suite.splits.values()]
    assert sum(map(len, originals)) == len(set.union(*originals)) == 1797
    assert len(suite) == 2 * 1797
    assert list(suite.splits) == ["train", "val", "target", "test"]


def test_only_the_target_has_textures() -> None:
    suite = textured_digits(copies=1, num_emoji=20)
    pictures, domain = suite.inputs["image"].astype(int), suite.domain
    assert pictures.shape[1:] == (12, 12, 3)
    assert domain is not None
    assert suite.domains == ("plain", "textured")
    assert [set(domain[rows].tolist()) for rows in suite.splits.values()] == [{0}, {0}, {1}, {1}]
    is_grey = (pictures == pictures[..., :1]).all(axis=(1, 2, 3))
    assert bool(is_grey[domain == 0].all())
    assert float(is_grey[domain == 1].mean()) < 0.1, "artwork has colours; few crops are white or grey"
    ground = pictures[domain == 0][:, 0, 0, 0]
    assert float((ground == 0).mean()) > 0.7, "plain digits stand on black"


def test_a_textured_digit_is_the_difference_of_texture_and_digit() -> None:
    whole, dark = (textured_digits(copies=1, num_emoji=20, brightness=brightness) for brightness in (1.0, 1e-6))
    rows = whole.splits["target"]
    digits = dark.inputs["image"][rows].astype(int)  # textures without any light leave the digit
    textured = whole.inputs["image"][rows].astype(int)
    assert int(np.ptp(digits, axis=-1).max()) <= 1, "grey, but for rounding"
    black, white = (digits == 0).all(axis=-1), (digits == 255).all(axis=-1)
    assert black.any()
    assert white.any()
    assert textured[black].mean() > textured[white].mean(), "light grounds turn dark under a white stroke"


def test_equal_seeds_give_equal_pairs() -> None:
    one, same, other = (textured_digits(copies=1, num_emoji=20, seed=seed).fingerprint() for seed in (1, 1, 2))
    assert one == same != other
    assert rotated_moons(seed=1).fingerprint() == rotated_moons(seed=1).fingerprint() != rotated_moons(seed=2).fingerprint()


def test_the_target_moons_are_turned_by_the_angle() -> None:
    upright, turned = (rotated_moons(degrees=degrees, noise=0.0) for degrees in (0.0, 35.0))
    scale = _scale(upright)
    before, after = (suite.inputs["numeric"].astype(np.float64) * scale for suite in (upright, turned))
    source, target = upright.splits["train"], upright.splits["target"]
    np.testing.assert_array_equal(before[source], after[source])
    angle = np.angle((after[target] @ [1, 1j]) / (before[target] @ [1, 1j]))
    np.testing.assert_allclose(np.rad2deg(angle), 35.0, atol=0.01)


def _scale(upright: Suite) -> NDArray[np.float64]:
    # without noise the moons run over 3 and 1.5 units
    return np.asarray([3.0, 1.5] / np.ptp(upright.inputs["numeric"].astype(np.float64), axis=0))


def test_the_target_moons_are_other_points() -> None:
    suite = rotated_moons(degrees=0.0)
    drawn = [{tuple(point) for point in suite.inputs["numeric"][rows].tolist()} for rows in suite.splits.values()]
    assert sum(map(len, drawn)) == len(set.union(*drawn)) == len(suite)


def test_arguments_out_of_range_are_refused() -> None:
    for wrong in ({"copies": 0}, {"num_emoji": 3}, {"brightness": 0.0}):
        with pytest.raises(ConfigError):
            textured_digits(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        rotated_moons(noise=-1.0)
