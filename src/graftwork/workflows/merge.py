"""``graftwork merge``: checkpoints in, one checkpoint out, tensor by tensor, with lineage. Imports no torch."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.files import hash_file, remove_leftovers
from graftwork.core.folders import check_output_file
from graftwork.core.tensor_files import FLOATS, TensorSource, open_tensors, write_tensors
from graftwork.data.names import did_you_mean
from graftwork.interfaces.merger import Merger
from graftwork.methods.merging.averaging import AveragingMerger
from graftwork.methods.merging.driver import check_settings, iterate_merged
from graftwork.methods.merging.sources import largest_magnitude, num_not_finite
from graftwork.methods.merging.task_arithmetic import TaskArithmeticMerger
from graftwork.methods.merging.tensor_roles import assign_roles
from graftwork.methods.merging.ties import TiesConfig, TiesMerger
from graftwork.workflows.merge_lineage import Lineage

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
    """Names of written tensors that hold NaN or infinity, with the first model that brought it in."""
    notes: tuple[str, ...]
    """What was left out and may surprise: tensors without a counterpart in the base, patterns that fit nothing, files swept up."""
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

    Memory stays near that of the largest tensor in float32; files are mapped. The result has the base's names, shapes and stored types.

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
        DataError: If models do not fit the base, hold integer weights that differ, or one was tuned from another base (its metadata
            says so).
        FileFormatError: If a file is damaged, or it is not clear which file of a folder is the model.
        ConfigError: If an option is wrong, or ``out`` is a folder, or lies among the files of a model that is read.
        StorageError: If ``out`` cannot be written; an older file there stays whole.
    """
    started = time.monotonic()
    merger = build_merger(method, density=density, scaling=scaling, weights=weights) if isinstance(method, str) else method
    paths = [Path(path) for path in (base, *models)]
    sources = [open_tensors(path) for path in paths]
    out = _check_out(out, sources, paths)
    _check_bases(sources, paths)
    check_settings(merger, len(models))
    roles = assign_roles(sources[0], sources[1:], exclude=exclude, buffers=buffers)
    swept = [f"removed {file}, {size:,} bytes that a killed process left behind" for file, size in remove_leftovers(out.parent)]
    lineage = Lineage(paths, sources, hashes=hashes)
    layout = {name: (sources[0].dtype_name(name), sources[0].shape(name)) for name in sources[0]}
    not_finite: list[str] = []

    def merged() -> Iterator[tuple[str, Any]]:
        for done, (name, values) in enumerate(iterate_merged(sources[0], sources[1:], merger, roles=roles), start=1):
            if layout[name][0] in FLOATS:
                found = _not_finite(name, values, layout[name][0], sources, paths)
                not_finite.extend([found] if found else [])
            yield name, values
            if on_progress:
                on_progress(done, len(layout))

    def metadata(final: bool) -> dict[str, str]:
        settings = {key: value for key, value in start.items() if key != "thresholds"}
        return {"format": "pt", **lineage.metadata(settings, final=final)}

    start = merger.settings()
    # the hashes are ready only after the merge, but their length is known: the header is written with zeros first
    write_tensors(out, layout, merged(), metadata(False), merger.corrections(), (lambda: metadata(True)) if hashes else None)
    kept = getattr(merger, "kept_anywhere", 0)
    return MergeReport(
        path=out,
        method=merger.settings(),
        num_models=len(models),
        num_parameters=sum(math.prod(layout[name][1]) for name in roles.merged),
        sign_conflict_share=merger.conflicts / kept if isinstance(merger, TiesMerger) and kept else None,
        not_finite=tuple(not_finite),
        notes=(*roles.notes, *swept),
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


def _not_finite(name: str, values: Any, dtype: str, sources: Sequence[TensorSource], paths: Sequence[Path]) -> str:
    """Return the tensor's name and where its NaN or infinity comes from; empty if all values fit the stored type."""
    limit = {"F16": 65504.0, "F64": np.inf}.get(dtype, float(np.finfo(np.float32).max))
    largest = largest_magnitude(values)
    if largest <= limit and np.isfinite(largest):
        return ""
    culprits = [path for path, source in zip(paths, sources, strict=True) if name in source and num_not_finite(source.lazy(name))]
    if culprits:
        return f"{name} (from {culprits[0]})"
    return f"{name} (values up to {largest:.3g} do not fit {dtype})"


def _check_bases(sources: Sequence[TensorSource], paths: Sequence[Path]) -> None:
    """Refuse models whose metadata names another base than the one given."""
    if not any("base_fingerprint" in source.metadata for source in sources[1:]):
        return
    known = {hash_file(file) for file in sources[0].files()} | {sources[0].metadata.get("fingerprint", "")}
    for path, source in zip(paths[1:], sources[1:], strict=True):
        wanted = source.metadata.get("base_fingerprint", "")
        if wanted and wanted not in known:
            raise DataError(
                f"{path} was tuned from another base (fingerprint {wanted[:12]}..., not that of the base given). "
                "Give its own base with --base, or leave the model out."
            )
