"""Partial pooling against the mixed model written out as one large Gaussian."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graftwork.domains.tabular.pooled_fits import (
    FLAT,
    Labels,
    Moments,
    Pooled,
    Structure,
    fit_classes,
    fit_numbers,
    probabilities,
)

Floats = NDArray[np.float64]


def world(units: int = 14, rows: int = 7, width: int = 3, seed: int = 0) -> tuple[Floats, Floats, NDArray[np.int64]]:
    draw = np.random.default_rng(seed)
    x = np.concatenate([np.ones((units * rows, 1)), draw.normal(size=(units * rows, width - 1))], axis=1)
    unit = np.repeat(np.arange(units), rows)
    own = draw.normal(size=(units, width)) * 0.6
    return x, (x * (np.array([1.0, 2.0, -1.0])[:width] + own[unit])).sum(axis=1) + 0.7 * draw.normal(size=len(x)), unit


def moments_of(x: Floats, z: Floats, unit: NDArray[np.int64]) -> Moments:
    return Moments.of(x, [Labels(np.flatnonzero(unit == one), z[unit == one][:, None]) for one in range(unit.max() + 1)])


def dense(x: Floats, unit: NDArray[np.int64], found: Pooled) -> tuple[Floats, Floats, Floats]:
    """The covariance of all rows, and those of rows with shared and with own coefficients (units behind each other)."""
    width, number = x.shape[1], unit.max() + 1
    prior = np.diag([FLAT, *[found.prior] * (width - 1)])
    spread = (x[:, None, :] * (unit[:, None] == np.arange(number))[:, :, None]).reshape(len(x), -1)
    own = spread @ np.kron(np.eye(number), found.spread)
    return x @ prior @ x.T + own @ spread.T + np.diag(found.noise[unit]), x @ prior, own


def likelihood(x: Floats, z: Floats, unit: NDArray[np.int64], found: Pooled) -> float:
    whole = dense(x, unit, found)[0]
    return float(-0.5 * np.linalg.slogdet(whole)[1] - 0.5 * z @ np.linalg.solve(whole, z))


def test_coefficients_are_those_of_the_mixed_model_written_out() -> None:
    x, z, unit = world()
    draw = np.random.default_rng(1)
    root = draw.normal(size=(3, 3))
    state = Pooled(np.zeros((1, 3)), np.zeros((14, 3)), 0.2 * root @ root.T, 0.8, draw.uniform(0.2, 1.0, 14))
    found = state.solved(moments_of(x, z, unit), np.zeros(14, dtype=np.int64))[0]
    whole, shared, own = dense(x, unit, state)
    pull = np.linalg.solve(whole, z)
    np.testing.assert_allclose(found.shared[0], shared.T @ pull, atol=1e-9)
    np.testing.assert_allclose(found.own.reshape(-1), own.T @ pull, atol=1e-9)


@pytest.mark.parametrize("structure", ["intercepts", "slopes"])
def test_variances_are_those_of_the_largest_marginal_likelihood(structure: Structure) -> None:
    x, z, unit = world()
    found = fit_numbers(moments_of(x, z, unit), np.zeros(14, dtype=np.int64), structure, steps=2000, noise="common")
    best = likelihood(x, z, unit, found)
    for factor in (0.8, 1.25):
        slopes = found.spread * np.diag([1.0, factor, factor])
        others: list[dict[str, Any]] = [
            {"spread": found.spread * np.diag([factor, 1.0, 1.0])},
            {"prior": found.prior * factor},
            {"noise": found.noise * factor},
            *([{"spread": slopes}] if structure == "slopes" else []),
        ]
        for other in others:
            fields: dict[str, Any] = {name: getattr(found, name) for name in ("shared", "own", "spread", "prior", "noise")}
            assert likelihood(x, z, unit, Pooled(**{**fields, **other})) < best


def test_each_step_raises_the_marginal_likelihood() -> None:
    x, z, unit = world(seed=3)
    moments, families = moments_of(x, z, unit), np.zeros(14, dtype=np.int64)
    state, values = Pooled.start(14, 1, 3, "slopes", 0.5), []
    for _ in range(12):
        state = state.step(moments, families, "slopes", noise="common")
        values.append(likelihood(x, z, unit, state))
    assert np.diff(values).min() > -1e-9


def test_units_without_a_row_get_the_shared_map() -> None:
    x, z, unit = world()
    labels = [Labels(np.flatnonzero(unit == one), z[unit == one][:, None]) for one in range(14)]
    labels[5] = Labels(np.zeros(0, dtype=np.int64), np.zeros((0, 1)))
    found = fit_numbers(Moments.of(x, labels), np.zeros(14, dtype=np.int64), "covariance", steps=30)
    np.testing.assert_allclose(found.own[5], 0.0, atol=1e-12)
    assert np.abs(found.own[4]).max() > 0.05


@pytest.mark.parametrize("classes", [1, 3])
def test_models_of_classes_are_the_most_likely_ones_under_their_variances(classes: int) -> None:
    x, z, unit = world(units=20, rows=12)
    values: Any = (z > 1)[:, None] if classes == 1 else np.digitize(z, [0, 2])[:, None] == np.arange(3)
    labels = [Labels(np.flatnonzero(unit == one), values[unit == one].astype(np.float64)) for one in range(20)]
    families = np.tile(np.arange(classes), 20)
    found = fit_classes(x, labels, families, "slopes", steps=3000)
    coefficients = found.coefficients(families).reshape(20, classes, 3)
    # Where the penalised likelihood is largest, what rows pull is what the penalty pulls back.
    pulled = np.zeros((20, classes, 3))
    for one in range(20):
        rows = labels[one].places
        pulled[one] = (labels[one].values - probabilities(x[rows] @ coefficients[one].T)).T @ x[rows]
    back = found.own.reshape(20, classes, 3) / np.diag(found.spread)
    np.testing.assert_allclose(pulled, back, rtol=0.01, atol=0.03)
    np.testing.assert_allclose(pulled.sum(axis=0), found.shared / np.array([FLAT, found.prior, found.prior]), atol=0.1)
