"""``graftwork merge``: checkpoints in, one checkpoint out, tensor by tensor, with lineage. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.files import hash_file
from graftwork.core.folders import check_output_file
from graftwork.core.tensor_files import TensorSource, open_tensors, write_tensors
from graftwork.core.version import __version__
from graftwork.data.names import did_you_mean
from graftwork.interfaces.merger import Merger
from graftwork.methods.merging.averaging import AveragingMerger
from graftwork.methods.merging.driver import iterate_merged, mergeable_names
from graftwork.methods.merging.task_arithmetic import TaskArithmeticMerger
from graftwork.methods.merging.ties import TiesConfig, TiesMerger

__all__ = ["MERGE_METHODS", "MergeReport", "build_merger", "merge"]

MERGE_METHODS = ("averaging", "task-arithmetic", "ties")
_ALIASES = {"linear": "averaging", "soup": "averaging", "task_arithmetic": "task-arithmetic"}


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What a merge did."""

    path: Path
    method: Mapping[str, Any]
    num_models: int
    num_parameters: int
    """Numbers that were merged; buffers and excluded tensors are not counted."""
    sign_conflict_share: float | None
    """Among entries that at least two models still change after trimming: the share with opposite signs (TIES only)."""
    not_finite: tuple[str, ...]
    """Names of merged tensors that hold NaN or infinity, with the first model that brought it in."""
    seconds: float


def build_merger(
    method: str, *, density: float | None = None, scaling: float | None = None, weights: Sequence[float] | None = None
) -> Merger:
    """Build a merger by name.

    Args:
        method: One of :data:`MERGE_METHODS` or an alias (``linear``, ``task_arithmetic``).
        density: Share of changes kept by TIES; 0.2 if None.
        scaling: Factor on the merged change; the method's own default if None.
        weights: Weight of each model.

    Raises:
        ConfigError: If the method is unknown, or an option does not belong to it.
    """
    name = _ALIASES.get(method, method)
    if name not in MERGE_METHODS:
        raise ConfigError(
            f"Unknown merge method {method!r}. Methods: {', '.join(MERGE_METHODS)}.{did_you_mean(method, MERGE_METHODS)}"
        )
    if density is not None and name != "ties":
        raise ConfigError(f"`density` belongs to ties, not to {name}. Leave it out, or use --method ties.")
    if scaling is not None and name == "averaging":
        raise ConfigError("`lambda` has no meaning for averaging. Leave it out, or use --method task-arithmetic.")
    if name == "averaging":
        return AveragingMerger(weights=weights)
    if name == "task-arithmetic":
        return TaskArithmeticMerger(scaling=0.4 if scaling is None else scaling, weights=weights)
    config = TiesConfig(weights=None if weights is None else tuple(weights))
    if density is not None:
        config = dataclasses.replace(config, density=density)
    return TiesMerger(config if scaling is None else dataclasses.replace(config, scaling=scaling))


