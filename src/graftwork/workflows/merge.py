"""``graftwork merge``: checkpoints in, one checkpoint out, with lineage. Imports no torch, unless the method needs networks or
data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.core.errors import ConfigError
from graftwork.core.records import Ledger
from graftwork.core.tensor_files import open_tensors
from graftwork.interfaces.merger import Merger
from graftwork.interfaces.model_merger import ModelMerger
from graftwork.methods.merging.tensor_roles import Buffers
from graftwork.workflows.merge_adapters import merge_adapters
from graftwork.workflows.merge_changed_source import open_models
from graftwork.workflows.merge_changes import is_change
from graftwork.workflows.merge_checks import check_bases, check_quantised, name_not_finite, note_statistics, note_types
from graftwork.workflows.merge_hashes import InputHashes
from graftwork.workflows.merge_kinds import Merging, merge_by_tensor, merge_context, merge_models, merge_whole_models
from graftwork.workflows.merge_lineage import Lineage
from graftwork.workflows.merge_methods import build_merger, merge_methods
from graftwork.workflows.merge_output import plan_output
from graftwork.workflows.merge_report import MergeReport

if TYPE_CHECKING:
    from torch import nn

    from graftwork.data.suite import Suite
    from graftwork.workflows.merge_fitting import AlignWith

__all__ = ["DEFAULT_METHOD", "MergeReport", "build_merger", "merge", "merge_methods"]

DEFAULT_METHOD = "task-arithmetic"
"""Of averaging, TIES and this one it is the best without tuning in the reproduction of TIES."""


def _device(name: str, merger: Merger | ModelMerger) -> str:
    """Return the device for a name.

    Raises:
        ConfigError: If it is not there, or the method has no use for it.
    """
    if isinstance(merger, ModelMerger):
        from graftwork.training.devices import chosen_device

        return chosen_device(name)
    if name != "auto":
        raise ConfigError(f"This method goes tensor by tensor, on the CPU, and takes no device; got {name!r}. Leave it out.")
    return "cpu"


def merge(
    base: str | Path | None,
    models: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    method: str | Merger | ModelMerger = DEFAULT_METHOD,
    density: float | None = None,
    scaling: float | None = None,
    weights: Sequence[float] | None = None,
    settings: Mapping[str, Any] | None = None,
    exclude: Sequence[str] = (),
    buffers: Buffers = "mean",
    suite: Suite | str | Path | None = None,
    search: Mapping[str, Sequence[Any] | int] | None = None,
    metric: str = "",
    align: AlignWith = False,
    repair: bool = False,
    statistics: Mapping[str, Sequence[str | Path]] | None = None,
    network: Callable[[], nn.Module] | Sequence[Callable[[], nn.Module]] | None = None,
    device: str = "cpu",
    seed: int = 0,
    hashes: bool = True,
    from_text: bool = False,
    rank: int | None = None,
    shard_size: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> MergeReport:
    """Merge checkpoints.

    Methods that go tensor by tensor (``Merger``) take models tuned from one base; memory stays near that of the largest tensor
    in float32, and the result has the base's names, shapes and stored types. Methods that see whole models (``ModelMerger``) may
    use data and networks.

    Args:
        base: Safetensors file or model folder of the pretrained model; None for methods that need none.
        models: The tuned ones, or the only one.
        out: Where to: a name that ends in ``.safetensors`` becomes a file of the weights, any other a model folder with configuration
            and tokenizer of the base (without one: of the first model), as transformers reads it.
        method: Name of a method (see :func:`.merge_methods`), or a merger.
        density: Share of changes kept (TIES), in (0, 1].
        scaling: Factor on the merged change, ``lambda``.
        weights: Weight of each model.
        settings: Settings of the method by name, the three above among them.
        exclude: Shell patterns of tensors that keep the base's values, such as ``"classifier.*"``.
        buffers: Running statistics: the models' mean, or the base's.
        suite: Data. A ``ModelMerger`` works with it and never sees the test rows. With any method each model is scored on its tasks
            before and after the merge, on test rows (on validation rows if there are none).
        search: Settings to be searched on labelled validation rows: values by name, all combinations of which are merged and scored;
            for ``weights`` a number of points. ``method`` is a name then.
        metric: What scores are taken by; empty takes each task's own metric.
        align: Whether the models' units are put in the order of those of the base (without one: the first model) before they are
            merged: true traces the network, pairs name layers that belong together. Aligned models are held in memory.
        repair: Whether running statistics of BatchNorm are measured on training rows after the merge.
        statistics: Files beside the models for a ``ModelMerger``: kind, and one file for each model.
        network: For a ``ModelMerger``: what builds the network whose weights the files hold, one for all or one for each model,
            the base first; not needed for model folders that graftwork wrote.
        device: Where a ``ModelMerger`` works: ``cpu``, ``cuda``, ``mps`` or ``auto``. Methods that go tensor by tensor need no device.
        seed: Seed of methods that draw numbers.
        hashes: Whether SHA-256 of all inputs go into the lineage (computed in threads beside the merge).
        from_text: Whether ``settings`` and ``search`` are texts of the command line.
        rank: Largest rank of an adapter folder that is written.
        shard_size: Largest number of bytes of a file of weights in a model folder; None writes one.
        on_progress: Called with (tensors done, tensors in all).

    Raises:
        DataError: If models do not fit the base, hold integer weights that differ, or one was tuned from another base (its
            metadata says so).
        FileFormatError: If a file is damaged, or it is not clear which file of a folder is the model.
        ConfigError: If an option is wrong, or ``out`` is a folder of something else, or lies among the files of a model that is read.
        StorageError: If ``out`` cannot be written; an older file there stays whole.
    """
    started, cpu = time.monotonic(), time.process_time()
    models = [models] if isinstance(models, str | Path) else models  # a text is one model, and not its letters

    def built(values: Mapping[str, Any]) -> Merger | ModelMerger:
        if not isinstance(method, str):
            return method
        known = {"density": density, "scaling": scaling, "weights": weights}
        # What is searched stands in the place of what is given by a keyword of its own.
        plain = {key: value for key, value in known.items() if key not in values}
        return build_merger(method, **plain, settings={**(settings or {}), **values}, from_text=from_text, seed=seed)  # type: ignore[arg-type]

    if search and (suite is None or not isinstance(method, str)):
        raise ConfigError("Settings are searched on labelled validation rows: give data with --suite, and a method by its name.")
    tried: list[dict[str, Any]] = []
    if search:
        from graftwork.workflows.merge_search import candidates

        tried = candidates(search, len(models), seed=seed)
    # With the first combination, so that wrong names and values are found before anything is read.
    merger = built(tried[0] if tried else {})
    if base is None and models and all(map(is_change, models)):
        given = {
            "suite": suite,
            "align": align,
            "repair": repair,
            "statistics": statistics,
            "network": network,
            "shard-size": shard_size,
        }
        return merge_adapters(
            models, out, merger, others=given, exclude=exclude, buffers=buffers, rank=rank, hashes=hashes, on_progress=on_progress
        )
    if rank is not None:
        raise ConfigError("--rank belongs to adapters that are merged with adapters, without a base. Leave it out.")
    paths = [Path(path) for path in ((base, *models) if base is not None else models)]
    sources, opened = open_models(base, models)
    check_quantised(sources, paths)
    extra = {kind: [open_tensors(path) for path in files] for kind, files in (statistics or {}).items()}
    others = [*merger.inputs(), *(source for readers in extra.values() for source in readers)]
    # Before anything is computed: a merge may take long.
    output = plan_output(out, sources, others, paths, shard_size)
    if device != "cpu":
        device = _device(device, merger)
    digests = InputHashes()
    if base is not None:
        check_bases(sources[0], sources[1:], paths[1:], digests.of)
    named = list(zip(paths, sources, strict=True))
    if isinstance(merger, ModelMerger):
        if exclude:
            raise ConfigError(
                "`exclude` belongs to methods that go tensor by tensor; this one decides over whole models. Leave it out."
            )
    elif base is None and merger.needs_base:
        raise ConfigError("This method merges the changes that models made to their base. Name the base with --base.")
    elif extra or (network is not None and suite is None and not align):
        raise ConfigError(
            "This method goes tensor by tensor and takes no statistics, and a network only for scores (with a suite) or an alignment. "
            "Leave them out."
        )
    if repair and suite is None:
        raise ConfigError("Running statistics are measured on training rows. Give data with --suite, or leave --repair out.")
    if suite is not None:
        from graftwork.data.reading.ingest import open_suite

        suite = open_suite(suite, seed=seed)
    whole = merge_models(named, network)
    before = (*opened, *output.notes, *note_types(sources, paths))
    if align:
        from graftwork.workflows.merge_fitting import align_models

        whole, said = align_models(whole, align, seed=seed)
        before = (*before, said)

    def begun(chosen: Merger | ModelMerger) -> Merging:
        context = merge_context(suite, extra, device, seed)
        if isinstance(chosen, ModelMerger):
            found = merge_whole_models(chosen, whole, context, has_base=base is not None)
        else:
            chosen.has_base = base is not None
            # Without a base the first model stands in its place, for names, shapes and types.
            experts = [model.tensors for model in (whole if base is None else whole[1:])]
            found = merge_by_tensor(chosen, sources[0], experts, exclude=exclude, buffers=buffers)
        if repair:
            from graftwork.workflows.merge_fitting import measure_statistics

            return measure_statistics(found, whole[0 if base is None else 1], context)
        return found

    judge = None
    if suite is not None:
        from graftwork.workflows.merge_judging import Judge

        judge = Judge(
            whole,
            merge_context(suite, {}, device, seed, with_test=True),
            has_base=base is not None,
            metric=metric,
            # A method that looks at whole models may do without networks, and is then not scored.
            needed=bool(search) or not isinstance(merger, ModelMerger),
        )
        if search:
            merger = built(judge.search(tried, lambda values: begun(built(values))))
    merging = begun(merger)
    lineage = Lineage(paths, sources, others, has_base=base is not None, hashes=digests if hashes else None)
    # Thresholds are found while merging, but the header must have its final length before.
    start = {key: value for key, value in merger.settings().items() if key != "thresholds"}
    not_finite: list[str] = []

    def watched() -> Iterator[tuple[str, Any]]:
        for done, (name, values) in enumerate(merging.tensors, start=1):
            # While the tensor is in memory anyway: looking for NaN afterwards would read the file once more.
            found = name_not_finite(name, values, merging.layout[name][0], sources, paths)
            not_finite.extend([found] if found else [])
            yield name, values
            if on_progress:
                on_progress(done, len(merging.layout))

    # the hashes are ready only after the merge, but their length is known: the header is written with zeros first
    final = (lambda: lineage.metadata(start, final=True)) if hashes else None
    said_of_files = output.write(merging, watched(), lineage.metadata(start, final=False), final)
    scores = judge.after(output.place) if judge else ()
    is_mean = buffers == "mean" and not repair and not isinstance(merger, ModelMerger)
    statistics_said = note_statistics(sources if base is None else sources[1:]) if is_mean else []
    kept = getattr(merger, "kept_anywhere", 0)
    seconds = time.monotonic() - started
    return MergeReport(
        path=output.place,
        method=merger.settings(),
        num_models=len(models),
        num_parameters=merging.num_parameters,
        sign_conflict_share=getattr(merger, "conflicts", 0) / kept if kept else None,
        not_finite=tuple(not_finite),
        notes=(*before, *merging.notes, *said_of_files, *statistics_said, *(judge.notes if judge else ())),
        seconds=seconds,
        scores=scores,
        scored_on=judge.role if judge else "",
        trials=judge.trials if judge else (),
        ledger=Ledger(
            wall_seconds=seconds,
            cpu_seconds=time.process_time() - cpu,
            parameters_stored=sum(math.prod(shape) for _, shape in merging.layout.values()),
            steps=int(merging.costs.get("steps", 0)),
            samples=int(merging.costs.get("samples", 0)),
        ),
    )
