from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from graftwork.core.errors import ConfigError
from graftwork.data.suites import load_embedded
from graftwork.data.suites.multidigits import multidigits

SMALL = {"num_train": 300, "num_val": 60, "num_test": 120}


def test_no_digit_crosses_a_split() -> None:
    suite = multidigits(**SMALL)
    seen = {name: set(suite.raw["sources"][rows].ravel()) for name, rows in suite.splits.items()}
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["val"]
    assert not seen["val"] & seen["test"]
    assert {name: len(rows) for name, rows in suite.splits.items()} == {"train": 300, "val": 60, "test": 120}


def test_pictures_show_both_digits() -> None:
    suite, digits = multidigits(**SMALL), load_digits()
    assert suite.inputs["image"].shape == (480, 24, 24, 3)
    for row in (0, 77, 479):
        first, second = suite.raw["sources"][row]
        picture = suite.inputs["image"][row]
        assert np.array_equal(picture[..., 0], picture[..., 2])
        for source, corner, visible in ((first, 0, slice(0, 8)), (second, 8, slice(8, 16))):
            large = np.kron(np.round(digits.images[source] * 255 / 16), np.ones((2, 2)))
            window = picture[corner : corner + 16, corner : corner + 16, 0]
            assert bool((window >= large).all())
            assert np.array_equal(window[visible, visible], large[visible, visible]), "outside the overlap nothing covers it"
        assert suite.targets["top_left"][row] == digits.target[first]
        assert suite.targets["bottom_right"][row] == digits.target[second]


def test_equal_seeds_give_equal_bits() -> None:
    assert multidigits(seed=3, **SMALL).fingerprint() == load_embedded("multidigits", seed=3, **SMALL).fingerprint()
    assert multidigits(seed=3, **SMALL).fingerprint() != multidigits(seed=4, **SMALL).fingerprint()


def test_label_noise_hits_the_share_of_one_task_outside_the_test_split() -> None:
    clean = multidigits(num_train=4000, num_val=500, num_test=300)
    noisy = multidigits(num_train=4000, num_val=500, num_test=300, label_noise=0.2, noisy_task="top_left")
    wrong = noisy.targets["top_left"] != noisy.raw["factors"]["top_left"]
    assert wrong[noisy.splits["train"]].mean() == pytest.approx(0.2, abs=0.03)
    assert wrong[noisy.splits["val"]].mean() == pytest.approx(0.2, abs=0.06)
    assert not wrong[noisy.splits["test"]].any()
    assert np.array_equal(noisy.targets["bottom_right"], clean.targets["bottom_right"])
    assert np.array_equal(noisy.inputs["image"], clean.inputs["image"])
    assert np.array_equal(clean.targets["top_left"], clean.raw["factors"]["top_left"])


def test_a_share_of_the_digits_is_drawn_from_in_training_alone() -> None:
    whole, part = (
        {name: set(suite.raw["sources"][rows].ravel()) for name, rows in suite.splits.items()}
        for suite in (multidigits(num_train=4000, num_test=300, digit_share=share) for share in (1.0, 0.1))
    )
    assert len(part["train"]) == 108
    assert part["train"] < whole["train"]
    assert part["val"] == whole["val"]
    assert part["test"] == whole["test"]


def test_spare_digits_join_the_test_split_and_stay_out_of_training() -> None:
    suites = [multidigits(num_train=4000, num_test=9000, digit_share=0.1, spare_to_test=spare) for spare in (False, True)]
    plain, spared = ({name: set(suite.raw["sources"][rows].ravel()) for name, rows in suite.splits.items()} for suite in suites)
    assert spared["train"] == plain["train"]
    assert spared["val"] == plain["val"]
    # 18,000 draws from 1,419 digits leave none out but by great ill luck.
    assert len(plain["test"]) == 449
    assert len(spared["test"]) == 449 + 970
    assert not spared["test"] & (spared["train"] | spared["val"])


def test_errors() -> None:
    with pytest.raises(ConfigError) as caught:
        multidigits(num_train=0, num_val=-1, digit_share=0.0, label_noise=1.0, noisy_task="middle")  # type: ignore[arg-type]
    text = str(caught.value)
    assert "num_train must be at least 1; got 0" in text
    assert "num_val must be at least 0; got -1" in text
    assert "digit_share must be above 0 and at most 1; got 0.0" in text
    assert "label_noise must be in [0, 1); got 1.0" in text
    assert "noisy_task must be one of top_left, bottom_right; got 'middle'" in text
