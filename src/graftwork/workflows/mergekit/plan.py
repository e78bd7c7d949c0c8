"""Everything about a document that is known before a tensor is merged: checked, with the layout and the files of its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.core.tensor_files import TensorSource
from graftwork.workflows.merge_beside import SideFiles, note_tokenizers
from graftwork.workflows.merge_checks import note_types
from graftwork.workflows.mergekit.combine import check_planned
from graftwork.workflows.mergekit.inputs import Inputs, open_inputs
from graftwork.workflows.mergekit.references import Located
from graftwork.workflows.mergekit.schema import DTYPES, MergeFile
from graftwork.workflows.mergekit.stages import Stage, StageTensors
from graftwork.workflows.mergekit.templates import with_template
from graftwork.workflows.mergekit.tensors import PlannedTensor, num_layers, plan_tensors
from graftwork.workflows.mergekit.union import unite

__all__ = ["Plan", "make_plan"]

_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
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
    is_united: bool
    """Whether its vocabulary is that of no model, or not that of all."""
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
    planned = plan_tensors(file, inputs.models)
    united = unite(file, inputs, planned)
    models = united.models if united else inputs.models
    check_planned(file, planned, models, {name for name in models if located[name].stage})
    layout = {}
    for tensor in planned:
        model, name = models[tensor.sources[0].model], tensor.names[0]
        kept = model.dtype_name(name)
        layout[tensor.name] = (file.stored if file.stored and model.is_float(name) else kept, model.shape(name))
    first = file.base or file.models[0]
    files = united.files if united else inputs.files_of(first)
    if united is None and file.tokenizer and file.tokenizer.reference:
        files = dataclasses.replace(files, tokenizer=inputs.files_of(file.tokenizer.reference).tokenizer)
    notes = [*inputs.notes, *(united.notes if united else _note_tokenizers(file, inputs))]
    notes += note_types([models[name] for name in file.models], [inputs.labels[name] for name in file.models], file.stored)
    if files.config is not None:
        changes = _layers(files.config, models[first], layout) | _types(files.config, file.stored)
        files = dataclasses.replace(files, config={**files.config, **changes})
    if file.chat_template:
        files, said = with_template(files, file.chat_template, (inputs.files_of(name) for name in file.models))
        notes += said
    return Plan(
        file=file,
        inputs=inputs,
        models=models,
        tensors=planned,
        layout=layout,
        files=files,
        is_united=united is not None,
        notes=tuple(notes),
    )


def _layers(config: Mapping[str, Any], model: TensorSource, layout: Mapping[str, Any]) -> dict[str, Any]:
    """Return the number of layers in the result, by the key of the configuration that says it."""
    before = num_layers(model)
    layers = {int(name[len(head) :].partition(".")[0]) for head in before for name in layout if name.startswith(head)}
    counts = list(before.values())
    return {key: len(layers) for key in _LAYER_KEYS if len(counts) == 1 and config.get(key) == counts[0]}


def _types(config: Mapping[str, Any], stored: str) -> dict[str, Any]:
    name = next((name for name, code in DTYPES.items() if code == stored), "")
    return {key: name for key in ("dtype", "torch_dtype") if name and key in config}


def _note_tokenizers(file: MergeFile, inputs: Inputs) -> list[str]:
    return note_tokenizers({name: content for name in file.models if (content := inputs.tokenizer_of(name)) is not None})
