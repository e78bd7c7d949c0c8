"""RegMean: its closed form written out, Gram matrices in pieces, files, and what it asks for."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError, DataError
from graftwork.interfaces.model_merger import MergeContext, MergeModel
from graftwork.methods.merging.regmean import RegMean, RegMeanConfig, regression_mean, stream_grams

from .merge_worlds import COLOUR, LATE, context_of, make_suite, models_of


def written_out(inputs: list[np.ndarray], weights: list[np.ndarray], alpha: float) -> np.ndarray:
    """The paper's formula, with weights as [in, out]."""
    left = np.zeros((inputs[0].shape[1],) * 2)
    right = np.zeros((inputs[0].shape[1], weights[0].shape[0]))
    for rows, weight in zip(inputs, weights, strict=True):
        gram = rows.T @ rows
        scaled = alpha * gram + (1 - alpha) * np.diag(np.diag(gram))
        left += scaled
        right += scaled @ weight.T
    return np.asarray((np.linalg.inv(left) @ right).T)


def rows_of(model: MergeModel, task: str) -> np.ndarray:
    suite = make_suite()
    known = suite.splits["train"][suite.targets[task][suite.splits["train"]] >= 0]
    return np.asarray(suite.inputs["numeric"][known])


def test_a_layer_is_the_closed_form() -> None:
    random = np.random.default_rng(0)
    inputs = [random.normal(size=(30, 5)) for _ in range(3)]
    weights = [random.normal(size=(4, 5)) for _ in range(3)]
    grams = [rows.T @ rows for rows in inputs]
    for alpha in (1.0, 0.9, 0.0):
        found = regression_mean(weights, grams, alpha=alpha, ridge=0.0)
        np.testing.assert_allclose(found, written_out(inputs, weights, alpha), rtol=1e-9, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 4), alpha=st.floats(0.0, 1.0))
def test_it_solves_the_least_squares_problem_and_keeps_equal_models(seed: int, count: int, alpha: float) -> None:
    random = np.random.default_rng(seed)
    inputs = [random.normal(size=(20, 3)) for _ in range(count)]
    grams = [rows.T @ rows for rows in inputs]
    weights = [random.normal(size=(2, 3)) for _ in range(count)]
    best = regression_mean(weights, grams, alpha=1.0, ridge=0.0)

    def error(weight: np.ndarray) -> float:
        return sum(float(np.square(rows @ (weight - own).T).sum()) for rows, own in zip(inputs, weights, strict=True))

    assert error(best) <= min(error(best + 0.01 * random.normal(size=best.shape)) for _ in range(5))
    same = regression_mean([weights[0]] * count, grams, alpha=alpha)
    np.testing.assert_allclose(same, weights[0], rtol=1e-8, atol=1e-10)


def test_inputs_that_are_always_zero_keep_the_mean() -> None:
    gram = np.diag([2.0, 0.0])
    weights = [np.array([[1.0, 1.0]]), np.array([[3.0, 5.0]])]
    for ridge in (0.0, 1e-6):
        found = regression_mean(weights, [gram, 3.0 * gram], ridge=ridge)
        np.testing.assert_allclose(found, [[2.5, 3.0]], atol=1e-4)


def test_gram_matrices_are_sums_over_batches_also_of_convolutions() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4))
    pictures = torch.randn(10, 2, 4, 4)
    whole = stream_grams(network, iter([pictures]), network)
    parts = stream_grams(network, iter(pictures.split(3)), network)
    assert set(whole) == {"0.weight", "3.weight"}
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-6, atol=1e-6)
    patches = F.unfold(pictures, 3, padding=1, stride=2).transpose(1, 2).reshape(-1, 18).double()
    torch.testing.assert_close(whole["0.weight"], patches.T @ patches)
    assert not network[0]._forward_pre_hooks