def merge(
    base: str | Path,
    models: Sequence[str | Path],
    out: str | Path,
    *,
    method: str | Merger = "ties",
    density: float | None = None,
    scaling: float | None = None,
    weights: Sequence[float] | None = None,
    exclude: Sequence[str] = (),
    buffers: Literal["base", "mean"] = "mean",
    hashes: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> MergeReport:
    """Merge checkpoints that were tuned from one base.

    Memory stays near that of the largest tensor; files are mapped. The result has the base's names, shapes and stored types.

    Args:
        base: Safetensors file or model folder of the pretrained model.
        models: The tuned ones.
        out: Safetensors file to write.
        method: Name (see :data:`MERGE_METHODS`) or a merger.
        density: Share of changes kept (TIES), in (0, 1].
        scaling: Factor on the merged change, ``lambda``.
        weights: Weight of each model.
        exclude: Shell patterns of tensors that keep the base's values, such as ``"classifier.*"``.
        buffers: Running statistics: the models' mean, or the base's.
        hashes: Whether SHA-256 of all inputs go into the lineage (computed beside the merge).
        on_progress: Called with (tensors done, tensors in all).

    Raises:
        DataError: If models do not fit the base, or one was tuned from another base (its metadata says so).
        ConfigError: If an option is wrong, or ``out`` is a folder, or lies among the files of a model that is read.
        StorageError: If ``out`` cannot be written; an older file there stays whole.
    """
    started = time.monotonic()
    merger = build_merger(method, density=density, scaling=scaling, weights=weights) if isinstance(method, str) else method
    sources = [open_tensors(path) for path in (base, *models)]
    out = _check_out(out, sources, (base, *models))
    digests = _Hashes(sources) if hashes else None
    _check_bases(sources, models)
    layout = {name: (sources[0].dtype_name(name), sources[0].shape(name)) for name in sources[0]}
    not_finite: list[str] = []

    def merged() -> Iterator[tuple[str, Any]]:
        stream = iterate_merged(sources[0], sources[1:], merger, exclude=exclude, buffers=buffers)
        for done, (name, values) in enumerate(stream, start=1):
            if values.dtype.kind == "f" and not np.isfinite(np.sum(values, dtype=np.float64)) and not np.isfinite(values).all():
                culprits = [str(path) for path, source in zip((base, *models), sources) if not np.isfinite(source[name]).all()]
                not_finite.append(f"{name} (from {culprits[0]})" if culprits else name)
            yield name, values
            if on_progress:
                on_progress(done, len(layout))

    lineage = {
        "made_by": f"graftwork merge {__version__}",
        "method": json.dumps({key: value for key, value in merger.settings().items() if key != "thresholds"}),
        "base": str(Path(base).name),
        "models": json.dumps([Path(path).name for path in models]),
    }

    # the hashes are ready only after the merge, but their length is known: the header is written with zeros first
    def metadata(digests_so_far: Mapping[str, str]) -> dict[str, str]:
        return {"format": "pt", **lineage, "inputs_sha256": json.dumps(dict(digests_so_far))}

    zeros = {path.name: "0" * 64 for source in sources for path in source.files()} if digests else {}
    final = (lambda: metadata(digests.result())) if digests else None
    write_tensors(out, layout, merged(), metadata(zeros), merger.corrections(), final)
    kept = getattr(merger, "kept_anywhere", 0)
    return MergeReport(
        path=out,
        method=merger.settings(),
        num_models=len(models),
        num_parameters=sum(
            int(np.prod(layout[name][1], dtype=np.int64)) for name in mergeable_names(sources[0], exclude=exclude)
        ),
        sign_conflict_share=merger.conflicts / kept if isinstance(merger, TiesMerger) and kept else None,
        not_finite=tuple(not_finite),
        seconds=time.monotonic() - started,
    )


def _check_out(out: str | Path, sources: Sequence[TensorSource], paths: Sequence[str | Path]) -> Path:
    """Refuse to write over a model that is read, or into its folder: every tensor file there is taken for a part of it.

    Raises:
        ConfigError: If that would happen.
    """
    out = check_output_file(out, [file for source in sources for file in source.files()])
    for path in paths:
        if Path(path).is_dir() and out.parent.resolve() == Path(path).resolve():
            raise ConfigError(
                f"{out} lies in the folder of {path}, one of the models to merge. Choose a file elsewhere with --out."
            )
    return out


def _check_bases(sources: Sequence[TensorSource], models: Sequence[str | Path]) -> None:
    """Refuse models whose metadata names another base than the one given."""
    if not any("base_fingerprint" in source.metadata for source in sources[1:]):
        return
    known = {hash_file(file) for file in sources[0].files()} | {sources[0].metadata.get("fingerprint", "")}
    for path, source in zip(models, sources[1:]):
        wanted = source.metadata.get("base_fingerprint", "")
        if wanted and wanted not in known:
            raise DataError(
                f"{path} was tuned from another base (fingerprint {wanted[:12]}..., not that of the base given). "
                "Give its own base with --base, or leave the model out."
            )


class _Hashes:
    """SHA-256 of all input files, in a thread beside the merge (hashing releases the interpreter's lock)."""

    def __init__(self, sources: Sequence[TensorSource]) -> None:
        self._files = [file for source in sources for file in source.files()]
        self._digests: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for file in self._files:
            self._digests[file.name] = hash_file(file)

    def result(self) -> dict[str, str]:
        self._thread.join()
        return {file.name: self._digests[file.name] for file in self._files}
