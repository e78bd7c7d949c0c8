"""TIES by hand, against a slow reference of the paper's steps, and against peft number by number."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError
from graftwork.methods.merging.driver import merge_arrays
from graftwork.methods.merging.threshold import KthMagnitude
from graftwork.methods.merging.ties import TiesConfig, TiesMerger

Model = dict[str, np.ndarray]


def models(
    seed: int, count: int = 3, *, sizes: tuple[tuple[int, ...], ...] = ((7, 5), (4,), (2, 3, 2))
) -> tuple[Model, list[Model]]:
    random = np.random.default_rng(seed)
    base = {f"layer{i}.weight": random.normal(size=size).astype(np.float32) for i, size in enumerate(sizes)}
    tuned = [
        {name: value + random.normal(size=value.shape).astype(np.float32) for name, value in base.items()} for _ in range(count)
    ]
    return base, tuned


def reference_ties(base: Model, tuned: list[Model], density: float, scaling: float) -> np.ndarray:
    """The paper's three steps on flat vectors, one obvious line each, with the released code's counting."""
    flat_base = np.concatenate([base[name].ravel() for name in sorted(base)])
    changes = np.stack([np.concatenate([model[name].ravel() for name in sorted(base)]) - flat_base for model in tuned])
    size = flat_base.size
    for change in changes:
        keep = min(size, int(size * density) + 1)
        change[np.abs(change) < np.sort(np.abs(change))[size - keep]] = 0.0
    sign = np.sign(changes.sum(axis=0))
    majority = np.sign(sign.sum())
    sign[sign == 0] = majority if majority != 0 else -1.0
    agrees = (changes * sign) > 0
    mean = (changes * agrees).sum(axis=0) / np.maximum(agrees.sum(axis=0), 1)
    return flat_base + scaling * mean


def flat(model: Model) -> np.ndarray:
    return np.concatenate([model[name].ravel() for name in sorted(model)])


def test_one_parameter_worked_out_by_hand() -> None:
    base = {"w": np.zeros(4, np.float32)}
    tuned = [{"w": np.array(row, np.float32)} for row in ([4.0, 0.1, -2.0, 0.0], [3.0, -0.2, 5.0, 0.0], [-1.0, 0.0, 4.0, 0.3])]
    merged = merge_arrays(base, tuned, TiesMerger(TiesConfig(density=0.25)))["w"]
    # each model keeps its two largest: (4, ., -2), (3, ., 5), (-1, ., 4); signs +, ., +; means 3.5 and 4.5
    np.testing.assert_allclose(merged, [3.5, 0.0, 4.5, 0.0])


@given(st.integers(0, 10_000), st.integers(1, 5), st.sampled_from([0.1, 0.2, 0.5, 0.9, 1.0]), st.sampled_from([0.3, 1.0, 1.7]))
def test_agrees_with_the_slow_reference(seed: int, count: int, density: float, scaling: float) -> None:
    base, tuned = models(seed, count)
    merged = merge_arrays(base, tuned, TiesMerger(TiesConfig(density=density, scaling=scaling)))
    np.testing.assert_allclose(flat(merged), reference_ties(base, tuned, density, scaling), rtol=1e-5, atol=1e-6)


@given(st.integers(0, 10_000), st.sampled_from([0.2, 0.5, 1.0]))
def test_exact_ties_follow_the_majority_of_the_model(seed: int, density: float) -> None:
    random = np.random.default_rng(seed)
    base = {"a": np.zeros(30, np.float32), "b": np.zeros((5, 4), np.float32)}
    # small integers: changes that cancel exactly are common
    tuned = [
        {name: random.integers(-2, 3, size=value.shape).astype(np.float32) for name, value in base.items()} for _ in range(4)
    ]
    merged = merge_arrays(base, tuned, TiesMerger(TiesConfig(density=density)))
    np.testing.assert_allclose(flat(merged), reference_ties(base, tuned, density, 1.0), rtol=1e-5, atol=1e-6)


def test_tied_entries_are_looked_at_again_and_not_held() -> None:
    # of bf16 models whose changes are a few steps of the last bit, one entry in twenty is tied: bytes grew with the checkpoint
    size = 300_000  # three chunks
    random = np.random.default_rng(0)
    base = {name: np.zeros(size, np.float32) for name in ("a", "b")}
    tuned = [{name: random.integers(-2, 4, size=size).astype(np.float32) for name in base} for _ in range(2)]
    merger = TiesMerger(TiesConfig(density=1.0, scaling=0.5))
    merger.run_passes(list(base), lambda name: (base[name], [model[name] for model in tuned]))
    tracemalloc.start()
    try:
        merged = {name: merger.merge_tensor(name, base[name], [model[name] for model in tuned]) for name in base}
        held = tracemalloc.get_traced_memory()[0] - sum(values.nbytes for values in merged.values())
    finally:
        tracemalloc.stop()
    corrected = 0
    for name, indices, values in merger.corrections():
        merged[name][indices] = values
        corrected += len(indices)
    assert corrected > size // 10
    assert held < corrected
    np.testing.assert_allclose(flat(merged), reference_ties(base, tuned, 1.0, 0.5), rtol=1e-6, atol=1e-7)


@given(st.integers(0, 1000), st.sampled_from([0.2, 0.5, 0.8]), st.booleans())
def test_per_tensor_form_is_pefts_number_by_number(seed: int, density: float, weighted: bool) -> None:
    from peft.utils.merge_utils import ties

    base, tuned = models(seed, 3)
    weights = (0.5, 1.0, 2.0) if weighted else (1.0, 1.0, 1.0)
    config = TiesConfig(density=density, trim="per-tensor", zero_sign="positive", weights=weights)
    merged = merge_arrays(base, tuned, TiesMerger(config))
    for name, start in base.items():
        changes = [torch.from_numpy(model[name] - start) for model in tuned]
        expected = ties(changes, torch.tensor(weights), density=density)
        np.testing.assert_allclose(merged[name] - start, expected.numpy(), rtol=1e-4, atol=1e-6)


def test_trimming_is_global_not_per_tensor() -> None:
    base = {"small": np.zeros(10, np.float32), "large": np.zeros(10, np.float32)}
    tuned = [{"small": np.full(10, 0.01, np.float32), "large": np.arange(1, 11, dtype=np.float32)}]
    merged = merge_arrays(base, tuned, TiesMerger(TiesConfig(density=0.45)))
    assert not merged["small"].any()
    assert merged["large"].all()


def test_inputs_are_never_changed_and_models_keep_their_order() -> None:
    base, tuned = models(1)
    copies = [{name: value.copy() for name, value in model.items()} for model in [base, *tuned]]
    first = merge_arrays(base, tuned, TiesMerger())
    second = merge_arrays(base, tuned[::-1], TiesMerger())
    for model, copy in zip([base, *tuned], copies, strict=True):
        for name in model:
            np.testing.assert_array_equal(model[name], copy[name])
    np.testing.assert_allclose(flat(first), flat(second), rtol=1e-5, atol=1e-6)


def test_one_model_at_full_density_comes_back_unchanged() -> None:
    base, tuned = models(2, 1)
    np.testing.assert_allclose(
        flat(merge_arrays(base, tuned, TiesMerger(TiesConfig(density=1.0)))), flat(tuned[0]), rtol=1e-5, atol=1e-6
    )


def test_conflicts_are_counted_among_surviving_entries() -> None:
    base = {"w": np.zeros(4, np.float32)}
    tuned = [{"w": np.array([1.0, 2.0, 3.0, -4.0], np.float32)}, {"w": np.array([-1.0, 2.0, -3.0, -4.0], np.float32)}]
    merger = TiesMerger(TiesConfig(density=1.0))
    merge_arrays(base, tuned, merger)
    assert (merger.conflicts, merger.kept_anywhere) == (2, 4)


@given(st.integers(0, 10_000), st.integers(1, 3000), st.floats(0.001, 1.0))
def test_threshold_of_a_sampled_search_is_exact(seed: int, size: int, share: float) -> None:
    random = np.random.default_rng(seed)
    parts = np.array_split(random.standard_t(3, size=size).astype(np.float32), 3)
    rank = max(1, int(share * size))
    search = KthMagnitude(largest_sample=64)
    passes = 0
    while not search.is_done:
        for part in parts:
            search.observe(part, np.zeros_like(part))
        search.finish_pass(rank_from_top=rank)
        passes += 1
        assert passes < 10
    assert search.threshold == np.sort(np.abs(np.concatenate(parts)))[::-1][rank - 1]


def test_threshold_survives_a_misleading_sample() -> None:
    # every sampled position holds a small value, the large ones lie between
    values = np.tile(np.array([0.001] + [5.0] * 63, np.float32), 64)
    search = KthMagnitude(largest_sample=64)
    for _ in range(5):
        search.observe(values, np.zeros_like(values))
        search.finish_pass(rank_from_top=1000)
    assert search.is_done
    assert search.threshold == 5.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"density": 0.0}, "`density` must be above 0"),
        ({"density": 20}, "got 20"),
        ({"weights": (1.0, 0.0)}, "Leave a model out"),
    ],
)
def test_bad_settings_name_the_value(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TiesConfig(**settings)


def test_a_merger_that_is_used_again_remembers_nothing() -> None:
    merger = TiesMerger(TiesConfig(density=0.3))
    random = np.random.default_rng(5)
    # Few different values, so that some of them cancel and are corrected at the end.
    base = {"a": np.zeros((6, 7), np.float32), "b": np.zeros(9, np.float32)}
    first, second = (
        [{name: random.integers(-2, 3, value.shape).astype(np.float32) * scale for name, value in base.items()} for _ in range(4)]
        for scale in (1.0, 50.0)
    )
    merge_arrays(base, first, merger)
    again = merge_arrays(base, second, merger)
    fresh = TiesMerger(TiesConfig(density=0.3))
    once = merge_arrays(base, second, fresh)
    assert all(np.array_equal(again[name], once[name]) for name in base)
    assert (merger.conflicts, merger.kept_anywhere) == (fresh.conflicts, fresh.kept_anywhere)
    assert merger.settings() == fresh.settings()
    merge_arrays(base, second[:2], merger)
    assert len(merger.settings()["thresholds"]) == 2


@pytest.mark.parametrize("count", [255, 256, 300])
def test_votes_of_hundreds_of_models_are_counted(count: int) -> None:
    base = {"w": np.zeros(2, np.float32)}
    tuned = [{"w": np.array([1.0, -1.0], np.float32)} for _ in range(count)]
    merged = merge_arrays(base, tuned, TiesMerger(TiesConfig(density=1.0)))["w"]
    np.testing.assert_allclose(merged, [1.0, -1.0], rtol=1e-5)


def test_equal_magnitudes_all_survive_per_tensor() -> None:
    base, tuned = {"w": np.zeros(4, np.float32)}, [{"w": np.array([2.0, 2.0, 2.0, 1.0], np.float32)}]
    merged = merge_arrays(base, tuned, TiesMerger(TiesConfig(density=0.5, trim="per-tensor")))["w"]
    assert merged.tolist() == [2.0, 2.0, 2.0, 0.0]
