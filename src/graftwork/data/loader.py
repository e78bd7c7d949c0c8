"""Batches as a pure function of seed and step: a run resumes from its step number alone.

Every row of a data set is dealt once before any is dealt again. With several data sets (:attr:`Suite.domain`) a mixing policy sets how
often each is met: ``proportional`` to its rows, ``uniform``, or a temperature ``T`` with shares ``n^(1/T)`` (as in mT5,
Xue et al. 2021, https://arxiv.org/abs/2010.11934): 1 is proportional, large is uniform. ``balanced`` is uniform within every batch, and
``round-robin`` takes each batch from one data set, all in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError, DataError
from graftwork.data.mixing import mixing_probabilities, parse_mixing
from graftwork.data.suite import Suite, labelled_rows

__all__ = ["BatchStream", "Mixing", "RowSource", "inputs_to_torch", "iter_rows"]

Mixing = Literal["proportional", "uniform", "balanced", "round-robin"] | float


class BatchStream:
    """Endless stream of training batches.

    Args:
        suite: The data.
        rows: Rows to draw from; those without any label of any task are left out.
        batch_size: Rows a batch; at most the number of rows is used.
        seed: Seed of the order.
        mixing: How often each data set is met (see the module).
        device: Where the tensors go.

    Raises:
        DataError: If no row has a label.
        ConfigError: If ``batch_size`` or ``mixing`` is out of range.
    """

    def __init__(
        self,
        suite: Suite,
        rows: NDArray[np.int64],
        batch_size: int,
        seed: int,
        *,
        mixing: Mixing = "proportional",
        device: torch.device | str = "cpu",
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"`batch_size` must be at least 1; got {batch_size!r}.")
        rows = np.asarray(rows, dtype=np.int64)
        self._source = RowSource(suite, device)
        kept = rows[self._source.known[:, rows].any(axis=0)]
        if len(kept) == 0:
            raise DataError(
                f"Suite {suite.name!r}: none of the {len(rows)} training rows has a label of any task ({', '.join(suite.task_names)}). "
                "Check the names of the target columns and how missing labels are written."
            )
        self.rows: NDArray[np.int64] = kept
        self.batch_size = min(batch_size, len(kept))
        self.steps_per_epoch = -(-len(kept) // self.batch_size)
        self.complete = bool(self._source.known[:, kept].all())
        """Whether every row has a label of every task."""
        self.fully_labelled = frozenset(name for name in suite.task_names if _has_all_labels(suite.targets[name], kept))
        """Tasks of which no entry of any row is missing: their losses need no mask."""
        self._seed = seed
        self._mixing = parse_mixing(mixing)
        domain = self._source.domain[kept]
        pools = [kept[domain == index] for index in np.unique(domain)]
        self._pools: list[NDArray[np.int64]] = pools
        self._quota = _whole_shares(
            self.steps_per_epoch * self.batch_size, mixing_probabilities([len(pool) for pool in pools], mixing)
        )
        self._epoch = -1
        self._order: NDArray[np.int64] = kept[:0]

    @property
    def source(self) -> RowSource:
        """Where batches of chosen rows come from (validation reads the same arrays)."""
        return self._source

    def rows_of(self, step: int) -> NDArray[np.int64]:
        """Return the suite's row numbers that make up the batch of ``step``, int64 ``[B]``."""
        if self._mixing == "round-robin":
            turn, index = divmod(step, len(self._pools))
            size = min(self.batch_size, len(self._pools[index]))
            return self._dealt(index, turn * size, (turn + 1) * size)
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order, self._epoch = self._deal(epoch), epoch
        return self._order[index * self.batch_size : (index + 1) * self.batch_size]

    def batch(self, step: int) -> Batch:
        """Return the batch of ``step``; it depends on nothing that was drawn before."""
        return self._source.batch(self.rows_of(step))

    def _deal(self, epoch: int) -> NDArray[np.int64]:
        parts = [self._dealt(index, epoch * quota, (epoch + 1) * quota) for index, quota in enumerate(self._quota)]
        if len(parts) == 1:
            return parts[0]
        if self._mixing == "balanced":  # each data set at even distances, so that any run of rows holds its share of all
            places = np.concatenate([(np.arange(len(part)) + 0.5) / max(len(part), 1) for part in parts])
            return np.concatenate(parts)[np.argsort(places, kind="stable")]
        return np.random.default_rng([self._seed, len(parts), epoch]).permutation(np.concatenate(parts))

    def _dealt(self, index: int, first: int, last: int) -> NDArray[np.int64]:
        """Return draws ``first`` to ``last`` of one data set, which is shuffled anew whenever all its rows were dealt."""
        pool = self._pools[index]
        rounds = range(first // len(pool), -(-last // len(pool)))
        dealt = [pool[np.random.default_rng([self._seed, index, number]).permutation(len(pool))] for number in rounds]
        offset = first - rounds.start * len(pool)
        return np.concatenate(dealt)[offset : offset + last - first] if dealt else pool[:0]


class RowSource:
    """Gathers rows into batches. One-column targets lie in two blocks ``[T, N]``, so that many tasks cost one lookup, not many."""

    def __init__(self, suite: Suite, device: torch.device | str = "cpu") -> None:
        self.suite, self.device = suite, torch.device(device)
        self.known = np.stack([labelled_rows(suite.targets[name]) for name in suite.task_names])
        self.domain = np.zeros(len(suite), dtype=np.int64) if suite.domain is None else np.asarray(suite.domain, dtype=np.int64)
        self._names = suite.task_names
        self._known = torch.from_numpy(self.known)
        self._domain = torch.from_numpy(self.domain) if suite.domain is not None else None
        whole = [name for name in self._names if suite.targets[name].ndim == 1]
        column = [name for name in self._names if suite.targets[name].ndim == 2 and suite.targets[name].shape[1] == 1]
        self._blocks: list[tuple[list[str], Tensor]] = []
        if whole:
            self._blocks.append(
                (whole, torch.from_numpy(np.stack([np.asarray(suite.targets[name], dtype=np.int64) for name in whole])))
            )
        if column:
            stacked = np.stack([np.asarray(suite.targets[name], dtype=np.float32) for name in column])
            self._blocks.append((column, torch.from_numpy(stacked)))
        self._others = [name for name in self._names if name not in {*whole, *column}]

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Return the batch of ``rows``."""
        index = torch.from_numpy(np.array(rows, dtype=np.int64))  # a copy: rows may be read-only
        targets: dict[str, Tensor] = {}
        for names, block in self._blocks:
            targets.update(zip(names, block.index_select(1, index).unbind(0), strict=True))
        for name in self._others:
            targets[name] = torch.from_numpy(np.asarray(self.suite.targets[name][rows]))
        mask = dict(zip(self._names, self._known.index_select(1, index).unbind(0), strict=True))
        domain = torch.zeros_like(index) if self._domain is None else self._domain.index_select(0, index)
        batch = Batch(
            inputs_to_torch(self.suite.inputs, rows), {name: targets[name] for name in self._names}, mask, index, domain
        )
        return batch if self.device.type == "cpu" else batch.to(self.device)


def inputs_to_torch(inputs: Mapping[str, NDArray[Any]], rows: NDArray[np.int64]) -> dict[str, Tensor]:
    """Return copies of some rows of named arrays (mapped files too) as CPU tensors."""
    return {name: torch.from_numpy(np.asarray(array[rows])) for name, array in inputs.items()}


def iter_rows(suite: Suite, rows: NDArray[np.int64], batch_size: int, *, device: torch.device | str = "cpu") -> Iterator[Batch]:
    """Yield ``rows`` in order, ``batch_size`` at a time, the last batch shorter; for evaluation."""
    source = RowSource(suite, device)
    rows = np.asarray(rows, dtype=np.int64)
    for start in range(0, len(rows), batch_size):
        yield source.batch(rows[start : start + batch_size])


def _has_all_labels(target: NDArray[Any], rows: NDArray[np.int64]) -> bool:
    chosen = target[rows]
    return bool((chosen >= 0).all() if np.issubdtype(chosen.dtype, np.integer) else ~np.isnan(chosen).any())


def _whole_shares(total: int, shares: NDArray[np.float64]) -> list[int]:
    """Split ``total`` by largest remainders; every data set with a share is met at least once where ``total`` allows."""
    exact = shares * total
    counts = np.floor(exact).astype(np.int64)
    for index in np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]:
        counts[index] += 1
    for index in np.flatnonzero((counts == 0) & (shares > 0)):
        if counts.max() > 1:
            counts[counts.argmax()] -= 1
            counts[index] += 1
    return [int(count) for count in counts]
