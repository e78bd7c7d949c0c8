"""Generated creatives: several kinds of input, two causes of stopping, and no way to read the answer off an input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from graftwork.core.errors import ConfigError
from graftwork.data.encoders import encoder_from_state
from graftwork.data.independence import independence_report
from graftwork.data.suite import Suite
from graftwork.data.suites import load_embedded
from graftwork.data.suites.creatives import EDGES, FACTORS, THRESHOLD, creatives


@pytest.fixture(scope="module")
def world() -> Suite:
    return creatives(rows=3000, test_rows=1000, terms=True, seed=5)


def test_a_row_has_a_table_a_text_and_a_picture(world: Suite) -> None:
    assert world.kinds == ("table", "text", "image")
    assert {name: array.shape for name, array in world.inputs.items()} == {
        "numeric": (4000, 6),
        "categorical": (4000, 3),
        "tokens": (4000, 16),
        "image": (4000, 16, 16, 3),
    }
    assert {name: len(rows) for name, rows in world.splits.items()} == {"train": 2700, "val": 300, "test": 1000}
    text = encoder_from_state(world.input_specs["text"].encoder)
    np.testing.assert_array_equal(text.transform(world.raw["text"][:50])["tokens"], world.inputs["tokens"][:50])


def test_a_quarter_is_censored_and_both_terms_have_events(world: Suite) -> None:
    time, event = world.targets["life"].T
    assert event.mean() == pytest.approx(0.75, abs=0.005)
    assert ((time <= THRESHOLD) & (event == 1)).mean() > 0.25
    assert ((time > THRESHOLD) & (event == 1)).mean() > 0.25


def test_the_terms_are_the_life_cut_at_the_threshold(world: Suite) -> None:
    life, short, long = (world.targets[name].astype(np.float64) for name in ("life", "short", "long"))
    late = life[:, 0] > THRESHOLD
    np.testing.assert_array_equal(short[~late], life[~late])
    assert (short[late] == [THRESHOLD, 0.0]).all()
    assert np.isnan(long[~late]).all()
    np.testing.assert_allclose(long[late] + [THRESHOLD, 0.0], life[late], rtol=1e-6)
    assert creatives(rows=100, test_rows=10).task_names == ("life",)


def test_the_true_curve_is_how_long_creatives_run(world: Suite) -> None:
    """Without censoring, the share of creatives that run to an edge is the mean of the true curve; in each half by risk, too."""
    full = creatives(rows=8000, test_rows=10, censored=0.0, seed=2)
    curve, time = full.raw["truth"]["curve"], full.targets["life"][:, 0]
    for place in (3, 9, 14):
        safe = curve[:, place] > np.median(curve[:, place])
        for half in (safe, ~safe):
            assert (time[half] > EDGES[place]).mean() == pytest.approx(curve[half, place].mean(), abs=0.03)
    assert world.raw["truth"]["curve"].shape == (4000, len(EDGES))


def test_the_hidden_factors_are_independent(world: Suite) -> None:
    report = independence_report(world.raw["factors"], permutations=50)
    assert report["factors"]["independent"], report["factors"]["worst"]
    assert set(world.raw["factors"]) == set(FACTORS)


def test_some_factors_hurry_one_cause_and_delay_the_other(world: Suite) -> None:
    warmth, time = world.raw["factors"]["warmth"], world.targets["life"][:, 0]
    usual = world.raw["truth"]["popular"] < 0.2
    event = world.targets["life"][:, 1] == 1
    early = event & (time <= THRESHOLD)
    assert warmth[usual & early].mean() < warmth[usual & ~early].mean() - 0.3
    late = usual & (time > THRESHOLD)
    soon = time < np.median(time[late & event])
    assert warmth[late & event & soon].mean() > warmth[late & event & ~soon].mean() + 0.1


def test_the_click_rate_says_nothing_about_the_life_by_itself(world: Suite) -> None:
    rate, time = world.inputs["numeric"][:, 0], world.targets["life"][:, 0]
    assert abs(pd.Series(rate).corr(pd.Series(time), method="spearman")) < 0.06


def test_equal_seeds_give_equal_bits() -> None:
    one, two, other = (load_embedded("creatives", rows=200, test_rows=20, seed=seed) for seed in (1, 1, 2))
    assert one.fingerprint() == two.fingerprint() != other.fingerprint()


def test_wrong_arguments_are_named_together() -> None:
    with pytest.raises(ConfigError) as error:
        creatives(rows=5, censored=0.9, shift=2.0)
    assert len(error.value.problems) == 3
