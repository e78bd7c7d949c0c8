from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.data.independence import independence_report
from graftwork.data.suites import load_embedded
from graftwork.data.suites.histology import histology
from graftwork.data.suites.histology_render import DYES, grain_field, separate_dyes, transmit

SMALL = {"num_train": 300, "num_val": 20, "num_test": 100}


def test_equal_seeds_give_equal_bits_and_splits_do_not_see_each_other() -> None:
    suite = load_embedded("histology", seed=2, **SMALL)
    assert suite.fingerprint() == histology(seed=2, **SMALL).fingerprint() != histology(seed=3, **SMALL).fingerprint()
    other = histology(seed=2, num_train=10, num_val=0, num_test=100)
    test, same = suite.splits["test"], other.splits["test"]
    for first, second in ((suite.inputs["image"], other.inputs["image"]), (suite.targets["stain"], other.targets["stain"])):
        np.testing.assert_array_equal(first[test], second[same])
    assert not np.array_equal(suite.inputs["image"][:100], suite.inputs["image"][test])


def test_layout_of_inputs_and_targets() -> None:
    suite = histology(size=32, max_nuclei=5, **SMALL)
    assert suite.inputs["image"].shape == (420, 32, 32, 3)
    assert suite.inputs["image"].dtype == np.uint8
    assert suite.targets["stain"].shape == (420, 3, 32, 32)
    assert 0.0 <= suite.targets["stain"].min() < suite.targets["stain"].max() <= 1.0
    assert set(np.unique(suite.targets["mask"])) == {0, 1}
    assert suite.raw["nuclei"]["centre"].shape == (420, 5, 2)
    assert histology(tasks=("stain",), **SMALL).task_names == ("stain",)


def test_dyes_are_found_again_in_the_light() -> None:
    amounts = {dye: np.random.default_rng(index).uniform(0, 0.8, (5, 4)) for index, dye in enumerate(DYES)}
    found = separate_dyes(transmit(amounts))
    for dye, amount in amounts.items():
        np.testing.assert_allclose(found[dye], amount, atol=1e-9)
    assert transmit({"eosin": np.array(2.0)})[1] == pytest.approx(10**-1.98)
    np.testing.assert_array_equal(transmit({"dab": np.array(-1.0)}), 1.0)


def test_dyes_are_separated_as_by_scikit_image() -> None:
    color = pytest.importorskip("skimage.color")
    picture = np.random.default_rng(0).uniform(0.05, 1.0, (6, 7, 3))
    # Its third vector completes the first two; ours is that of DAB itself, so its function is called with our matrix. It works
    # with densities per log(1e6) and cuts negative amounts off.
    matrix = np.linalg.inv(np.array(list(DYES.values())))
    theirs = color.separate_stains(picture, matrix) * np.log(1e6) / np.log(10)
    ours = np.stack(list(separate_dyes(picture).values()), axis=-1)
    np.testing.assert_allclose(np.maximum(ours, 0), theirs, atol=1e-9)


def test_nuclei_of_one_type_are_brown_and_all_apart() -> None:
    suite = histology(**SMALL)
    nuclei = suite.raw["nuclei"]
    brown = separate_dyes(np.moveaxis(suite.targets["stain"], 1, -1))["dab"]
    picture, slot = np.nonzero(nuclei["present"])
    down, right = np.floor(nuclei["centre"][picture, slot]).astype(int).T
    amount, positive = brown[picture, down, right], nuclei["positive"][picture, slot]
    assert np.quantile(amount[~positive], 0.99) < np.quantile(amount[positive], 0.01)
    assert positive.mean() == pytest.approx(0.35, abs=0.03)
    centre = np.where(nuclei["present"][..., None], nuclei["centre"], np.nan)
    gaps = np.linalg.norm(centre[:, :, None] - centre[:, None], axis=-1)
    gaps[:, np.arange(8), np.arange(8)] = np.nan
    assert np.nanmin(gaps) > 2 * 3.4 * 1.06