def test_models_with_other_heads_are_merged_by_their_own_rows() -> None:
    base, experts = models_of((COLOUR,), (LATE,))
    merged = RegMean(RegMeanConfig(alpha=0.8, ridge=0.0)).merge(base, experts, context_of(make_suite()))
    assert set(merged) == set(base.tensors)
    first = next(name for name, value in base.tensors.items() if value.ndim == 2)
    captured: list[np.ndarray] = []
    for model, task in zip(experts, ("colour", "late"), strict=True):
        network = model.build()
        layer = network.get_submodule(first.removesuffix(".weight"))
        handle = layer.register_forward_pre_hook(lambda _, given: captured.append(given[0].double().numpy()))
        numeric = torch.from_numpy(rows_of(model, task))
        with torch.no_grad():
            network({"numeric": numeric, "categorical": torch.zeros(len(numeric), 0, dtype=torch.int64)})
        handle.remove()
    expected = written_out(captured, [np.asarray(model.tensors[first], np.float64) for model in experts], 0.8)
    np.testing.assert_allclose(merged[first], expected, rtol=1e-4, atol=1e-5)
    bias = next(name for name, value in base.tensors.items() if value.ndim == 1)
    np.testing.assert_allclose(merged[bias], np.mean([model.tensors[bias] for model in experts], axis=0), rtol=1e-6)


def test_files_of_gram_matrices_give_what_rows_give() -> None:
    base, experts = models_of((COLOUR,), (COLOUR,))
    context = context_of(make_suite(tasks=(COLOUR,)))
    files = [RegMean(RegMeanConfig(result="gram")).merge(None, [model], context) for model in experts]
    assert all(name.startswith("gram.") for name in files[0])
    plain = [MergeModel(name=model.name, tensors=model.tensors) for model in experts]
    by_files = RegMean().merge(None, plain, MergeContext(statistics={"gram": files}))
    for name, value in RegMean().merge(None, experts, context).items():
        np.testing.assert_allclose(by_files[name], value, rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match="does not belong to one of its weights"):
        wrong = [{name: value[:1, :1] for name, value in file.items()} for file in files]
        RegMean().merge(None, plain, MergeContext(statistics={"gram": wrong}))
    del base


def test_rows_are_counted_up_to_the_limit() -> None:
    _, experts = models_of((COLOUR,))
    context = context_of(make_suite(tasks=(COLOUR,)))
    few = RegMean(RegMeanConfig(result="gram", num_rows=5)).merge(None, experts, context)
    name = next(name for name in few if few[name].shape == (4, 4))
    numeric = make_suite(tasks=(COLOUR,)).inputs["numeric"][:5]
    assert float(np.trace(few[name])) == pytest.approx(float(np.square(numeric).sum()), rel=1e-4)


@pytest.mark.parametrize(
    ("settings_", "said"), [({"alpha": 1.5}, "`alpha` must be from 0 to 1"), ({"ridge": -1.0}, "-1.0"), ({"num_rows": 0}, "0")]
)
def test_settings_out_of_range_are_refused(settings_: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RegMeanConfig(**settings_)


def test_what_is_missing_is_named() -> None:
    base, experts = models_of((COLOUR,), (LATE,))
    with pytest.raises(ConfigError, match="needs the Gram matrices of each model"):
        RegMean().merge(base, experts, MergeContext())
    with pytest.raises(ConfigError, match="takes the Gram matrices of one model; there are 2"):
        RegMean(RegMeanConfig(result="gram")).merge(base, experts, MergeContext())
    only = make_suite(tasks=(LATE,))
    with pytest.raises(ConfigError, match="answers colour, and the rows have late"):
        RegMean().merge(base, experts, context_of(only))
    suite = make_suite()
    late = np.array(suite.targets["late"])
    late[:] = -1
    colours = dataclasses.replace(
        suite, targets={**suite.targets, "late": late}, splits={**suite.splits, "train": np.arange(0, 40, 2)}
    )
    with pytest.raises(DataError, match="None of the 'train' rows counts for m2"):
        RegMean().merge(base, experts, context_of(colours))
