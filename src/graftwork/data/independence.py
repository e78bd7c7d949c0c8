"""Independence report of a generated world: can one hidden factor or label be read off another by construction?

Mutual information between all pairs of columns, in nats, on equal-frequency bins, less its Miller-Madow bias
(Miller, "Note on the bias of information estimates", 1955). P-values come from the largest share over all pairs when every
column is shuffled by itself (Westfall and Young, "Resampling-based multiple testing", 1993), so they hold for all pairs together.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.seeds import Seeds

__all__ = ["discretise", "independence_report", "mutual_information"]

Array = NDArray[Any]
_MAX_ROWS = 10_000


def discretise(values: Array, bins: int = 8) -> NDArray[np.int64]:
    """Return bin numbers ``[N]``, -1 for missing values: classes and columns of few values as they are, others in bins of equal
    frequency.

    Args:
        values: One column; whole numbers below 0 and NaN are missing.
        bins: Number of bins for columns with more than ``bins`` different values.
    """
    column = np.asarray(values)
    # Classes mark missing labels by -1, numbers by NaN.
    missing = column < 0 if np.issubdtype(column.dtype, np.integer) else np.isnan(column.astype(np.float64))
    codes = np.full(len(column), -1, dtype=np.int64)
    known = column[~missing]
    distinct, inverse = np.unique(known, return_inverse=True)
    if np.issubdtype(column.dtype, np.integer) or len(distinct) <= bins:
        codes[~missing] = inverse
    else:
        # Ties can make quantiles equal; a bin without width would be empty.
        edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1]))
        codes[~missing] = np.searchsorted(edges, known, side="right")
    return codes


def mutual_information(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Return the mutual information of two columns of bin numbers in nats, less its bias; about 0 on average if they are
    independent.

    Rows where one is missing (-1) are left out.
    """
    both = (first >= 0) & (second >= 0)
    if not both.any():
        return 0.0
    width = int(second[both].max()) + 1
    return _from_table(
        np.bincount(first[both] * width + second[both], minlength=(int(first[both].max()) + 1) * width).reshape(-1, width)
    )


def _from_table(table: Array) -> float:
    total = table.sum()
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    cells = table > 0
    # Empty cells add 0 to the sum, and have no logarithm.
    expected = np.outer(rows, columns)[cells] / total
    plain = float((table[cells] * np.log(table[cells] / expected)).sum() / total)
    # Miller-Madow: (rows - 1)(columns - 1) / 2N, since sampling alone makes the plain estimate positive.
    bias = (((rows > 0).sum() - 1) * ((columns > 0).sum() - 1)) / (2.0 * total)
    return plain - bias


def _entropy(codes: NDArray[np.int64]) -> float:
    shares = np.bincount(codes[codes >= 0])
    shares = shares[shares > 0] / max(shares.sum(), 1)
    return float(-(shares * np.log(shares)).sum())


def independence_report(
    factors: Mapping[str, Array],
    labels: Mapping[str, Array] | None = None,
    *,
    bins: int = 8,
    permutations: int = 200,
    alpha: float = 0.01,
    least_share: float = 0.02,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the dependence between hidden factors, and between labels.

    Args:
        factors: Hidden factors of the world, one column ``[N]`` each (or ``[N, K]``, then each column counts).
        labels: Labels of the tasks, alike; flattened masks do not belong here.
        bins: Bins for continuous columns.
        permutations: Shufflings behind the p-values; the smallest p-value is ``1 / (permutations + 1)``.
        alpha: Level of the test, over all pairs of one kind together.
        least_share: Dependence below this share of the smaller entropy never counts, however certain it is.
        seed: Seed of sub-sample (10,000 rows) and shuffling.

    Returns:
        ``{"factors": part, "labels": part, "settings": {...}}`` with, for each part, ``pairs`` (names, ``nats``, ``share`` of
        the smaller entropy, ``p_value``, ``dependent``), ``worst`` pair and ``independent``.

    Raises:
        DataError: If columns are of different length.
    """
    parts = {"factors": _columns(factors), "labels": _columns(labels or {})}
    lengths = {name: len(column) for part in parts.values() for name, column in part.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"All factors and labels need the same number of rows; got {lengths}.")
    seeds = Seeds(seed)
    number = next(iter(lengths.values()), 0)
    # Sorted, to read large arrays in order.
    rows = np.sort(seeds.numpy("rows").permutation(number)[:_MAX_ROWS])
    report: dict[str, Any] = {
        "settings": {
            "rows": len(rows),
            "bins": bins,
            "permutations": permutations,
            "alpha": alpha,
            "least_share": least_share,
            "seed": seed,
        }
    }
    for part, columns in parts.items():
        codes = {name: discretise(column, bins)[rows] for name, column in columns.items()}
        pairs = _pairs(codes, permutations, seeds.numpy(part))
        for pair in pairs:
            pair["dependent"] = bool(pair["p_value"] <= alpha and pair["share"] >= least_share)
        worst = max(pairs, key=lambda pair: float(pair["share"]), default=None)
        report[part] = {"pairs": pairs, "worst": worst, "independent": not any(pair["dependent"] for pair in pairs)}
    return report


def _columns(values: Mapping[str, Array]) -> dict[str, Array]:
    columns: dict[str, Array] = {}
    for name, value in values.items():
        array = np.asarray(value)
        if array.ndim == 1:
            columns[name] = array
        else:
            flat = array.reshape(len(array), -1)
            columns |= {name if flat.shape[1] == 1 else f"{name}[{index}]": flat[:, index] for index in range(flat.shape[1])}
    return columns


def _share(first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[float, float]:
    """Return mutual information in nats, and its share of the smaller entropy."""
    both = (first >= 0) & (second >= 0)
    least = min(_entropy(first[both]), _entropy(second[both]))
    value = mutual_information(first, second)
    # A constant column has no entropy and shares nothing.
    return value, value / least if least > 1e-12 else 0.0


def _pairs(codes: Mapping[str, NDArray[np.int64]], permutations: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    names = list(combinations(codes, 2))
    found = [_share(codes[one], codes[two]) for one, two in names]
    highest = []
    for _ in range(permutations if names else 0):
        # Every column by itself: all dependence goes, all frequencies stay.
        shuffled = {name: generator.permutation(column) for name, column in codes.items()}
        highest.append(max(_share(shuffled[one], shuffled[two])[1] for one, two in names))
    null = np.sort(np.array(highest))
    pairs = []
    for (one, two), (value, share) in zip(names, found, strict=True):
        beaten = len(null) - int(np.searchsorted(null, share, side="left"))
        # Plus one: the data themselves are one of the permutations, so that no p-value is 0.
        p_value = (1 + beaten) / (1 + len(null))
        pairs.append(
            {
                "names": [one, two],
                "nats": round(value, 6),
                "share": round(max(share, 0.0), 6),
                "p_value": p_value,
                "dependent": False,
            }
        )
    return pairs
