"""The models of a document, opened: whole ones, models with an adapter, and results of other documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from graftwork.core.errors import ConfigError
from graftwork.core.tensor_files import TensorSource, open_tensors
from graftwork.workflows.merge_beside import SideFiles, side_files
from graftwork.workflows.merge_changed_source import ChangedTensors, change_of_base
from graftwork.workflows.merge_changes import open_change
from graftwork.workflows.merge_checks import check_quantised
from graftwork.workflows.mergekit.references import Located
from graftwork.workflows.mergekit.schema import MergeFile
from graftwork.workflows.mergekit.stages import Stage

__all__ = ["Inputs", "open_inputs"]

Original = tuple[Path, TensorSource]


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Models of a document by their references, those that are merged first, as :attr:`.MergeFile.models` has them."""

    models: Mapping[str, TensorSource]
    labels: Mapping[str, Path]
    """What messages call each."""
    located: Mapping[str, Located]
    stages: Mapping[str, Stage]
    originals: tuple[Original, ...]
    """Everything of the user that is read for it, each once."""
    has_base: bool
    """Whether the first of these is the base."""
    notes: tuple[str, ...]

    def files_of(self, reference: str) -> SideFiles:
        """Return what stands beside the weights of a model; beside those of a model with an adapter, what the model has.

        Raises:
            ConfigError: If a file is a link that leaves the model's folder.
            FileFormatError: If the configuration is no JSON.
        """
        where = self.located[reference]
        return self.stages[where.stage].files if where.stage else side_files(where.path)

    def tokenizer_of(self, reference: str) -> bytes | None:
        """Return the ``tokenizer.json`` of a model, to be compared with others; None if it has none."""
        where = self.located[reference]
        if where.stage:
            return self.stages[where.stage].files.read("tokenizer.json")
        file = where.path / "tokenizer.json"
        return file.read_bytes() if file.is_file() else None


def open_inputs(file: MergeFile, located: Mapping[str, Located], stages: Mapping[str, Stage]) -> Inputs:
    """Open the models of a document.

    Args:
        file: The document.
        located: Where each of its references leads.
        stages: Results of the documents before it, by name.

    Raises:
        ConfigError: If an adapter cannot be read, or knows its base and that is made by a document.
        DataError: If a model is quantised, or an adapter belongs to another model.
        FileFormatError: If a file is damaged.
    """
    models: dict[str, TensorSource] = {}
    labels: dict[str, Path] = {}
    originals: list[Original] = []
    notes: list[str] = []
    for name in file.models:
        where = located[name]
        source: TensorSource = stages[where.stage].tensors if where.stage else open_tensors(where.path)
        if where.stage:
            originals += stages[where.stage].originals
        else:
            check_quantised([source], [where.path])
            originals.append((where.path, source))
        label = where.path
        if where.adapter is not None:
            source, said = _with_change(file, name, where, source)
            notes += said
            originals.append((where.adapter, source))
            label = Path(f"{where.path}+{where.adapter}")
        models[name], labels[name] = source, label
    base = located.get(file.base)
    return Inputs(
        models=models,
        labels=labels,
        located=located,
        stages=stages,
        originals=tuple(_each_once(originals)),
        has_base=base is not None and not base.stage and base.adapter is None,
        notes=tuple(notes),
    )


def _with_change(file: MergeFile, name: str, where: Located, base: TensorSource) -> tuple[ChangedTensors, list[str]]:
    assert where.adapter is not None
    if where.stage and open_change(where.adapter).delta.base_prints:
        raise ConfigError(
            f"{file.path.name}, line {file.model_lines.get(name, 1)}: {where.adapter} knows the base that it was tuned from, and the result "
            f"of the document {where.stage!r} is another. Add it to its own base."
        )
    return change_of_base(where.adapter, base, where.path)


def _each_once(originals: Iterable[Original]) -> list[Original]:
    found: dict[Path, Original] = {}
    for path, source in originals:
        found.setdefault(path.resolve(), (path, source))
    return list(found.values())
