"""Targets that follow from input columns, and inputs that follow from several targets: rounded copies, sums, differences,
products and rates, and the time between two dates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.core.plain_numbers import plain_number
from graftwork.core.seeds import Seeds
from graftwork.data.names import short_list
from graftwork.data.reading.elapsed import elapsed_words
from graftwork.data.reading.table import Table
from graftwork.data.reading.target_cells import InferredTask
from graftwork.interfaces.task_kind import task_kind

__all__ = ["relation_findings"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_ROWS, _COLUMNS = 2000, 150
_FEWEST = 40
_MOST_TARGETS = 50
_EXACT, _ROUNDED = 1e-6, 0.05
"""Shares of variance that a linear map may leave: of exact numbers, and of numbers that were rounded."""
_MOST_TERMS = 4
_AGREE = 0.99
"""Share of rows in which a relation holds."""


@dataclass(frozen=True, slots=True)
class _Term:
    name: str
    factor: float


def relation_findings(table: Table, names: Sequence[str], tasks: Sequence[InferredTask], seed: int = 0) -> list[tuple[str, str]]:
    """Return ``(example, sentence)`` of each relation between numbers, looked for on at most 2,000 rows.

    A relation counts if it holds in 99 % of the rows up to the rounding of the numbers, which must be far finer than the target's
    spread. Of more than 150 columns, those most correlated with the target are looked at.

    Args:
        table: The raw table.
        names: Feature columns.
        tasks: The tasks, with their targets.
        seed: Draws the rows.
    """
    targets = _target_numbers(tasks)
    if not targets:
        return []
    rows = np.sort(Seeds(seed).numpy("relations").permutation(len(table))[:_ROWS])
    targets = {name: values[rows] for name, values in targets.items()}
    features = {name: table[name].numbers().values[rows] for name in names if table[name].kind == "numeric"}
    features = {name: np.where(np.isfinite(values), values, np.nan) for name, values in features.items()}
    features = {name: values for name, values in features.items() if _spread(values) > 0}
    dates = {name: table[name].dates().values[rows] for name in names if table[name].kind == "date"}
    matrix = np.stack(list(features.values()), axis=1) if features else np.empty((len(rows), 0))
    found: list[tuple[str, str]] = []
    for name, values in targets.items():
        known = ~np.isnan(values)
        if known.sum() < _FEWEST or _spread(values) == 0:
            continue
        between = elapsed_words(
            {one: cells[known] for one, cells in dates.items()}, values[known], _step(np.round(values[known], 4))
        )
        if between:
            found.append((f"{name!r} ({between})", _sentence(f"target {name!r} is {between}")))
            continue
        near = _nearest(matrix[known], values[known])
        columns = list(features)
        chosen = {columns[index]: features[columns[index]][known] for index in near.tolist()}
        chosen = {one: cells for one, cells in chosen.items() if (~np.isnan(cells)).sum() >= _FEWEST and _spread(cells) > 0}
        if not chosen:
            continue
        words = _rounded_copy(chosen, values[known]) or _formula(chosen, values[known])
        if words:
            found.append((f"{name!r} ({words})", _sentence(f"target {name!r} is {words}")))
    if len(targets) > 1:
        for name, words in _made_of_targets(features, targets):
            found.append((f"column {name!r} ({words})", _sentence(f"column {name!r} is {words}, which are targets")))
    return found


def _sentence(words: str) -> str:
    return f"Possible leak: {words}. Leave out what is only known once the targets are (--ignore)."


def _target_numbers(tasks: Sequence[InferredTask]) -> dict[str, Floats]:
    found: dict[str, Floats] = {}
    for task in tasks:
        columns = task_kind(task.spec).label_columns(task.spec, task.target)
        for index, column in enumerate(columns):
            if column.form == "number" and len(found) < _MOST_TARGETS:
                name = task.spec.name if len(columns) == 1 else f"{task.spec.name}[{index}]"
                found[name] = np.asarray(column.values, dtype=np.float64)
    return found


def _spread(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.std()) if len(known) else 0.0


def _filled(matrix: Floats) -> Floats:
    """Return columns around zero, with zeros where cells are missing."""
    lost = np.isnan(matrix)
    means = np.where(lost, 0.0, matrix).sum(axis=0) / np.maximum((~lost).sum(axis=0), 1)
    return np.where(lost, 0.0, matrix - means)


def _nearest(matrix: Floats, target: Floats) -> NDArray[np.int64]:
    """Return the columns to look at, those most correlated with the target first."""
    filled, centred = _filled(matrix), target - target.mean()
    norms = np.sqrt((filled**2).sum(axis=0)) * np.sqrt((centred**2).sum())
    strength = np.abs(centred @ filled) / np.maximum(norms, 1e-300)
    most = max(2, min(_COLUMNS, len(target) // 3))
    return np.argsort(-strength, kind="stable")[:most]


def _step(values: Floats) -> float:
    """Return the step on which numbers lie, a power of ten from 1 to 1e-6; 0 if they are finer."""
    known = values[~np.isnan(values)]
    for digits in range(7):
        scaled = known * 10.0**digits
        if (np.abs(scaled - np.round(scaled)) <= 1e-6 * np.maximum(1.0, np.abs(scaled))).all():
            return 10.0**-digits
    return 0.0


def _rounded_copy(columns: Mapping[str, Floats], target: Floats) -> str:
    """Return words if a column is the target, or the target is a column, with fewer digits."""
    for name, values in list(columns.items())[:20]:
        known = ~np.isnan(values)
        if known.sum() < _FEWEST or known.mean() < _AGREE:
            continue
        # The coarser of the two is the copy; float32 keeps seven digits of a target.
        step = max(_step(values), _step(np.round(target, 4)), 1e-6 * float(np.abs(target).max()))
        if step > 0.2 * _spread(target):
            continue
        error = np.abs(values[known] - target[known])
        # Cut digits are up to one step away, rounded ones half of it.
        if (error <= 1.001 * step).mean() >= _AGREE:
            return f"{name!r} with rounded numbers" if error.max() > 1e-6 * np.abs(target).max() else f"a copy of {name!r}"
    return ""


def _formula(columns: Mapping[str, Floats], target: Floats) -> str:
    """Return the target as a sum, difference, product or rate of several columns; empty if it is none."""
    columns = _without_copies(columns)
    if len(columns) < 2 or len(target) < 2 * len(columns) + 20:
        columns = dict(list(columns.items())[: max(2, (len(target) - 20) // 2)])
    matrix = np.stack(list(columns.values()), axis=1)
    words = _linear(columns, _filled(matrix), target)
    if words:
        return words
    positive = {name: values for name, values in columns.items() if np.nanmin(values) > 0}
    if len(positive) < 2 or target.min() <= 0:
        return ""
    return _product(positive, target)


def _without_copies(columns: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return columns without those that repeat an earlier one, among which a sum could not decide."""
    names = list(columns)
    filled = _filled(np.stack([columns[name] for name in names], axis=1))
    filled = filled / np.maximum(np.sqrt((filled**2).sum(axis=0)), 1e-300)
    repeats = np.triu(np.abs(filled.T @ filled) > 1.0 - 1e-9, k=1).any(axis=0)
    return {name: columns[name] for name, is_copy in zip(names, repeats.tolist(), strict=True) if not is_copy}


