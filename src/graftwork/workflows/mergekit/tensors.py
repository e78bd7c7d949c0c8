"""From slices of layers to tensors: which tensor of which model goes into each tensor of the result."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graftwork.core.errors import ConfigError
from graftwork.core.tensor_files import TensorSource
from graftwork.data.names import short_list
from graftwork.workflows.mergekit.schema import MergeFile, OutputSlice, SourceModel

__all__ = ["PlannedTensor", "layer_of", "num_layers", "plan_tensors"]

_LAYER = re.compile(r"(?P<head>(?:.*\.)?(?:layers?|h|blocks?)\.)(?P<number>\d+)(?P<tail>\..+)")
_BEFORE = re.compile(r"embed|wte|wpe|patch|shared\.weight|tok_|word_")
"""Names outside of layers that stand before them; all others stand behind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedTensor:
    """One tensor of the result."""

    name: str
    slice: OutputSlice
    sources: tuple[SourceModel, ...]
    """The models in the order of the slice; of models the base comes last if the file names it beside them only."""
    names: tuple[str, ...]
    """The tensor in each of them."""
    depth: float
    """Place of its layer in the slice, in [0, 1]; 0 outside of layers."""


def layer_of(name: str) -> tuple[str, int, str] | None:
    """Return head, number and tail of a tensor in a layer, None for others.

    Example:
        >>> layer_of("model.layers.3.mlp.up_proj.weight"), layer_of("model.norm.weight")
        (('model.layers.', 3, '.mlp.up_proj.weight'), None)
    """
    match = _LAYER.fullmatch(name)
    return None if match is None else (match["head"], int(match["number"]), match["tail"])


def num_layers(source: TensorSource) -> dict[str, int]:
    """Return the number of layers of each stack of a model, by the head of their names."""
    found: dict[str, int] = {}
    for name in source:
        if (layer := layer_of(name)) is not None:
            found[layer[0]] = max(found.get(layer[0], 0), layer[1] + 1)
    return found


def plan_tensors(file: MergeFile, models: Mapping[str, TensorSource]) -> list[PlannedTensor]:
    """Return all tensors of the result.

    Args:
        file: What is asked for.
        models: Every model of it, opened.

    Raises:
        ConfigError: If layers are chosen in a model that has none, or several stacks, or not so many.
    """
    slices = [_with_base(file, item) for item in file.slices]
    if not file.has_slices:
        # What the base has, or the first model: others are looked at when tensors are checked.
        first_model = models[slices[0].base or slices[0].sources[0].model]
        counts = num_layers(first_model)
        return [_whole(slices[0], name, counts) for name in first_model]
    planned = list(_outside(slices[0], models, before=True))
    offset = 0
    for item in slices:
        heads = {source.model: _stack(file, source, models) for source in item.sources}
        first = item.sources[0]
        assert first.layers is not None, "read_merge_file refuses slices without a range"
        length = first.layers[1] - first.layers[0]
        tails = [layer[2] for name in models[first.model] if (layer := layer_of(name)) and layer[1] == first.layers[0]]
        for index in range(length):
            for tail in tails:
                names = tuple(f"{heads[s.model]}{s.layers[0] + index}{tail}" for s in item.sources if s.layers)
                planned.append(
                    PlannedTensor(
                        name=f"{heads[first.model]}{offset + index}{tail}",
                        slice=item,
                        sources=item.sources,
                        names=names,
                        depth=index / (length - 1) if length > 1 else 1.0,
                    )
                )
        offset += length
    return [*planned, *_outside(slices[-1], models, before=False)]


def _with_base(file: MergeFile, item: OutputSlice) -> OutputSlice:
    """Add the base to the models of a file that names it beside them only."""
    base = item.base or file.base
    if not base or file.has_slices or any(source.model == base for source in item.sources):
        return OutputSlice(sources=item.sources, base=base, parameters=item.parameters)
    return OutputSlice(sources=(*item.sources, SourceModel(model=base)), base=base, parameters=item.parameters)


def _whole(item: OutputSlice, name: str, counts: Mapping[str, int]) -> PlannedTensor:
    layer, depth = layer_of(name), 0.0
    if layer is not None:
        count = counts[layer[0]]
        depth = layer[1] / (count - 1) if count > 1 else 1.0
    return PlannedTensor(name=name, slice=item, sources=item.sources, names=(name,) * len(item.sources), depth=depth)


def _outside(item: OutputSlice, models: Mapping[str, TensorSource], *, before: bool) -> Iterator[PlannedTensor]:
    for name in models[item.sources[0].model]:
        if layer_of(name) is None and bool(_BEFORE.search(name)) is before:
            yield PlannedTensor(name=name, slice=item, sources=item.sources, names=(name,) * len(item.sources), depth=0.0)


def _stack(file: MergeFile, source: SourceModel, models: Mapping[str, TensorSource]) -> str:
    """Return the head of the names of a model's layers."""
    found = num_layers(models[source.model])
    assert source.layers is not None, "read_merge_file refuses slices without a range"
    if len(found) != 1:
        what = f"has several stacks of layers ({short_list(list(found))})" if found else "has no tensors that name their layer"
        raise ConfigError(f"{file.path.name}: {source.model} {what}, so layer_range cannot be used. Merge whole models.")
    head, count = next(iter(found.items()))
    if source.layers[1] > count:
        raise ConfigError(
            f"{file.path.name}: layer_range {list(source.layers)} of {source.model} is out of range; it has {count} layers, 0 to "
            f"{count - 1}, so the range ends at {count} at most."
        )
    return head
