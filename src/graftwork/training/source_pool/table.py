"""The transfer table: every member fine-tuned and linearly probed on every target. Row by row on disk, so that it can go on where it
ended; rows are checked when they are read, and some can be made again to prove that they still come out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from graftwork.core.errors import FileFormatError
from graftwork.core.files import hash_bytes, read_json, write_json
from graftwork.core.seeds import Seeds
from graftwork.data.array_cache import cached_arrays
from graftwork.math.linear_fits import fit_multinomial
from graftwork.training.source_pool.fitting import fit_classifier, predict_probabilities
from graftwork.training.source_pool.grounds import AnySettings, Ground, GroundRows, ground_of, target_suite
from graftwork.training.source_pool.members import PoolMember, pool_members
from graftwork.training.source_pool.settings import PoolSettings
from graftwork.training.source_pool.table_pool import TableMember

__all__ = ["Audit", "PictureTable", "TransferTable", "audit_table", "build_table", "target_suite"]

Member = PoolMember | TableMember
_FORMAT = "graftwork-transfer-row-1"
TOLERANCE = 0.03
"""Difference in accuracy that other versions and processors may cause when a row is made again; 18 of 600 test rows."""


@dataclass(frozen=True, slots=True)
class TransferTable:
    """True results of all sources on all targets."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    fine_tuned: NDArray[np.float64]
    """Test accuracy, ``[targets, sources]``."""
    probed: NDArray[np.float64]
    """Likewise of a linear model on the frozen features."""
    settings: AnySettings
    folder: Path

    @property
    def ground(self) -> Ground:
        """Sources and targets that it is made of."""
        return ground_of(self.settings)

    def rows(self, target: str) -> GroundRows:
        """Return the rows of a target."""
        return self.ground.rows(target)

    def member(self, name: str) -> Member:
        """Return a source of the table."""
        return self.ground.member(name, self.folder / "members")

    def predictions(self, target: str, source: str) -> NDArray[np.float32]:
        """Return class probabilities of the fine-tuned source on the target's test rows, ``[rows, classes]``: ensembles of any
        members cost nothing more."""
        row = _read_row(_row_file(self.folder, target, source, self.settings), self.settings)
        if row is None:
            raise FileFormatError(f"The row of {source} on {target} is gone. Build the table again.")
        return np.asarray(_arrays(self.folder, row)["probabilities"], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class PictureTable(TransferTable):
    """A table of pictures, with what only its sources have."""

    settings: PoolSettings

    def member(self, name: str) -> PoolMember:
        """Return a source of the table."""
        return pool_members(name, self.settings, self.folder / "members")


@dataclass(frozen=True, slots=True)
class Audit:
    """A row that was made again."""

    target: str
    source: str
    stored: float
    again: float

    @property
    def agrees(self) -> bool:
        """Whether the accuracy came out again."""
        return abs(self.stored - self.again) <= TOLERANCE


@overload
def build_table(
    settings: PoolSettings, folder: Path, *, on_progress: Callable[[int, int, str], None] | None = None
) -> PictureTable: ...


@overload
def build_table(
    settings: AnySettings, folder: Path, *, on_progress: Callable[[int, int, str], None] | None = None
) -> TransferTable: ...


def build_table(
    settings: AnySettings, folder: Path, *, on_progress: Callable[[int, int, str], None] | None = None
) -> TransferTable:
    """Return the table; rows that are there are read, all others made now.

    Args:
        settings: Sizes.
        folder: Where members and rows are kept.
        on_progress: Called with finished rows, all rows and what comes next.

    Raises:
        ConfigError: If the settings name an unknown member or target.
        StorageError: If the folder cannot be written.
    """
    ground = ground_of(settings)
    sources, targets = ground.names()
    made: dict[tuple[str, str], Mapping[str, Any]] = {}
    total = len(sources) * len(targets)
    for source in sources:
        member: Member | None = None
        for target in targets:
            path = _row_file(folder, target, source, settings)
            row = _read_row(path, settings)
            if row is None:
                if on_progress is not None:
                    on_progress(len(made), total, f"{source} on {target}")
                member = member or ground.member(source, folder / "members")
                row = _make_row(member, target, settings, folder)
                write_json(path, row)
            made[target, source] = row

    def matrix(key: str) -> NDArray[np.float64]:
        return np.array([[float(made[target, source][key]) for source in sources] for target in targets])

    results = tuple(sources), tuple(targets), matrix("fine_tuned"), matrix("probed")
    if isinstance(settings, PoolSettings):
        return PictureTable(*results, settings, folder)
    return TransferTable(*results, settings, folder)


def audit_table(table: TransferTable, *, rows: int = 2, seed: int = 0) -> list[Audit]:
    """Make some rows again, drawn at random, and return what came out; nothing stored is used but the members' weights."""
    cells = [(target, source) for target in table.targets for source in table.sources]
    drawn = Seeds(seed).numpy("audit").permutation(len(cells))[:rows]
    found = []
    for index in drawn.tolist():
        target, source = cells[index]
        stored = table.fine_tuned[table.targets.index(target), table.sources.index(source)]
        again = _transfer(table.member(source), target, table.settings)
        found.append(Audit(target, source, float(stored), again.fine_tuned))
    return found


@dataclass(frozen=True, slots=True)
class _Transfer:
    fine_tuned: float
    probed: float
    probabilities: NDArray[np.float32]


def _transfer(member: Member, target: str, settings: AnySettings) -> _Transfer:
    ground = ground_of(settings)
    rows, tuning = ground.rows(target), ground.tuning(member)
    images, labels, train, test, classes = rows.inputs, rows.labels, rows.train, rows.test, rows.classes
    seeds = Seeds(settings.seed).child(f"transfer of {member.name} to {target}")
    features = member.features(images)
    mean, spread = features[train].mean(axis=0), features[train].std(axis=0)
    scaled = ((features - mean) / np.where(spread > 1e-6, spread, np.inf)).astype(np.float64)
    weights = fit_multinomial(scaled[train], labels[train], 0.03, np.zeros((classes, scaled.shape[1] + 1)))
    probed = float(((scaled[test] @ weights[:, :-1].T + weights[:, -1]).argmax(axis=1) == labels[test]).mean())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order would give other bits
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seeds.integer("head"))
            model = tuning.classifier(classes)
            fit_classifier(model, images[train], labels[train], steps=tuning.steps, rate=tuning.rate, seed=seeds.integer("order"))
        probabilities = predict_probabilities(model, images[test])
    finally:
        torch.set_num_threads(threads)
    return _Transfer(float((probabilities.argmax(axis=1) == labels[test]).mean()), probed, probabilities)


