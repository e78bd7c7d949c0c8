"""The two kinds of merges, brought to one form that can be written: tensor by tensor, and whole models with data and networks."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.files import read_json
from graftwork.core.tensor_files import TensorSource
from graftwork.interfaces.merger import Merger
from graftwork.interfaces.model_merger import MergeContext, MergeModel, ModelMerger
from graftwork.methods.merging.driver import check_settings, iterate_merged
from graftwork.methods.merging.tensor_roles import Buffers, assign_roles
from graftwork.workflows.merge_changed_source import ChangedTensors

if TYPE_CHECKING:
    from torch import nn

    from graftwork.data.suite import Suite

__all__ = ["Merging", "merge_by_tensor", "merge_context", "merge_models", "merge_whole_models"]

Array = NDArray[Any]
_STORED = {
    np.dtype(kind): name
    for kind, name in (
        ("f8", "F64"), ("f4", "F32"), ("f2", "F16"), ("i8", "I64"), ("i4", "I32"), ("i2", "I16"), ("i1", "I8"), ("u1", "U8"), ("?", "BOOL"),
    )
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Merging:
    """A merge that is about to be written."""

    layout: Mapping[str, tuple[str, tuple[int, ...]]]
    """``{name: (stored type, shape)}`` of everything that is written."""
    tensors: Iterable[tuple[str, Any]]
    """The values; merging happens while they are taken."""
    corrections: Iterable[tuple[str, Array, Array]] = ()
    """``(name, flat indices, values)`` known once all tensors were taken."""
    num_parameters: int
    notes: tuple[str, ...] = ()
    costs: Mapping[str, float] = field(default_factory=dict)


def merge_by_tensor(
    merger: Merger,
    base: TensorSource,
    experts: Sequence[Mapping[str, Array]],
    *,
    exclude: Sequence[str] = (),
    buffers: Buffers = "mean",
) -> Merging:
    """Check that the models fit their base and the merger's settings fit the models; see :func:`.iterate_merged`."""
    check_settings(merger, len(experts))
    roles = assign_roles(base, experts, exclude=exclude, buffers=buffers)
    return Merging(
        layout={name: (base.dtype_name(name), base.shape(name)) for name in base},
        tensors=iterate_merged(base, experts, merger, roles=roles),
        corrections=_corrections(merger),
        num_parameters=sum(math.prod(base.shape(name)) for name in roles.merged),
        notes=roles.notes,
    )


def _corrections(merger: Merger) -> Iterator[tuple[str, Array, Array]]:
    yield from merger.corrections()  # asked for only when all tensors are merged


def merge_context(
    suite: Suite | str | Path | None,
    statistics: Mapping[str, Sequence[TensorSource]],
    device: str = "cpu",
    seed: int = 0,
    *,
    with_test: bool = False,
) -> MergeContext:
    """Return what a merger of whole models may use; of a suite all rows but those of the test (``with_test``: those as well, for
    scores of what was merged)."""
    if suite is None:
        return MergeContext(statistics=statistics, device=device, seed=seed)
    from graftwork.data.loader import iter_rows
    from graftwork.data.reading.ingest import open_suite

    opened = open_suite(suite, seed=seed)
    roles = {role: rows for role, rows in opened.splits.items() if with_test or role != "test"}
    rows = {role: functools.partial(iter_rows, opened, numbers) for role, numbers in roles.items()}
    return MergeContext(tasks=opened.tasks, rows=rows, statistics=statistics, device=device, seed=seed)


def merge_models(models: Sequence[tuple[Path, TensorSource]], network: Any = None) -> list[MergeModel]:
    """Return models with what builds their networks, where that is known.

    Args:
        models: Path and tensors of each.
        network: What builds a network without weights: one function for all models, or one for each; None for model folders of
            graftwork.

    Raises:
        ConfigError: If there are not as many networks as models.
    """
    builders = list(network) if isinstance(network, Sequence) else [network] * len(models)
    if len(builders) != len(models):
        raise ConfigError(
            f"`network` has {len(builders)} functions for {len(models)} models, the base among them; give one for each."
        )
    return [
        MergeModel(name=str(path), tensors=source, network=_network(path, source, build))
        for (path, source), build in zip(models, builders, strict=True)
    ]


def merge_whole_models(
    merger: ModelMerger, models: Sequence[MergeModel], context: MergeContext, *, has_base: bool = True
) -> Merging:
    """Run a merger of whole models.

    Args:
        merger: The method.
        models: The base first if there is one; see :func:`merge_models`.
        context: See :func:`merge_context`.
        has_base: Whether the first model is the base.

    Raises:
        ConfigError: If the method lacks something.
        DataError: If there is no model, the method returns no tensors, or values that cannot be stored.
    """
    experts = models[1:] if has_base else models
    if not experts:
        raise DataError("There are no models to merge. Give at least one with --models.")
    merged = merger.merge(models[0] if has_base else None, experts, context)
    arrays = {str(name): np.asarray(values) for name, values in merged.items()}
    if not arrays:
        raise DataError(f"{type(merger).__name__} returned no tensors; nothing is written.")
    # The base if there is one: the result is stored as it is.
    first = models[0].tensors
    layout = {name: (_stored_type(name, values, first), values.shape) for name, values in arrays.items()}
    return Merging(
        layout=layout,
        tensors=arrays.items(),
        # Integers are counters or tables, not parameters.
        num_parameters=sum(values.size for name, values in arrays.items() if layout[name][0] in ("F64", "F32", "F16", "BF16")),
        costs=context.costs,
    )


def _stored_type(name: str, values: Array, first: Mapping[str, Array]) -> str:
    # Half precision in, half precision out, although merging computes in more.
    if isinstance(first, TensorSource) and name in first and first.is_float(name) and values.dtype.kind == "f":
        return first.dtype_name(name)
    if values.dtype not in _STORED:
        raise DataError(
            f"The merged tensor {name!r} holds {values.dtype}, which cannot be stored; allowed: {', '.join(map(str, _STORED))}."
        )
    return _STORED[values.dtype]


def _network(path: Path, source: TensorSource, build: Callable[[], nn.Module] | None) -> Callable[[], nn.Module] | None:
    """Return what builds the network of a model with its weights, None if nothing says what it looks like."""
    if isinstance(source, ChangedTensors):
        # A change has no network of its own, but that of its base.
        build = build or _network(source.base_path, source.base, None)
        if build is None:
            return None
    if build is not None:
        return functools.partial(_with_weights, build, source, path)
    config = path / "config.json"
    # Weights alone: methods that need the network will say so.
    if not config.is_file():
        return None
    content = read_json(config)
    if not isinstance(content, dict) or not str(content.get("format", "")).startswith("graftwork-"):
        return None  # of another library
    return functools.partial(_own_model, path)


def _own_model(path: Path) -> nn.Module:
    from graftwork.training.model_loading import load_model

    return load_model(path)[0]


def _with_weights(build: Callable[[], nn.Module], source: TensorSource, path: Path) -> nn.Module:
    import torch

    network = build()
    try:
        # A copy: the reader's arrays may be views of a mapped, read-only file.
        network.load_state_dict({name: torch.from_numpy(np.array(source[name])) for name in source})
    except RuntimeError as error:
        raise DataError(f"The weights in {path} do not fit the network that `network` builds: {error}") from error
    return network