def _solve(filled: Floats, target: Floats) -> tuple[Floats, float]:
    """Return factors of the least-squares map, and the share of variance that it leaves."""
    scale = np.maximum(filled.std(axis=0), 1e-300)
    centred = target - target.mean()
    factors = np.linalg.lstsq(filled / scale, centred, rcond=1e-10)[0]
    left = float(((centred - (filled / scale) @ factors) ** 2).mean() / max(float(centred.var()), 1e-300))
    return factors / scale, left


def _terms(columns: Mapping[str, Floats], filled: Floats, target: Floats, factors: Floats) -> list[_Term]:
    weight = np.abs(factors) * filled.std(axis=0) / max(float(target.std()), 1e-300)
    return [_Term(name, float(factor)) for name, factor, size in zip(columns, factors, weight, strict=True) if size > 0.02]


def _linear(columns: Mapping[str, Floats], filled: Floats, target: Floats) -> str:
    factors, left = _solve(filled, target)
    if left > _ROUNDED:
        return ""
    terms = _terms(columns, filled, target, factors)
    if len(terms) < 2:
        return ""
    if left <= _EXACT and (len(terms) > _MOST_TERMS or any(abs(abs(term.factor) - 1.0) > 0.02 for term in terms)):
        return f"a weighted sum of the columns {short_list([repr(term.name) for term in terms], 3)}"
    if len(terms) > _MOST_TERMS or any(abs(abs(term.factor) - 1.0) > 0.1 for term in terms):
        return ""
    signs = [np.sign(term.factor) for term in terms]
    total = sum(sign * columns[term.name] for sign, term in zip(signs, terms, strict=True))
    steps = [_step(columns[term.name]) for term in terms]
    offset = float(np.nanmedian(target - total))
    error = np.abs(target - total - offset)
    if not _holds(error, target, 0.51 * (_step(np.round(target, 4)) + sum(steps))):
        return ""
    ordered = sorted(zip(signs, terms, strict=True), key=lambda pair: -pair[0])
    text = " ".join(f"{'+' if sign > 0 else '-'} {term.name!r}" for sign, term in ordered)
    return text.removeprefix("+ ")


