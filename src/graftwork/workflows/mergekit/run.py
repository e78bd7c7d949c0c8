"""Carries a YAML file of mergekit out: all of it is checked, then document by document is merged, tensor by tensor."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.core.files import remove_leftovers
from graftwork.core.folders import check_folder, remove_own
from graftwork.core.model_folder import MODEL_NAME
from graftwork.core.records import Ledger
from graftwork.core.scratch import sweep, temporary_folder
from graftwork.workflows.merge_checks import check_folder_name, check_out
from graftwork.workflows.merge_folder import MERGE_KIND
from graftwork.workflows.merge_hashes import InputHashes
from graftwork.workflows.merge_lineage import Lineage
from graftwork.workflows.merge_report import MergeReport
from graftwork.workflows.mergekit.documents import merge_order
from graftwork.workflows.mergekit.methods import METHODS
from graftwork.workflows.mergekit.plan import Plan, make_plan
from graftwork.workflows.mergekit.references import locate
from graftwork.workflows.mergekit.resolve import check_parameters
from graftwork.workflows.mergekit.schema import DTYPES, MergeFile, read_merge_documents
from graftwork.workflows.mergekit.stages import Stage
from graftwork.workflows.mergekit.write import Written, write_result

__all__ = ["merge_from_yaml"]

Progress = Callable[[int, int], None]


def merge_from_yaml(
    path: str | Path,
    out: str | Path,
    *,
    hashes: bool = True,
    shard_size: int | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> MergeReport:
    """Merge what a YAML file of mergekit describes.

    Of several documents each is merged once what it needs is there. Results that others are made from lie in a temporary folder
    beside ``out``, as models on the disk, and are removed at the end.

    Args:
        path: The file. Models are paths from the current folder, or from that of the file; names of other documents; and either of
            them with an adapter, ``model+adapter``.
        out: Folder of the result: weights, configuration and tokenizer as transformers reads them; or a ``.safetensors`` file for
            the weights alone.
        hashes: Whether SHA-256 of all inputs go into the lineage.
        shard_size: Largest number of bytes of a file of weights in a folder; None writes one.
        seed: Seed of methods that draw numbers, as mergekit's ``--random-seed``.
        on_progress: Called with (tensors done, tensors in all) of the document that is being merged.

    Raises:
        ConfigError: With all faults of the file and their lines, before a model is opened; or if method and models do not suit.
        DataError: If a model is not there, or models do not fit together.
        StorageError: If the result cannot be written.
    """
    started, cpu = time.monotonic(), time.process_time()
    documents = [dataclasses.replace(document, seed=seed) for document in read_merge_documents(path)]
    order, notes = merge_order(documents)
    notes += _check_parameters(documents)
    plans, stages = _plans(order, [document.name for document in documents if document.name and len(documents) > 1])
    plan = plans[-1]
    originals = plan.inputs.originals
    sources, paths = [source for _, source in originals], [path for path, _ in originals]
    is_file = Path(out).suffix == ".safetensors"
    if is_file and shard_size is not None:
        raise ConfigError("--shard-size parts the weights of a folder. Leave it out, or name a folder with --out.")
    if not is_file:
        check_folder_name(out)
        check_folder(out, MERGE_KIND)
    target = check_out(out if is_file else Path(out) / MODEL_NAME, sources, paths, is_claimed=not is_file)
    place = target if is_file else target.parent
    lineage = Lineage(paths, sources, has_base=plan.inputs.has_base, hashes=InputHashes() if hashes else None)
    described = _described(plans)
    written: list[Written] = []
    with contextlib.ExitStack() as stack:
        if stages:
            # Beside it, and never in it: the current folder has another name as well.
            notes += _swept(place.absolute().parent)
            scratch = stack.enter_context(temporary_folder(place.absolute()))
            for number, (earlier, made) in enumerate(zip(plans[:-1], stages, strict=True)):
                written.append(write_result(earlier, scratch / str(number), on_progress=on_progress))
                made.tensors.open(scratch / str(number))
                _drop(scratch, plans[: number + 1], stages, plans[number + 1 :])
        written.append(
            write_result(
                plan,
                place,
                lambda final: lineage.metadata(described, final=final),
                is_file=is_file,
                shard_size=shard_size,
                waits=hashes,
                on_progress=on_progress,
            )
        )
    if is_file and plan.is_united:
        notes.append("a file holds weights alone: the tokenizer that belongs to them is not written. Name a folder with --out.")
    notes += [note for item in plans for note in item.notes] + [note for item in written for note in item.notes]
    seconds = time.monotonic() - started
    return MergeReport(
        path=place,
        method=described,
        num_models=len(originals),
        num_parameters=sum(math.prod(shape) for dtype, shape in plan.layout.values() if dtype in DTYPES.values()),
        sign_conflict_share=None,
        not_finite=tuple(name for item in written for name in item.not_finite),
        # What holds for several documents is said once.
        notes=tuple(dict.fromkeys(notes)),
        seconds=seconds,
        ledger=Ledger(
            wall_seconds=seconds,
            cpu_seconds=time.process_time() - cpu,
            parameters_stored=sum(math.prod(shape) for _, shape in plan.layout.values()),
        ),
    )


def _check_parameters(documents: Sequence[MergeFile]) -> list[str]:
    """Return notes on parameters that a method does not have.

    Raises:
        ConfigError: With all parameters of all documents that cannot be used.
    """
    found = [check_parameters(document, METHODS[document.method]) for document in documents]
    problems = [problem for faults, _ in found for problem in faults]
    if problems:
        raise ConfigError(f"{documents[0].path} cannot be used.", problems)
    return [note for _, notes in found for note in notes]


def _plans(documents: Sequence[MergeFile], names: Sequence[str]) -> tuple[list[Plan], list[Stage]]:
    """Return what each document does, and the results of all but the last as models that will be there.

    Args:
        documents: Those that are merged, in their order.
        names: Names of all documents of the file.
    """
    # All of them before the first is opened.
    located = [
        {
            name: locate(
                name,
                document.path,
                names,
                f"{document.path.name}, line {document.model_lines.get(name, 1)}",
                whole=name in document.models,
            )
            for name in document.references
        }
        for document in documents
    ]
    plans: list[Plan] = []
    stages: dict[str, Stage] = {}
    for document, where in zip(documents, located, strict=True):
        plans.append(make_plan(document, where, stages))
        if document is not documents[-1]:
            stages[document.name] = plans[-1].stage()
    return plans, list(stages.values())


def _drop(scratch: Path, done: Sequence[Plan], stages: Sequence[Stage], later: Sequence[Plan]) -> None:
    """Remove the results that no document needs any more: they may be as large as the models."""
    needed = {where.stage for plan in later for where in plan.inputs.located.values()}
    for number, (plan, stage) in enumerate(zip(done, stages, strict=False)):
        if plan.file.name not in needed:
            stage.tensors.close()
            remove_own(scratch, str(number))


def _described(plans: Sequence[Plan]) -> dict[str, Any]:
    """Return what the lineage says of the method, and of the documents whose results went into this one."""
    *earlier, last = (plan.file for plan in plans)
    found: dict[str, Any] = {"method": last.method, "file": last.path.name, **({"seed": last.seed} if last.seed else {})}
    if earlier:
        made: Mapping[str, Any] = {file.name: {"method": file.method, "models": list(file.models)} for file in earlier}
        found |= {"models": list(last.models), "documents": made}
    return found


def _swept(folder: Path) -> list[str]:
    """Remove what killed merges left where this one is going to put its temporary folder."""
    folder.mkdir(parents=True, exist_ok=True)
    notes = [f"removed {item}, {size:,} bytes that a killed process left behind" for item, size in remove_leftovers(folder)]
    sweep(folder)
    return notes
