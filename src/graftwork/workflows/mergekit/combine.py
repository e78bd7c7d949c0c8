"""The merged values of each planned tensor: parameters resolved, the merger built, and applied."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.tensor_files import TensorSource
from graftwork.data.names import short_list
from graftwork.interfaces.merger import Merger
from graftwork.methods.merging.sources import are_equal
from graftwork.workflows.mergekit.methods import METHODS, KitMethod
from graftwork.workflows.mergekit.resolve import resolve
from graftwork.workflows.mergekit.schema import MergeFile
from graftwork.workflows.mergekit.tensors import PlannedTensor

__all__ = ["check_integers", "check_planned", "merged_tensors", "merger_of"]

Models = Mapping[str, TensorSource]
_STATISTICS = ("running_mean", "running_var")
"""Buffers of BatchNorm, which are no weights: their mean is taken, as everywhere in graftwork."""


def check_planned(file: MergeFile, planned: Sequence[PlannedTensor], models: Models, later: Collection[str] = ()) -> None:
    """Refuse models that do not fit together, before anything is merged.

    Args:
        file: The document.
        planned: Tensors of its result.
        models: Its models.
        later: Those whose values are not there yet; :func:`check_integers` is due once they are.

    Raises:
        ConfigError: If the number of models, or the base among them, does not suit the method, or a parameter is missing.
        DataError: If tensors are missing, or shapes or types differ, of which the first ones are listed; or integers differ.
    """
    method = METHODS[file.method]
    problems: list[str] = []
    for item in {id(tensor.slice): tensor.slice for tensor in planned}.values():
        _check_models(file, method, item.base, [source.model for source in item.sources])
    for tensor in planned:
        shapes: dict[tuple[int, ...], str] = {}
        for source, name in zip(tensor.sources, tensor.names, strict=True):
            model = models[source.model]
            if name not in model:
                problems.append(f"{source.model} has no tensor {name!r}")
            else:
                shapes.setdefault(model.shape(name), source.model)
                first = models[tensor.sources[0].model]
                if tensor.names[0] in first and model.is_float(name) != first.is_float(tensor.names[0]):
                    problems.append(
                        f"{source.model} holds {model.dtype_name(name)} in {name!r}, where {tensor.sources[0].model} does not"
                    )
        if len(shapes) > 1:
            each = ", ".join(f"{list(shape)} in {model}" for shape, model in shapes.items())
            problems.append(f"{tensor.name!r} is {each}{_vocabulary(tensor.name)}")
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise DataError(f"The models do not fit together: {shown}.")
    for tensor in planned:
        merger_of(file, tensor)
    check_integers([tensor for tensor in planned if not any(source.model in later for source in tensor.sources)], models)


def check_integers(planned: Sequence[PlannedTensor], models: Models) -> None:
    """Refuse integers that differ between models.

    Raises:
        DataError: Naming the tensor.
    """
    for tensor in planned:
        _check_integers(tensor, models)


def _check_integers(tensor: PlannedTensor, models: Models) -> None:
    (home, own), *others = ((models[source.model], name) for source, name in zip(tensor.sources, tensor.names, strict=True))
    # One number is a counter, of batches seen by a normalisation layer, say: that of the base is as good.
    if home.is_float(own) or math.prod(home.shape(own)) <= 1:
        return
    if any(not are_equal(home.lazy(own), model.lazy(name)) for model, name in others):
        raise DataError(f"{tensor.name!r} holds integers that differ between the models; they cannot be merged.")


def _check_models(file: MergeFile, method: KitMethod, base: str, names: Sequence[str]) -> None:
    if method.base == "needed" and not base:
        raise ConfigError(f"{file.path.name}: {file.method} needs base_model.")
    if base and base not in names and method.base != "unused" and file.has_slices:
        raise ConfigError(
            f"{file.path.name}: base_model {base} is not among the sources of a slice, which cannot be merged without it."
        )
    merged = [name for name in names if method.takes_base or name != base]
    least, most = method.counts
    if len(merged) < least or (most is not None and len(merged) > most):
        allowed = str(least) if most == least else f"{least} to {most}" if most is not None else f"at least {least}"
        raise ConfigError(f"{file.path.name}: {file.method} merges {allowed} models; got {len(merged)}: {short_list(merged)}.")
    doubled = sorted({name for name in merged if merged.count(name) > 1})
    if doubled:
        raise ConfigError(f"{file.path.name}: {doubled[0]} is named twice among the models of a merge. Leave one out.")


def _vocabulary(name: str) -> str:
    is_table = any(part in name for part in ("embed", "wte", "lm_head", "shared.weight"))
    return " (their vocabularies differ; tokenizer_source: union brings them together)" if is_table else ""


def _order(file: MergeFile, tensor: PlannedTensor) -> list[int]:
    """Return which sources are merged, in the order that the merger wants."""
    method, base = METHODS[file.method], tensor.slice.base
    indices = [index for index, source in enumerate(tensor.sources) if method.takes_base or source.model != base]
    if file.method == "slerp":
        # From the base to the other one, whatever their order in the file.
        indices.sort(key=lambda index: tensor.sources[index].model != base)
    return indices


def merger_of(file: MergeFile, tensor: PlannedTensor) -> Merger:
    """Return the merger for one tensor, with its parameters.

    Raises:
        ConfigError: If a parameter is missing or out of range.
    """
    method = METHODS[file.method]
    common = (tensor.slice.parameters, file.parameters)
    shared: dict[str, Any] = {}
    each: list[dict[str, Any]] = []
    key = ""
    try:
        for key, parameter in method.parameters.items():
            if parameter.scope == "shared":
                shared[key] = resolve(parameter, key, common, tensor.name, tensor.depth)
        for index in _order(file, tensor):
            source, found = tensor.sources[index], dict[str, Any]()
            for key, parameter in method.parameters.items():
                if parameter.scope != "shared":
                    found[key] = resolve(parameter, key, (source.parameters, *common), tensor.names[index], tensor.depth)
            each.append(found)
        key = ""
        return method.build({**shared, "seed": file.seed}, each)
    except ConfigError as error:
        where = f"the parameter {key!r} {error}" if key else str(error)
        raise ConfigError(f"{file.path.name}, {tensor.name!r}: {where}") from error


def merged_tensors(file: MergeFile, planned: Sequence[PlannedTensor], models: Models) -> Iterator[tuple[str, Any]]:
    """Yield ``(name, values)`` of every tensor; merging happens while they are taken."""
    method = METHODS[file.method]
    for tensor in planned:
        order = _order(file, tensor)
        place = next((i for i, source in enumerate(tensor.sources) if source.model == tensor.slice.base), order[0])
        start = models[tensor.sources[place].model]
        # Each once: some are computed.
        read: dict[int, Any] = {i: models[tensor.sources[i].model].lazy(tensor.names[i]) for i in {place, *order}}
        base, values = read[place], [read[index] for index in order]
        if not start.is_float(tensor.names[place]):
            yield tensor.name, base  # equal in all models, as was checked before
        elif tensor.name.endswith(_STATISTICS) and file.method != "passthrough":
            yield tensor.name, np.mean([np.asarray(item) for item in values], axis=0, dtype=np.float64)
        else:
            merger = merger_of(file, tensor)
            merger.has_base = bool(tensor.slice.base) and not method.takes_base
            yield tensor.name, merger.merge_tensor(tensor.name, base, values)
        # Written by now. Otherwise all models would be in memory in the end, as mapped pages.
        for source, name in zip(tensor.sources, tensor.names, strict=True):
            models[source.model].release(name)
