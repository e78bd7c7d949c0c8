"""Linear models of sparse features: ridge regression for all strengths at once, and logistic regression, with the strength
chosen on held-out rows.

Ridge regression is solved in the space that Lanczos steps on the rows' Gram matrix span: it is the same for every strength, so
that one pass gives the whole path. Features are centred without filling the zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.domains.tabular.label_blocks import LabelBlock
from graftwork.domains.text.row_space import MOST_ROWS, RowSpace

__all__ = [
    "INVERSE_STRENGTHS",
    "RIDGE_STRENGTHS",
    "fit_linear_blocks",
    "fit_logistic",
    "fit_ridge",
    "fold_pairs",
    "ridge_path",
]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
RIDGE_STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Penalties on squared weights of a target of variance 1, for texts of length 1."""
INVERSE_STRENGTHS = (0.2, 1.0, 5.0, 25.0, 125.0, 625.0, 3000.0)
"""Logistic regression minimises the sum of the losses plus squared weights over twice this."""
_MOST_STEPS = 120
_TOLERANCE = 1e-3
_SEVERAL_FOLDS = 5000
"""With more rows one fold of a fifth says enough."""
_MOST_WORK = 2_000_000_000
"""Numbers that may be multiplied in one fit of logistic regression: a minute or two. Large data converge in fewer steps."""
_CHOOSING = 6
"""So many targets of a form choose a strength of their own; where there are more, all others take the median of theirs."""


def fold_pairs(size: int, groups: NDArray[np.int64] | None = None, *, folds: int = 5) -> Iterator[tuple[Rows, Rows]]:
    """Yield places to fit on and places held out: all folds of up to 5,000 rows, the first of them of more.

    Args:
        size: Number of rows; they are dealt out in turn, in a fixed random order.
        groups: Group of each row; a group is in one fold.
        folds: Most folds.
    """
    names, place = (np.arange(size),) * 2 if groups is None else np.unique(groups, return_inverse=True)
    number = min(folds, len(names))
    if number < 2:
        return
    dealt = np.empty(len(names), dtype=np.int64)
    dealt[np.random.default_rng(0).permutation(len(names))] = np.arange(len(names)) % number
    fold = dealt[place]
    for index in range(number if size <= _SEVERAL_FOLDS else 1):
        yield np.flatnonzero(fold != index), np.flatnonzero(fold == index)


def _transposed(x: Any) -> Any:
    return np.ascontiguousarray(x.T) if isinstance(x, np.ndarray) else x.T.tocsr()


def ridge_path(x: Any, y: Floats, strengths: Sequence[float]) -> tuple[Floats, Floats]:
    """Return weights ``[D, S]`` and intercepts ``[S]`` of ridge regression for each strength.

    Args:
        x: Features, sparse or dense ``[N, D]``.
        y: Target, ``[N]``.
        strengths: Penalties, above 0.
    """
    from scipy.linalg import eigh_tridiagonal

    center, means = float(y.mean()), np.asarray(x.mean(axis=0)).reshape(-1)
    transposed = _transposed(x)

    def backward(v: Floats) -> Floats:
        return np.asarray(transposed @ v) - means * v.sum()

    rest = y - center
    length = float(np.linalg.norm(rest))
    if length <= 1e-12 * max(1.0, abs(center)) * np.sqrt(len(y)):
        return np.zeros((x.shape[1], len(strengths))), np.full(len(strengths), center)
    most = min(_MOST_STEPS, len(y))
    basis = np.empty((most, len(y)))
    diagonal: list[float] = []
    off: list[float] = []
    basis[0] = rest / length
    coefficients = np.zeros((0, len(strengths)))
    for step in range(1, most + 1):
        known = basis[:step]
        weights = backward(known[-1])
        image = np.asarray(x @ weights) - means @ weights
        diagonal.append(float(known[-1] @ image))
        for _ in range(2):  # twice is enough to keep the basis orthogonal
            image -= known.T @ (known @ image)
        beta = float(np.linalg.norm(image))
        last = step == most or beta <= 1e-10 * max(diagonal)
        if last or step % 10 == 0:
            values, vectors = eigh_tridiagonal(np.array(diagonal), np.array(off))
            shifted = vectors[0][:, None] / (np.maximum(values, 0.0)[:, None] + np.asarray(strengths))
            coefficients = length * vectors @ shifted
            if last or beta * np.abs(coefficients[-1]).max() <= _TOLERANCE * length:
                break
        off.append(beta)
        basis[step] = image / beta
    duals = basis[: len(coefficients)].T @ coefficients
    found = np.stack([backward(dual) for dual in duals.T], axis=1)
    return found, center - means @ found


