"""Adapters merged with adapters, deltas with deltas: any method that goes tensor by tensor works on the changes alone, over a base of
zeros, and the result is a change again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.core.errors import ConfigError
from graftwork.core.files import remove_leftovers
from graftwork.core.records import Ledger
from graftwork.interfaces.merger import Merger
from graftwork.interfaces.model_merger import ModelMerger
from graftwork.methods.merging.averaging import AveragingMerger
from graftwork.methods.merging.driver import check_settings, iterate_merged
from graftwork.methods.merging.task_arithmetic import TaskArithmeticMerger
from graftwork.methods.merging.tensor_roles import Buffers, TensorRoles, assign_roles
from graftwork.workflows.merge_adapter_checks import check_rescalings, check_shapes_known, check_together, shapes_of
from graftwork.workflows.merge_adapter_folder import check_folder_out, chosen_rank, write_folder
from graftwork.workflows.merge_changed_source import ChangedTensors, ZeroTensors
from graftwork.workflows.merge_changes import Change, open_change
from graftwork.workflows.merge_checks import check_out, name_not_finite
from graftwork.workflows.merge_delta_file import write_file
from graftwork.workflows.merge_hashes import InputHashes
from graftwork.workflows.merge_lineage import Lineage
from graftwork.workflows.merge_naming import Naming
from graftwork.workflows.merge_report import MergeReport
from graftwork.workflows.merge_scales import all_scales, merged_scales, write_scales_folder

if TYPE_CHECKING:
    from graftwork.methods.tuning.peft_ia3 import Scale
    from graftwork.nn.delta_parts import LowRank, Part, Rescaled

__all__ = ["merge_adapters"]


class _Merged:
    """Changes that are being merged: exact sums where the method is linear, the values of all other tensors as they come."""

    def __init__(self, changes: Sequence[Change], merger: Merger, exclude: Sequence[str], buffers: Buffers) -> None:
        from graftwork.methods.tuning.peft_low_rank import is_laid_out, summed
        from graftwork.nn.delta_parts import Rescaled

        self.shapes = shapes_of(changes)
        zero = ZeroTensors(self.shapes)
        self.sources = [ChangedTensors(change, zero, Naming()) for change in changes]
        merger.has_base = merger.needs_base
        check_settings(merger, len(changes))
        roles = assign_roles(zero, self.sources, exclude=exclude, buffers=buffers)
        self.notes = roles.notes
        self.factors: dict[str, LowRank] = {}
        self.rescaled: dict[str, Rescaled] = {}
        """Sums of rescalings: they are known, though what they change is not."""
        weights = _linear_weights(merger, len(changes))
        for name in roles.merged if weights else ():
            # A change that leaves the tensor alone counts as 0, also in a mean.
            found = [
                (change.delta.parts[name], w) for change, w in zip(changes, weights, strict=True) if name in change.delta.parts
            ]
            if all(is_laid_out(part, self.shapes[name]) for part, _ in found):
                self.factors[name] = summed([part for part, _ in found], [weight for _, weight in found])  # type: ignore[misc]
            elif isinstance(total := _sum_of_rescalings(found), Rescaled):
                self.rescaled[name] = total
        merged = tuple(name for name in roles.merged if name not in self.factors and name not in self.rescaled)
        check_rescalings(changes, (*merged, *roles.averaged))
        self._roles = TensorRoles(merged, roles.averaged, (), ())
        self.dense = [*merged, *roles.averaged]
        self.num_parameters = sum(math.prod(self.shapes[name]) for name in roles.merged)
        self.merger = merger

    @property
    def exact(self) -> dict[str, Part]:
        """Changes that are no values: factors and rescalings, by tensor."""
        return {**self.factors, **self.rescaled}

    def not_finite(self, paths: Sequence[Path]) -> list[str]:
        """Return the tensors with exact changes that hold NaN or infinity, and where it comes from: nothing else looks at their values."""
        import torch

        found = [name for name, part in self.rescaled.items() if not bool((part.factor * part.scale).isfinite().all())]
        for name, part in self.factors.items():
            # No entry of the product is larger; only where that is too large, or NaN, the product itself is looked at.
            bound = float(part.up.abs().max()) * float(part.down.abs().max()) * len(part.down)
            if not bound <= float(torch.finfo(torch.float32).max):
                found.append(
                    name_not_finite(name, part.expand(torch.Size(self.shapes[name])).numpy(), "F32", self.sources, paths)
                )
        return [said for said in found if said]

    def values(self) -> Iterator[tuple[str, Any]]:
        """Yield the tensors that have no factors; merging happens while they are taken."""
        zero = ZeroTensors({name: self.shapes[name] for name in self.dense})
        yield from iterate_merged(zero, self.sources, self.merger, roles=self._roles)


def merge_adapters(
    models: Sequence[str | Path],
    out: str | Path,
    merger: Merger | ModelMerger,
    *,
    others: Mapping[str, Any] | None = None,
    exclude: Sequence[str] = (),
    buffers: Buffers = "mean",
    rank: int | None = None,
    hashes: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> MergeReport:
    """Merge changes of one base with each other.

    Args:
        models: Adapter folders of peft, delta files, ``delta`` folders of tune runs.
        out: Where to: a name that ends in ``.safetensors`` becomes a delta file, dense where factors cannot be kept; any other an
            adapter folder of peft.
        merger: The method; a mean and task arithmetic keep factors exactly, ranks add up.
        others: Options of a merge by name, of which none can be carried out without whole models.
        exclude: Shell patterns of tensors that are left unchanged.
        buffers: What becomes of running statistics; see :func:`graftwork.workflows.merge.merge`.
        rank: Largest rank in an adapter folder; None takes the sum of the ranks for linear methods, otherwise the largest rank of
            the inputs.
        hashes: Whether SHA-256 of all inputs go into the lineage.
        on_progress: Called with (tensors done, tensors in all).

    Raises:
        ConfigError: If an option does not suit, or the output cannot hold the result.
        DataError: If changes belong to different bases, name their tensors differently, or need their base.
        FileFormatError: If a file is damaged.
        StorageError: If ``out`` cannot be written.
    """
    started, cpu = time.monotonic(), time.process_time()
    asked = [f"--{name}" for name, value in (others or {}).items() if value]
    if asked or isinstance(merger, ModelMerger):
        what = ", ".join(asked) if asked else "This method"
        raise ConfigError(f"{what} needs whole models, and these are changes of a base. Name it with --base.")
    is_file = Path(out).suffix == ".safetensors"
    if rank is not None and (is_file or rank < 1):
        raise ConfigError(
            "--rank is at least 1, and belongs to adapter folders: a delta file keeps the whole change. Leave it out."
        )
    paths = [Path(path) for path in models]
    changes = [open_change(path) for path in paths]
    check_together(changes)
    settings = {key: value for key, value in merger.settings().items() if key != "thresholds"}
    scales = all_scales(changes) if not is_file and _linear_weights(merger, len(changes)) else None
    if scales is not None:
        if rank is not None:
            raise ConfigError("--rank belongs to low-rank adapters, and these are IA3, which has none. Leave it out.")
        return _merge_scales(changes, scales, Path(out), merger, exclude, settings, paths, hashes=hashes, begun=(started, cpu))
    check_shapes_known(changes)
    merged = _Merged(changes, merger, exclude, buffers)
    target = check_out(out, merged.sources, paths) if is_file else check_folder_out(Path(out), merged.sources, paths)
    if merged.rescaled and not is_file:
        raise ConfigError(
            "An adapter folder of peft holds low-rank changes or IA3, not both. Write a delta file: give --out a name that ends in "
            ".safetensors."
        )
    lineage = Lineage(paths, merged.sources, has_base=False, hashes=InputHashes() if hashes else None)
    not_finite = merged.not_finite(paths)

    def watched() -> Iterator[tuple[str, Any]]:
        for done, (name, values) in enumerate(merged.values(), start=1):
            found = name_not_finite(name, values, "F32", merged.sources, paths)
            not_finite.extend([found] if found else [])
            yield name, values
            if on_progress:
                on_progress(done + len(merged.exact), len(merged.dense) + len(merged.exact))

    notes = [note for change in changes for note in change.notes] + list(merged.notes)
    if is_file:
        target.parent.mkdir(parents=True, exist_ok=True)
        notes += [
            f"removed {file}, {size:,} bytes that a killed process left behind" for file, size in remove_leftovers(target.parent)
        ]
        dense = {name: merged.shapes[name] for name in merged.dense}
        write_file(
            target,
            {name: (part, merged.shapes[name]) for name, part in merged.exact.items()},
            dense,
            watched(),
            merger,
            changes,
            lambda final: lineage.metadata(settings, final=final and hashes),
        )
    else:
        notes += write_folder(
            target,
            merged.factors,
            {name: merged.shapes[name] for name in merged.dense},
            watched(),
            merger,
            changes,
            chosen_rank(rank, merged.factors, merged.dense, changes),
            lambda: lineage.metadata(settings, final=hashes),
        )
    kept = getattr(merger, "kept_anywhere", 0)
    conflicts = getattr(merger, "conflicts", 0) / kept if kept else None
    return _report(target, merger, len(models), merged.num_parameters, not_finite, notes, (started, cpu), conflicts)


def _merge_scales(
    changes: Sequence[Change],
    each: Sequence[Mapping[str, Scale]],
    out: Path,
    merger: Merger,
    exclude: Sequence[str],
    settings: Mapping[str, Any],
    paths: Sequence[Path],
    *,
    hashes: bool,
    begun: tuple[float, float],
) -> MergeReport:
    sources = [ChangedTensors(change, ZeroTensors({}), Naming()) for change in changes]
    target = check_folder_out(out, sources, paths)
    found, said = merged_scales(each, changes, merger, exclude)
    lineage = Lineage(paths, sources, has_base=False, hashes=InputHashes() if hashes else None)
    notes = [*(note for change in changes for note in change.notes), *said]
    notes += write_scales_folder(target, found, changes, lineage.metadata(settings, final=hashes))
    not_finite = [layer for layer, scale in found.items() if not bool(scale.values.isfinite().all())]
    return _report(target, merger, len(changes), sum(len(scale.values) for scale in found.values()), not_finite, notes, begun)


def _report(
    path: Path,
    merger: Merger,
    num_models: int,
    num_parameters: int,
    not_finite: Sequence[str],
    notes: Sequence[str],
    begun: tuple[float, float],
    conflicts: float | None = None,
) -> MergeReport:
    seconds = time.monotonic() - begun[0]
    return MergeReport(
        path=path,
        method=merger.settings(),
        num_models=num_models,
        num_parameters=num_parameters,
        sign_conflict_share=conflicts,
        not_finite=tuple(not_finite),
        notes=tuple(notes),
        seconds=seconds,
        ledger=Ledger(wall_seconds=seconds, cpu_seconds=time.process_time() - begun[1], parameters_stored=num_parameters),
    )


def _sum_of_rescalings(found: Sequence[tuple[Part, float]]) -> Part | None:
    """Return the weighted sum of rescalings of one dimension; None if the parts are anything else."""
    import torch

    from graftwork.nn.delta_parts import Rescaled, sum_parts

    parts = [part for part, _ in found]
    if not all(isinstance(part, Rescaled) for part in parts) or len({getattr(part, "axis", None) for part in parts}) != 1:
        return None
    total, *others = (part.scaled(weight) for part, weight in found)
    for other in others:
        # Two rescalings of one dimension need no shape.
        total = sum_parts(total, other, torch.Size())
    return total


def _linear_weights(merger: Merger, count: int) -> list[float]:
    """Return the factor of each change if the result is their weighted sum; empty for other methods."""
    if type(merger) is TaskArithmeticMerger:
        return [merger.scaling * weight for weight in merger.weights or (1.0,) * count]
    if type(merger) is AveragingMerger:
        return list(merger.weights or (1.0 / count if merger.normalize else 1.0,) * count)
    return []
