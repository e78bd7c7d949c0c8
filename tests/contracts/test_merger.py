"""What every merger must do, whatever its rule: the Merger seam, run through the driver with all its passes. Mergers are found by
their cards, as ``graftwork merge`` finds them, never listed here; listed are further settings of some."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from throw_away_mergers import throw_away_cards

from graftwork.core.cards import load_cards
from graftwork.core.errors import DataError
from graftwork.core.settings import settings_of
from graftwork.core.tensor_files import narrow_to_bfloat16, open_tensors, write_tensors
from graftwork.interfaces.merger import Merger
from graftwork.methods.merging.driver import merge_arrays
from graftwork.methods.merging.task_arithmetic import TaskArithmeticMerger
from graftwork.methods.merging.ties import TiesConfig, TiesMerger
from graftwork.workflows.merge_methods import merge_methods

Model = dict[str, np.ndarray]

TIES: dict[str, TiesConfig] = {
    "ties": TiesConfig(),
    "ties-whole": TiesConfig(density=1.0),
    "ties-per-tensor": TiesConfig(density=0.5, trim="per-tensor", zero_sign="positive"),
    "ties-untrimmed": TiesConfig(trim="none"),
    "ties-weighted": TiesConfig(density=0.5, elect="weighted", divide_by="weights", zero_sign="negative"),
    "ties-no-election": TiesConfig(density=0.5, elect="none", divide_by="models"),
}
Build = Callable[[Sequence[Model]], Merger]
"""Builds a merger for the given models: some need statistics of each."""


def found_mergers() -> dict[str, Build]:
    """Return every merger that ``graftwork merge`` finds, built by its description; a throw-away one is among them."""
    return {
        name: functools.partial(build_found, cls, method.contract.get(cls.__name__, {}))
        for name, method in merge_methods({**load_cards(), **throw_away_cards()}).items()
        if issubclass(cls := method.resolve(), Merger)
    }


def build_found(cls: type[Merger], contract: Mapping[str, Any], experts: Sequence[Model]) -> Merger:
    """Build with the settings of the card; where a setting asks for readers, one for each model holds positive numbers made from
    it."""
    readers = [{name: np.abs(value) + np.asarray(0.1, value.dtype) for name, value in model.items()} for model in experts]
    asked = {name: readers for name, setting in settings_of(cls).items() if "TensorSource" in str(setting.annotation)}
    return cls(**{**contract, **asked})


BUILDERS: dict[str, Build] = {
    **found_mergers(),
    "task-arithmetic-1": lambda _: TaskArithmeticMerger(scaling=1.0),
    **{name: lambda _, config=config: TiesMerger(config) for name, config in TIES.items()},  # type: ignore[misc]
}
# What becomes of three equal experts: base + factor * change, where nothing is trimmed.
EQUAL_EXPERTS: dict[str, float] = {
    "averaging": 1.0,
    "task-arithmetic": 0.4 * 3,
    "task-arithmetic-1": 3.0,
    "ties-whole": 1.0,
    "ties-untrimmed": 1.0,
}
TRIMMED = {"ties", "ties-per-tensor", "ties-weighted", "ties-no-election"}
UNSCALED: dict[str, Callable[[], Merger]] = {
    "task-arithmetic": lambda: TaskArithmeticMerger(scaling=0.0),
    "ties": lambda: TiesMerger(TiesConfig(scaling=0.0)),
    "ties-per-tensor": lambda: TiesMerger(TiesConfig(scaling=0.0, trim="per-tensor")),
}


OF_WEIGHTS = {"slerp", "karcher"}
"""Rules on directions of the weights themselves."""


def count_of(build: Build, wished: int = 3) -> int:
    """Return how many models a merger is shown: three, if it takes so many."""
    least, most = build(models(2)[1]).num_models
    return max(least, min(wished, most or wished))


@pytest.fixture(params=sorted(BUILDERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def build(name: str) -> Build:
    return BUILDERS[name]


def models(count: int = 3, *, dtype: type = np.float32, seed: int = 0) -> tuple[Model, list[Model]]:
    random = np.random.default_rng(seed)
    shapes = {"a.weight": (6, 5), "b.bias": (5,), "c.weight": (3, 2, 2), "scale": (), "unused": (0,)}
    base = {key: np.asarray(random.normal(size=shape)).astype(dtype) for key, shape in shapes.items()}
    tuned = [
        {key: np.asarray(value + 0.1 * random.normal(size=value.shape)).astype(dtype) for key, value in base.items()}
        for _ in range(count)
    ]
    return base, tuned


def test_inputs_stay_unchanged_even_if_they_are_read_only(build: Build) -> None:
    base, tuned = models(count_of(build))
    before = [{key: value.copy() for key, value in model.items()} for model in (base, *tuned)]
    for model in (base, *tuned):
        for value in model.values():
            value.setflags(write=False)
    merged = merge_arrays(base, tuned, build(tuned))
    for model, copy in zip((base, *tuned), before, strict=True):
        for key, value in model.items():
            np.testing.assert_array_equal(value, copy[key])
            assert not np.shares_memory(merged[key], value)


def test_shapes_are_those_of_the_base_scalars_and_empty_tensors_too(build: Build) -> None:
    base, tuned = models(count_of(build))
    merged = merge_arrays(base, tuned, build(tuned))
    assert {key: value.shape for key, value in merged.items()} == {key: value.shape for key, value in base.items()}
    assert merged["scale"].shape == ()
    assert merged["unused"].shape == (0,)
    assert all(np.isfinite(value).all() for value in merged.values())


def test_one_model_gives_a_point_between_it_and_the_base(build: Build, name: str) -> None:
    base, tuned = models(1)
    if build(tuned).num_models[0] > 1 or name in OF_WEIGHTS:
        pytest.skip("takes several models, or turns weights and not changes")
    merged = merge_arrays(base, tuned, build(tuned))
    moved = 0
    for key, value in merged.items():
        change = tuned[0][key] - base[key]
        got = value - base[key]
        assert np.all(np.abs(got) <= np.abs(change) + 1e-6)
        assert np.all(got * change >= -1e-6)
        moved += int(np.count_nonzero(np.abs(got) > 1e-4))
    assert moved > 0


def test_the_order_of_the_tensors_does_not_matter(build: Build) -> None:
    base, tuned = models(count_of(build))
    backwards = [dict(reversed(model.items())) for model in (base, *tuned)]
    first, second = merge_arrays(base, tuned, build(tuned)), merge_arrays(backwards[0], backwards[1:], build(backwards[1:]))
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])


def test_names_carry_no_meaning(build: Build) -> None:
    """Other names make the driver show the tensors in another order: sampling and thresholds must not depend on it."""
    base, tuned = models(count_of(build))
    rename = dict(zip(sorted(base), sorted(base, reverse=True), strict=True))
    renamed = [{f"{rename[key]}.{key}": value for key, value in model.items()} for model in (base, *tuned)]
    first, second = merge_arrays(base, tuned, build(tuned)), merge_arrays(renamed[0], renamed[1:], build(renamed[1:]))
    for key, value in first.items():
        np.testing.assert_allclose(value, second[f"{rename[key]}.{key}"], rtol=1e-6, atol=1e-7)


def test_the_order_of_the_models_does_not_matter(build: Build) -> None:
    base, tuned = models(count_of(build))
    first, second = merge_arrays(base, tuned, build(tuned)), merge_arrays(base, tuned[::-1], build(tuned[::-1]))
    for key, value in first.items():
        np.testing.assert_allclose(value, second[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("which", sorted(EQUAL_EXPERTS))
def test_equal_experts_move_the_base_by_the_documented_factor(which: str) -> None:
    base, tuned = models(1)
    merged = merge_arrays(base, tuned * 3, BUILDERS[which](tuned))
    for key, value in merged.items():
        expected = base[key] + EQUAL_EXPERTS[which] * (tuned[0][key] - base[key])
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("which", sorted(TIES))
def test_equal_experts_never_conflict_and_keep_what_one_alone_keeps(which: str) -> None:
    base, tuned = models(1)
    merger = TiesMerger(TIES[which])
    three = merge_arrays(base, tuned * 3, merger)
    assert merger.conflicts == 0
    for key, value in merge_arrays(base, tuned, TiesMerger(TIES[which])).items():
        np.testing.assert_allclose(three[key], value, rtol=1e-5, atol=1e-6)


def test_experts_without_change_give_the_base(build: Build) -> None:
    base, _ = models()
    experts = [base] * count_of(build, 2)
    merged = merge_arrays(base, experts, build(experts))
    for key, value in merged.items():
        np.testing.assert_allclose(value, base[key], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("which", sorted(UNSCALED))
def test_scaling_zero_gives_the_base(which: str) -> None:
    base, tuned = models()
    merged = merge_arrays(base, tuned, UNSCALED[which]())
    for key, value in merged.items():
        np.testing.assert_array_equal(value, base[key])


def assert_like_float32(build: Build, dtype: type, tolerance: float) -> None:
    base, tuned = models(count_of(build), dtype=dtype)
    as_float32 = [{key: value.astype(np.float32) for key, value in model.items()} for model in (base, *tuned)]
    merged, expected = merge_arrays(base, tuned, build(tuned)), merge_arrays(as_float32[0], as_float32[1:], build(as_float32[1:]))
    for key, value in merged.items():
        assert value.dtype.itemsize >= max(np.dtype(dtype).itemsize, 4), (key, value.dtype)
        np.testing.assert_allclose(value, expected[key], rtol=tolerance, atol=tolerance)


def test_float16_is_worked_on_in_float32(build: Build) -> None:
    assert_like_float32(build, np.float16, 1e-6)


def test_float64_agrees_with_float32_and_is_not_narrowed(build: Build) -> None:
    assert_like_float32(build, np.float64, 1e-6)


def test_float64_keeps_its_digits(build: Build, name: str) -> None:
    if name in OF_WEIGHTS:
        pytest.skip("turns weights: the result does not move with the base")
    base, tuned = models(count_of(build, 2), dtype=np.float64)
    shifted_base = {key: value + 1e6 for key, value in base.items()}
    shifted = [{key: value + 1e6 for key, value in model.items()} for model in tuned]
    merged, expected = merge_arrays(shifted_base, shifted, build(shifted)), merge_arrays(base, tuned, build(tuned))
    for key, value in merged.items():
        # float32 would round to 0.06 here
        np.testing.assert_allclose(value - shifted_base[key], expected[key] - base[key], atol=1e-3)


def test_bfloat16_files_merge_like_their_widened_values(build: Build, tmp_path: Path) -> None:
    base, tuned = models(count_of(build))
    sources = []
    for number, model in enumerate((base, *tuned)):
        path = tmp_path / f"{number}.safetensors"
        write_tensors(path, {key: ("BF16", value.shape) for key, value in model.items()}, model.items())
        sources.append(open_tensors(path))
    widened = [
        {
            key: (narrow_to_bfloat16(value).astype(np.uint32) << 16).view(np.float32).reshape(value.shape)
            for key, value in model.items()
        }
        for model in (base, *tuned)
    ]
    merged = merge_arrays(sources[0], sources[1:], build(sources[1:]))
    for key, value in merge_arrays(widened[0], widened[1:], build(widened[1:])).items():
        np.testing.assert_array_equal(merged[key], value)


def test_passes_come_to_an_end_and_see_every_tensor_once_each(build: Build) -> None:
    base, tuned = models(count_of(build))
    merger = build(tuned)
    seen: list[str] = []
    passes = 0
    observe, finish = merger.observe, merger.finish_pass

    def watched(key: str, first: np.ndarray, experts: list[np.ndarray]) -> None:
        seen.append(key)
        observe(key, first, experts)

    def counted() -> None:
        nonlocal passes
        passes += 1
        finish()

    merger.observe, merger.finish_pass = watched, counted  # type: ignore[method-assign]
    merge_arrays(base, tuned, merger)
    assert passes <= 3
    assert seen == sorted(base) * passes
    assert not merger.needs_pass()


def test_corrections_belong_to_merged_tensors_and_change_only_what_they_name() -> None:
    # tied entries: +1 and -1 cancel exactly; the majority of the other signs decides at the end
    base = {"w": np.zeros(6, np.float32)}
    tuned = [{"w": np.array(row, np.float32)} for row in ([1, 2, 2, 0, -3, 1], [-1, 2, 2, 0, -3, 1])]
    merger = TiesMerger(TiesConfig(density=1.0))
    merged = merge_arrays(base, tuned, merger)["w"]
    np.testing.assert_allclose(merged, [1, 2, 2, 0, -3, 1])
    assert [(key, indices.tolist()) for key, indices, _ in merger.corrections()] == [("w", [0])]


def test_settings_name_the_method_and_are_plain_values(build: Build, name: str) -> None:
    settings = build(models(count_of(build))[1]).settings()
    assert name.startswith(settings["method"])
    for value in settings.values():
        assert isinstance(value, str | int | float | bool | tuple | list | None)


def test_models_that_do_not_fit_are_refused_before_anything_is_merged(build: Build) -> None:
    base, tuned = models(count_of(build, 2))
    tuned[-1]["b.bias"] = np.zeros(4, np.float32)
    del tuned[0]["a.weight"]
    last = len(tuned)
    with pytest.raises(
        DataError, match=rf"model 1 has no tensor 'a\.weight'.*model {last}: 'b\.bias' is \[4\], the base has \[5\]"
    ):
        merge_arrays(base, tuned, build(tuned))
    with pytest.raises(DataError, match="no models to merge"):
        merge_arrays(base, [], build([]))