def fit_ridge(
    x: Any, y: Floats, groups: NDArray[np.int64] | None = None, *, strength: float | None = None
) -> tuple[Floats, float, float]:
    """Return weights ``[D]``, the intercept and the strength: the given one, or the one that predicts held-out rows best."""
    if strength is None:
        errors = np.zeros(len(RIDGE_STRENGTHS))
        for fit, held in fold_pairs(len(y), groups):
            weights, intercepts = ridge_path(x[fit], y[fit], RIDGE_STRENGTHS)
            errors += ((x[held] @ weights + intercepts - y[held][:, None]) ** 2).sum(axis=0)
        strength = RIDGE_STRENGTHS[int(errors.argmin())] if errors.any() else 1.0
    weights, intercepts = ridge_path(x, y, [strength])
    return weights[:, 0], float(intercepts[0]), strength


def fit_logistic(
    x: Any, y: Rows, num_classes: int, groups: NDArray[np.int64] | None = None, *, inverse: float | None = None
) -> tuple[Floats, Floats, float]:
    """Return weights ``[D, K]``, intercepts ``[K]`` and the inverse strength: the given one, or the one that predicts held-out
    rows best.

    Args:
        x: Features, sparse or dense ``[N, D]``.
        y: Classes, ``[N]``.
        num_classes: Two classes have one column, ``K = 1``; more have one each.
        groups: Groups of the rows.
        inverse: The inverse strength.
    """
    if inverse is None:
        inverse = _best_inverse(x, y, num_classes, groups)
    work = (x.size if isinstance(x, np.ndarray) else x.nnz) * (num_classes if num_classes > 2 else 1)
    steps = int(np.clip(_MOST_WORK // max(work, 1), 20, 200))
    state = _minimise(x, y, num_classes, inverse, _start(x.shape[1], y, num_classes), steps=steps, tolerance=1e-7)
    return state[:-1], state[-1], inverse


def _best_inverse(x: Any, y: Rows, num_classes: int, groups: NDArray[np.int64] | None) -> float:
    if len(y) > MOST_ROWS:
        some = np.sort(np.random.default_rng(0).permutation(len(y))[:MOST_ROWS])
        x, y, groups = x[some], y[some], None if groups is None else groups[some]
        if not isinstance(x, np.ndarray):
            x = RowSpace.of_rows(x).coordinates
    losses = np.zeros(len(INVERSE_STRENGTHS))
    for fit, held in fold_pairs(len(y), groups, folds=3):
        known, wanted = y[fit], y[held]
        x_fit, x_held = x[fit], x[held]
        state, best = _start(x.shape[1], known, num_classes), np.inf
        for place, inverse in enumerate(INVERSE_STRENGTHS):
            if losses[place] == np.inf:
                break
            state = _minimise(x_fit, known, num_classes, inverse, state, steps=25, tolerance=1e-5)
            loss = _loss(x_held @ state[:-1] + state[-1], wanted)[0]
            losses[place] += loss
            best = min(best, loss)
            if loss > 1.05 * best:  # weaker penalties only cost time
                losses[place + 1 :] = np.inf
    return INVERSE_STRENGTHS[int(losses.argmin())] if losses.any() else 10.0


def fit_linear_blocks(
    x: Any, blocks: Sequence[LabelBlock], rows: Rows, groups: NDArray[np.int64] | None = None
) -> tuple[Floats, Floats, list[float]]:
    """Fit every label block, each on the rows that have its label.

    Of many blocks of a form a few choose the strength for all. Logistic regression of many rows chooses it on some of them.

    Args:
        x: Features of ``rows``, sparse ``[n, D]``.
        blocks: What is predicted; ``K`` columns in all.
        rows: Rows of the suite.
        groups: Group of each row of the suite.

    Returns:
        Weights ``[D, K]``, intercepts ``[K]``, and the strength of each block (inverse strengths for classes).
    """
    strengths = [0.0] * len(blocks)
    space = RowSpace.of_rows(x) if len(rows) <= MOST_ROWS else None
    features = x if space is None else space.coordinates
    fitted: dict[int, tuple[Floats, Floats]] = {}
    for form in (True, False):
        choosing = _spread(blocks, is_number=form)
        rest = [number for number, block in enumerate(blocks) if block.is_number is form and number not in choosing]
        for number in [*choosing, *rest]:
            given = None if number in choosing else float(np.exp(np.median(np.log([strengths[place] for place in choosing]))))
            slopes, offsets, strengths[number] = _fit_block(features, blocks[number], rows, groups, given)
            fitted[number] = slopes, offsets
    weights = np.concatenate([fitted[number][0] for number in range(len(blocks))], axis=1)
    intercepts = np.concatenate([fitted[number][1] for number in range(len(blocks))])
    if space is not None:
        weights, intercepts = space.weights(weights, intercepts)
    return weights, intercepts, strengths


def _spread(blocks: Sequence[LabelBlock], *, is_number: bool) -> list[int]:
    """Return the blocks of a form that choose a strength: all, or a few evenly over the list."""
    places = [number for number, block in enumerate(blocks) if block.is_number is is_number]
    return places if len(places) <= _CHOOSING else [places[len(places) * index // _CHOOSING] for index in range(_CHOOSING)]


def _fit_block(
    x: Any, block: LabelBlock, rows: Rows, groups: NDArray[np.int64] | None, strength: float | None
) -> tuple[Floats, Floats, float]:
    places = np.flatnonzero(block.known[rows])
    own, inner = rows[places], None if groups is None else groups[rows[places]]
    x = x if len(places) == len(rows) else x[places]
    if block.is_number:
        slopes, intercept, found = fit_ridge(x, block.targets(own)[:, 0], inner, strength=strength)
        return slopes[:, None], np.array([intercept]), found
    return fit_logistic(x, block.classes(own), block.num_classes, inner, inverse=strength)


def _start(width: int, y: Rows, num_classes: int) -> Floats:
    """Return no weights, and intercepts that give the classes' shares: ``[D + 1, K]``."""
    shares = (np.bincount(y, minlength=num_classes) + 0.5) / (len(y) + 0.5 * num_classes)
    state = np.zeros((width + 1, num_classes if num_classes > 2 else 1))
    state[-1] = np.log(shares) if num_classes > 2 else np.log(shares[1] / shares[0])
    return state


def _loss(scores: Floats, y: Rows) -> tuple[float, Floats]:
    """Return the summed log loss and its gradient with respect to the scores ``[N, K]``."""
    if scores.shape[1] == 1:
        score = scores[:, 0]
        wrong = np.logaddexp(0.0, np.where(y > 0, -score, score))
        return float(wrong.sum()), (0.5 * (1.0 + np.tanh(0.5 * score)) - y)[:, None]
    shifted = scores - scores.max(axis=1, keepdims=True)
    exponents = np.exp(shifted)
    total = exponents.sum(axis=1, keepdims=True)
    places = np.arange(len(y))
    loss = float((np.log(total[:, 0]) - shifted[places, y]).sum())
    gradient = exponents / total
    gradient[places, y] -= 1.0
    return loss, gradient


def _minimise(x: Any, y: Rows, num_classes: int, inverse: float, start: Floats, *, steps: int, tolerance: float) -> Floats:
    from scipy.optimize import minimize

    transposed = _transposed(x)

    def objective(flat: Floats) -> tuple[float, Floats]:
        state = flat.reshape(start.shape)
        loss, slope = _loss(x @ state[:-1] + state[-1], y)
        gradient = np.vstack([transposed @ slope + state[:-1] / inverse, slope.sum(axis=0)])
        return (loss + 0.5 * float((state[:-1] ** 2).sum()) / inverse) / len(y), gradient.reshape(-1) / len(y)

    found = minimize(
        objective, start.reshape(-1), jac=True, method="L-BFGS-B", options={"maxiter": steps, "maxcor": 6, "ftol": tolerance}
    )
    return np.asarray(found.x, dtype=np.float64).reshape(start.shape)