def _product(columns: Mapping[str, Floats], target: Floats) -> str:
    logs = np.log(np.stack(list(columns.values()), axis=1))
    filled, log_target = _filled(logs), np.log(target)
    factors, left = _solve(filled, log_target)
    if left > _ROUNDED:
        return ""
    terms = [term for term in _terms(columns, filled, log_target, factors) if round(term.factor)]
    # Powers of one and two are rates, areas and the like; others are no rule that somebody applied.
    if not 2 <= len(terms) <= _MOST_TERMS or any(
        abs(term.factor - round(term.factor)) > 0.1 or abs(round(term.factor)) > 2 for term in terms
    ):
        return ""
    value = np.ones(len(target))
    for term in terms:
        value = value * columns[term.name] ** round(term.factor)
    constant = float(np.nanmedian(target / value))
    # Rounding blurs the constant, which is 1, 100 or 0.5 and the like.
    tidy = float(f"{constant:.3g}")
    constant = tidy if abs(constant / tidy - 1.0) < 1e-3 else constant
    if not _holds(np.abs(target - constant * value), target, 0.51 * _step(np.round(target, 4))):
        return ""
    over = [_power(term) for term in terms if term.factor > 0]
    under = [_power(term) for term in terms if term.factor < 0]
    front = [] if abs(constant - 1.0) < 1e-3 else [plain_number(constant)]
    return " * ".join([*front, *over] or ["1"]) + "".join(f" / {part}" for part in under)


def _power(term: _Term) -> str:
    return repr(term.name) + ("^2" if abs(round(term.factor)) == 2 else "")


def _holds(error: Floats, target: Floats, tolerance: float) -> bool:
    known = ~np.isnan(error)
    # Rounding as coarse as the target itself would let anything hold.
    tolerance = max(tolerance, 1e-5 * float(np.abs(target).max()))
    return bool(known.sum() >= _FEWEST and tolerance < 0.2 * target.std() and (error[known] <= tolerance).mean() >= _AGREE)


def _made_of_targets(features: Mapping[str, Floats], targets: Mapping[str, Floats]) -> list[tuple[str, str]]:
    """Return the columns that are sums, differences, products or rates of several targets."""
    known = np.all([~np.isnan(values) for values in targets.values()], axis=0)
    if known.sum() < max(_FEWEST, 2 * len(targets) + 20):
        return []
    columns = {name: values[known] for name, values in targets.items() if _spread(values[known]) > 0}
    found: list[tuple[str, str]] = []
    for logarithm in (False, True):
        if logarithm:
            columns = {name: values for name, values in columns.items() if values.min() > 0}
        if len(columns) < 2:
            break
        matrix = np.stack(list(columns.values()), axis=1)
        filled = _filled(np.log(matrix) if logarithm else matrix)
        for name, values in _promising(features, known, filled, logarithm):
            if name in dict(found):
                continue
            words = _product(columns, values) if logarithm else _linear(columns, filled, values)
            if words and not words.startswith("a weighted"):
                found.append((name, words))
    return found


def _promising(features: Mapping[str, Floats], known: Bools, filled: Floats, logarithm: bool) -> list[tuple[str, Floats]]:
    """Return the columns that a linear map of the targets nearly gives; one decomposition serves all columns."""
    full = {name: values[known] for name, values in features.items()}
    full = {name: values for name, values in full.items() if not np.isnan(values).any() and _spread(values) > 0}
    if logarithm:
        full = {name: values for name, values in full.items() if values.min() > 0}
    if not full:
        return []
    matrix = np.stack(list(full.values()), axis=1)
    wanted = _filled(np.log(matrix) if logarithm else matrix)
    basis = np.linalg.svd(filled, full_matrices=False)[0]
    left = ((wanted - basis @ (basis.T @ wanted)) ** 2).sum(axis=0) / np.maximum((wanted**2).sum(axis=0), 1e-300)
    return [(name, values) for (name, values), share in zip(full.items(), left.tolist(), strict=True) if share <= _ROUNDED]
