"""Batches as a pure function of seed and step: a run resumes from its step number alone.

A step is made of labelled rows, in the order of one :class:`~graftwork.data.dealing.Dealer`. Quotas make it of several parts,
each with a dealer of
its own: labelled and unlabelled rows, of all data sets together or of single ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graftwork.core.batch import LABELLED, SEVERAL_TASKS, UNLABELLED, Batch
from graftwork.core.errors import ConfigError, DataError
from graftwork.data.dealing import Dealer, Mixing
from graftwork.data.names import did_you_mean
from graftwork.data.quotas import Quota, parse_quotas
from graftwork.data.suite import Suite, labelled_rows

__all__ = ["BatchStream", "Mixing", "RowSource", "inputs_to_torch", "iter_rows"]


class BatchStream:
    """Endless stream of training batches.

    Args:
        suite: The data.
        rows: Rows to draw from; those without any label of any task are left out, unless quotas ask for them.
        batch_size: Rows a batch; at most the number of rows is used. With quotas, their sum counts in its place.
        seed: Seed of the order.
        mixing: How often each data set is met (see :mod:`graftwork.data.dealing`).
        quotas: What a step is made of, as :func:`~graftwork.data.quotas.parse_quotas` reads it; empty takes labelled rows only.
            A batch holds its quotas one after the other.
        device: Where the tensors go.

    Raises:
        DataError: If no row has a label, or there are no rows for a quota.
        ConfigError: If ``batch_size``, ``mixing`` or ``quotas`` cannot be used, or a quota names an unknown domain.
    """

    def __init__(
        self,
        suite: Suite,
        rows: NDArray[np.int64],
        batch_size: int,
        seed: int,
        *,
        mixing: Mixing = "proportional",
        quotas: Sequence[Quota | Mapping[str, Any]] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"`batch_size` must be at least 1; got {batch_size!r}.")
        rows = np.asarray(rows, dtype=np.int64)
        self._source = RowSource(suite, device)
        has_label = self._source.role[rows] == LABELLED
        if not has_label.any():
            raise DataError(
                f"Suite {suite.name!r}: none of the {len(rows)} training rows has a label of any task "
                f"({', '.join(suite.task_names)}). Check the names of the target columns and how missing labels are written."
            )
        self.quotas = parse_quotas(quotas)
        if self.quotas:
            # Each part has a seed of its own, so that two data sets of equal length are not shuffled alike.
            parts = [np.random.SeedSequence([seed, number]).generate_state(2) for number in range(len(self.quotas))]
            self._dealers = [
                # Two words of 32 bits make a seed of 64.
                self._dealer(rows, quota, int(part[0]) << 32 | int(part[1]), mixing)
                for quota, part in zip(self.quotas, parts, strict=True)
            ]
        else:
            kept = rows[has_label]
            self._dealers = [Dealer(kept, self._source.domain[kept], batch_size, seed, mixing)]
        self._find_pools()

    def _dealer(self, rows: NDArray[np.int64], quota: Quota, seed: int, mixing: Mixing) -> Dealer:
        pool = rows[self._source.role[rows] == (LABELLED if quota.role == "labelled" else UNLABELLED)]
        if quota.domain:
            names = self._source.domain_names
            if quota.domain not in names:
                raise ConfigError(
                    f"A quota asks for {quota}, but the domains are {', '.join(names)}.{did_you_mean(quota.domain, names)}"
                )
            pool = pool[self._source.domain[pool] == names.index(quota.domain)]
        if len(pool) == 0:
            raise DataError(
                f"A quota asks for {quota} a step, but none of the {len(rows)} training rows of suite "
                f"{self._source.suite.name!r} is one. Add such rows, or choose a plan that needs none."
            )
        return Dealer(pool, self._source.domain[pool], quota.rows, seed, mixing)

    def _find_pools(self) -> None:
        suite, source = self._source.suite, self._source
        everything = np.concatenate([dealer.rows for dealer in self._dealers])
        is_labelled = source.role[everything] == LABELLED
        # All rows of a dealer have one role, so the first one tells.
        labelled = [dealer for dealer in self._dealers if source.role[dealer.rows[0]] == LABELLED]
        self.rows: NDArray[np.int64] = everything[is_labelled]
        """Labelled rows that are drawn from, int64 ``[N]``."""
        self.unlabelled: NDArray[np.int64] = everything[~is_labelled]
        """Unlabelled rows that are drawn from, int64 ``[U]``; none without quotas for them."""
        self.batch_size = sum(dealer.size for dealer in self._dealers)
        self.steps_per_epoch = max(dealer.steps_per_epoch for dealer in labelled)
        """Steps in which every labelled row was drawn once (as often as ``mixing`` says, with several data sets)."""
        self.complete = bool(source.known[:, self.rows].all())
        """Whether every labelled row has a label of every task."""
        self.fully_labelled = frozenset(
            name for name in suite.task_names if not len(self.unlabelled) and _has_all_labels(suite.targets[name], self.rows)
        )
        """Tasks of which no entry of any row is missing: their losses need no mask."""

    @property
    def source(self) -> RowSource:
        """Where batches of chosen rows come from (validation reads the same arrays)."""
        return self._source

    def rows_of(self, step: int) -> NDArray[np.int64]:
        """Return the suite's row numbers that make up the batch of ``step``, int64 ``[B]``."""
        if len(self._dealers) == 1:
            return self._dealers[0].rows_of(step)
        return np.concatenate([dealer.rows_of(step) for dealer in self._dealers])

    def batch(self, step: int) -> Batch:
        """Return the batch of ``step``; it depends on nothing that was drawn before."""
        return self._source.batch(self.rows_of(step))


