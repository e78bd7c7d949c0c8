"""Everything about a document that is known before a tensor is merged: checked, with the layout and the files of its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.core.tensor_files import TensorSource
from graftwork.workflows.merge_beside import SideFiles
from graftwork.workflows.merge_checks import note_types
from graftwork.workflows.mergekit.combine import check_planned
from graftwork.workflows.mergekit.inputs import Inputs, open_inputs
from graftwork.workflows.mergekit.references import Located
from graftwork.workflows.mergekit.schema import DTYPES, MergeFile
from graftwork.workflows.mergekit.stages import Stage, StageTensors
from graftwork.workflows.mergekit.tensors import PlannedTensor, num_layers, plan_tensors

__all__ = ["Plan", "make_plan"]

_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A document that can be merged."""

    file: MergeFile
    inputs: Inputs
    models: Mapping[str, TensorSource]
    """Its models by their references, as they are merged."""
    tensors: Sequence[PlannedTensor]
    layout: Mapping[str, tuple[str, tuple[int, ...]]]
    """``{name: (stored type, shape)}`` of the result."""
    files: SideFiles
    """What goes with it."""
    notes: tuple[str, ...]

    def stage(self) -> Stage:
        """Return the result as a model of other documents."""
        return Stage(tensors=StageTensors(self.layout), files=self.files, originals=self.inputs.originals)


def make_plan(file: MergeFile, located: Mapping[str, Located], stages: Mapping[str, Stage]) -> Plan:
    """Open the models of a document and check that they can be merged.

    Args:
        file: The document.
        located: Where each of its references leads.
        stages: Results of the documents before it, by name; nothing of them need be merged yet.

    Raises:
        ConfigError: If method, parameters and models do not suit each other.
        DataError: If the models do not fit together.
        FileFormatError: If a file is damaged.
    """
    inputs = open_inputs(file, located, stages)
    models = inputs.models
    planned = plan_tensors(file, models)
    check_planned(file, planned, models, {name for name in models if located[name].stage})
    layout = {}
    for tensor in planned:
        model, name = models[tensor.sources[0].model], tensor.names[0]
        kept = model.dtype_name(name)
        layout[tensor.name] = (file.stored if file.stored and model.is_float(name) else kept, model.shape(name))
    first = file.base or file.models[0]
    files = inputs.files_of(first)
    notes = [*inputs.notes, *_check_tokenizer(file, inputs)]
    notes += note_types([models[name] for name in file.models], [inputs.labels[name] for name in file.models], file.stored)
    changes = _layers(files, models[first], layout) | _types(files, file.stored)
    tokenizer = inputs.files_of(file.tokenizer) if file.tokenizer in models else None
    return Plan(
        file=file,
        inputs=inputs,
        models=models,
        tensors=planned,
        layout=layout,
        files=files.merged(tokenizer=tokenizer, **changes),
        notes=tuple(notes),
    )


def _layers(files: SideFiles, model: TensorSource, layout: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of layers in the result, by the key of the configuration that says it."""
    before = num_layers(model)
    layers = {int(name[len(head) :].partition(".")[0]) for head in before for name in layout if name.startswith(head)}
    counts = list(before.values())
    return {key: len(layers) for key in _LAYER_KEYS if len(counts) == 1 and (files.config or {}).get(key) == counts[0]}


def _types(files: SideFiles, stored: str) -> dict[str, str]:
    name = next((name for name, code in DTYPES.items() if code == stored), "")
    return {key: name for key in ("dtype", "torch_dtype") if name and key in (files.config or {})}


def _check_tokenizer(file: MergeFile, inputs: Inputs) -> list[str]:
    """Refuse to unite vocabularies that differ; say so where it is not asked for.

    Raises:
        ConfigError: If the tokenizers of the models differ, and their union was asked for, or the one asked for is not there.
    """
    contents = {name: content for name in file.models if (content := inputs.tokenizer_of(name)) is not None}
    differ = len(set(contents.values())) > 1
    line = file.lines.get("tokenizer_source", file.lines.get("tokenizer.source", 1))
    if file.tokenizer == "union" and differ:
        raise ConfigError(
            f"{file.path.name}, line {line}, tokenizer_source: a union of different vocabularies is not supported, and those of "
            f"{', '.join(contents)} differ. Merge models of one tokenizer, or take base."
        )
    if file.tokenizer not in ("", "base", "union") and file.tokenizer not in inputs.models:
        raise ConfigError(
            f"{file.path.name}, line {line}, tokenizer_source: {file.tokenizer!r} is none of the merged models, base or union."
        )
    return [f"the tokenizers of {', '.join(contents)} are not the same; the result has that of the base."] if differ else []