def _make_row(member: Member, target: str, settings: AnySettings, folder: Path) -> dict[str, Any]:
    begin = time.process_time()
    found = _transfer(member, target, settings)
    row: dict[str, Any] = {
        "format": _FORMAT,
        "key": settings.row_key(),
        "source": member.name,
        "target": target,
        "weights": member.fingerprint(),
        "fine_tuned": found.fine_tuned,
        "probed": found.probed,
        "cpu_seconds": time.process_time() - begin,
    }
    row["sha256"] = _digest(row)
    cached_arrays(folder / "predictions", _array_key(row), lambda: {"probabilities": found.probabilities})
    return row


def _row_file(folder: Path, target: str, source: str, settings: AnySettings) -> Path:
    return folder / "rows" / settings.row_key() / f"{target}--{source}.json"


def _read_row(path: Path, settings: AnySettings) -> Mapping[str, Any] | None:
    """Return a stored row; None if there is none, or it is damaged or of other settings: it is then made anew."""
    if not path.is_file():
        return None
    try:
        row = read_json(path)
    except FileFormatError:
        return None
    if not isinstance(row, dict) or row.get("format") != _FORMAT or row.get("key") != settings.row_key():
        return None
    return row if row.get("sha256") == _digest(row) else None


def _digest(row: Mapping[str, Any]) -> str:
    return hash_bytes(repr(sorted((key, value) for key, value in row.items() if key != "sha256")).encode())


def _array_key(row: Mapping[str, Any]) -> str:
    return f"row-{row['sha256'][:32]}"


def _arrays(folder: Path, row: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    def gone() -> Mapping[str, NDArray[Any]]:
        raise FileFormatError(
            f"The predictions of {row['source']} on {row['target']} are gone. Remove its row and build the table again."
        )

    return cached_arrays(folder / "predictions", _array_key(row), gone)