class RowSource:
    """Gathers rows into batches. One-column targets lie in two blocks ``[T, N]``, so that many tasks cost one lookup, not
    many."""

    def __init__(self, suite: Suite, device: torch.device | str = "cpu") -> None:
        self.suite, self.device = suite, torch.device(device)
        self.known = np.stack([labelled_rows(suite.targets[name]) for name in suite.task_names])
        # A copy: the array may be mapped from a file, and torch warns of arrays that cannot be written.
        self.domain = np.zeros(len(suite), dtype=np.int64) if suite.domain is None else np.array(suite.domain, dtype=np.int64)
        # The arrays may number more domains than the suite names.
        number = max(len(suite.domains), int(self.domain.max(initial=0)) + 1)
        self.domain_names = tuple(suite.domains[index] if index < len(suite.domains) else str(index) for index in range(number))
        """Names of the domains, in index order; their numbers where the suite names none."""
        count = self.known.sum(axis=0)
        self.role: NDArray[np.int64] = np.where(count > 0, LABELLED, UNLABELLED)
        """Role of each row, int64 ``[N]`` (see :class:`~graftwork.core.batch.Batch`)."""
        self.task_ids: NDArray[np.int64] = np.where(count == 1, self.known.argmax(axis=0), SEVERAL_TASKS)
        """Task of each row, int64 ``[N]``, likewise."""
        self._names = suite.task_names
        self._known = torch.from_numpy(self.known)
        self._kinds = torch.from_numpy(np.stack([self.role, self.task_ids]))
        # With one domain there is nothing to look up: zeros are made for each batch.
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
        role, task_ids = self._kinds.index_select(1, index).unbind(0)
        inputs = inputs_to_torch(self.suite.inputs, rows)
        # In the order of the suite's tasks, which the blocks do not keep.
        batch = Batch(inputs, {name: targets[name] for name in self._names}, mask, index, domain, role, task_ids)
        return batch if self.device.type == "cpu" else batch.to(self.device)


def inputs_to_torch(inputs: Mapping[str, NDArray[Any]], rows: NDArray[np.int64]) -> dict[str, Tensor]:
    """Return copies of some rows of named arrays (mapped files too) as CPU tensors."""
    # Indexing by an array copies, so mapped files are never written to.
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