def test_type_is_not_to_be_read_off_colour() -> None:
    """Mean and spread of the chromatin, place and number are those of the other type; only the grain tells them apart."""
    suite = histology(num_train=4000, num_val=0, num_test=1, pixel_noise=0.0, growth=1.0)
    nuclei = suite.raw["nuclei"]
    picture, slot = np.nonzero(nuclei["present"] & (np.abs(nuclei["centre"] - 12) < 8).all(axis=-1))
    blue = separate_dyes(suite.inputs["image"] / 255.0)["haematoxylin"]
    window = np.arange(-1, 2)
    middle = np.floor(nuclei["centre"][picture, slot]).astype(int)
    patch = blue[picture[:, None, None], middle[:, 0, None, None] + window[:, None], middle[:, 1, None, None] + window]
    positive = nuclei["positive"][picture, slot].astype(np.int64)
    # How alike neighbours are, relative to the spread: the grain.
    centred = patch - patch.mean(axis=(1, 2), keepdims=True)
    grain = (centred[:, 1:] * centred[:, :-1]).mean(axis=(1, 2)) / (centred**2).mean(axis=(1, 2))
    factors = {"type": positive, **{name: nuclei[name][picture, slot] for name in ("chromatin", "uptake", "radius", "angle")}}
    factors |= {"down": nuclei["centre"][picture, slot, 0], "number": nuclei["present"].sum(axis=1)[picture]}
    report = independence_report(factors)
    with_type = [pair for pair in report["factors"]["pairs"] if "type" in pair["names"]]
    assert len(with_type) == 6
    assert not any(pair["dependent"] for pair in with_type)
    seen = independence_report({"type": positive, "mean": patch.mean(axis=(1, 2))})["factors"]["pairs"][0]
    assert seen["share"] < 0.02
    visible = independence_report({"type": positive, "grain": grain})["factors"]["pairs"][0]
    assert visible["share"] > 0.05


def test_mask_is_dilated_and_wrong_for_some_objects() -> None:
    suite = histology(num_train=3000, num_val=0, num_test=1)
    nuclei = suite.raw["nuclei"]
    positive, present, marked = nuclei["positive"], nuclei["present"], nuclei["marked"]
    assert 1 - marked[positive].mean() == pytest.approx(0.15, abs=0.02)
    assert (marked & ~positive).sum() == pytest.approx((positive & ~marked).sum(), rel=0.2)
    assert not (marked & ~present).any()
    clean = histology(num_train=300, num_val=0, num_test=1, object_noise=0.0)
    nuclei = clean.raw["nuclei"]
    np.testing.assert_array_equal(nuclei["marked"], nuclei["positive"])
    inside = ((nuclei["centre"] > 6) & (nuclei["centre"] < 18)).all(axis=-1) & nuclei["positive"]
    alone = (nuclei["positive"].sum(axis=1) == 1) & inside.any(axis=1)
    area = np.pi * nuclei["radius"][inside & alone[:, None]] ** 2
    ratio = clean.targets["mask"][alone].sum(axis=(1, 2)) / area
    assert 1.5 < ratio[: alone.sum()].mean() < 2.0  # ((r + 1) / r)^2 for a radius of about 3


def test_grain_has_the_width_that_is_asked() -> None:
    field = grain_field(np.random.default_rng(0), (200, 24, 24), 1.0)
    assert field.std() == pytest.approx(1.0, abs=0.02)
    # Neighbours of white noise behind a Gaussian of width w correlate by exp(-1 / (4 w^2)).
    assert (field[:, 1:] * field[:, :-1]).mean() == pytest.approx(np.exp(-0.25), abs=0.03)


def test_wrong_arguments_are_named_together() -> None:
    with pytest.raises(ConfigError) as caught:
        histology(num_train=0, size=8, positive=0.7, object_noise=1.0, growth=0.0, contrast=-1.0, tasks=("stain", "colour"))
    for part in (
        "num_train",
        "size must be at least 16",
        "positive must be in",
        "object_noise",
        "growth",
        "contrast",
        "'colour'",
    ):
        assert part in str(caught.value)
