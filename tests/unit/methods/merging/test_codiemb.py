from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.methods.merging.averaging import AveragingMerger
from graftwork.methods.merging.codiemb import DeltaGuidedMerger
from graftwork.methods.merging.driver import merge_arrays
from graftwork.workflows.merge_methods import find_merge_method

RANDOM = np.random.default_rng(0)
BASE = {"w": RANDOM.standard_normal((7, 5)).astype(np.float32), "b": RANDOM.standard_normal(3).astype(np.float32)}
MODELS = [
    {name: value + RANDOM.standard_normal(value.shape).astype(np.float32) for name, value in BASE.items()} for _ in range(3)
]


@pytest.mark.parametrize("scaling", [1.0, 0.5])
def test_each_entry_listens_to_the_model_that_moved_it_most(scaling: float) -> None:
    merged = merge_arrays(BASE, MODELS, DeltaGuidedMerger(scaling=scaling))
    for name, base in BASE.items():
        changes = np.stack([model[name].astype(np.float64) - base for model in MODELS])
        weights = np.abs(changes) / np.abs(changes).sum(axis=0)
        np.testing.assert_allclose(merged[name], base + scaling * (weights * changes).sum(axis=0), rtol=1e-5, atol=1e-6)


def test_a_tensor_can_have_one_weight_a_model() -> None:
    merged = merge_arrays(BASE, MODELS, DeltaGuidedMerger(grain="tensor"))
    for name, base in BASE.items():
        changes = np.stack([model[name].astype(np.float64) - base for model in MODELS])
        sizes = np.sqrt((changes**2).reshape(3, -1).sum(axis=1))
        expected = base + np.tensordot(sizes / sizes.sum(), changes, axes=1)
        np.testing.assert_allclose(merged[name], expected, rtol=1e-5, atol=1e-6)


def test_by_hand() -> None:
    base = {"w": np.array([1.0, 1.0, 1.0, 2.0], np.float32)}
    models = [{"w": np.array([4.0, 1.0, 2.0, 2.0], np.float32)}, {"w": np.array([2.0, 1.0, 0.0, 3.0], np.float32)}]
    # Changes 3 and 1: (9 + 1) / 4. Opposite ones of equal size cancel; what nobody moved stays.
    np.testing.assert_allclose(merge_arrays(base, models, DeltaGuidedMerger())["w"], [3.5, 1.0, 1.0, 3.0])


@pytest.mark.parametrize("grain", ["element", "tensor"])
def test_equal_changes_are_a_uniform_soup(grain: str) -> None:
    same = [MODELS[0]] * 3
    found = merge_arrays(BASE, same, DeltaGuidedMerger(grain=grain))  # type: ignore[arg-type]
    soup = merge_arrays(BASE, same, AveragingMerger())
    for name in BASE:
        np.testing.assert_allclose(found[name], soup[name], rtol=1e-5, atol=1e-6)


def test_a_single_model_comes_back_and_long_tensors_go_slice_by_slice() -> None:
    base = {"w": np.zeros((300, 1000), np.float32)}
    model = {"w": RANDOM.standard_normal((300, 1000)).astype(np.float32)}
    np.testing.assert_allclose(merge_arrays(base, [model], DeltaGuidedMerger())["w"], model["w"], rtol=1e-6)


def test_it_is_found_by_its_names_and_refuses_wrong_settings() -> None:
    assert find_merge_method("codiemb").resolve() is find_merge_method("delta-guided").resolve() is DeltaGuidedMerger
    with pytest.raises(ConfigError, match="`grain` must be one of element, tensor; got 'layer'"):
        DeltaGuidedMerger(grain="layer")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`scaling` must be a finite number"):
        DeltaGuidedMerger(scaling=float("nan"))
