"""Carries a YAML file of mergekit out: opens the models, checks them, merges tensor by tensor, and writes a model folder."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.files import read_json, remove_leftovers, write_json
from graftwork.core.folders import check_folder
from graftwork.core.model_folder import INDEX_NAME, MODEL_NAME
from graftwork.core.records import Ledger
from graftwork.core.shards import split_layout, write_model
from graftwork.core.tensor_files import TensorSource, open_tensors, write_tensors
from graftwork.workflows.merge_changes import is_change
from graftwork.workflows.merge_checks import check_out, check_quantised, name_not_finite, note_statistics, note_types
from graftwork.workflows.merge_folder import COPY_NAME, MERGE_KIND, own_file, plan_copies, result_folder, write_copies
from graftwork.workflows.merge_hashes import InputHashes
from graftwork.workflows.merge_lineage import Lineage
from graftwork.workflows.merge_report import MergeReport
from graftwork.workflows.mergekit.combine import check_planned, merged_tensors
from graftwork.workflows.mergekit.methods import METHODS
from graftwork.workflows.mergekit.resolve import check_parameters
from graftwork.workflows.mergekit.schema import DTYPES, MergeFile, read_merge_file
from graftwork.workflows.mergekit.tensors import num_layers, plan_tensors

__all__ = ["merge_from_yaml"]

_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


def merge_from_yaml(
    path: str | Path,
    out: str | Path,
    *,
    hashes: bool = True,
    shard_size: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> MergeReport:
    """Merge what a YAML file of mergekit describes.

    Args:
        path: The file. Models are paths from the current folder, or from that of the file.
        out: Folder of the result: weights, configuration and tokenizer as transformers reads them; or a ``.safetensors`` file for
            the weights alone.
        hashes: Whether SHA-256 of all inputs go into the lineage.
        shard_size: Largest number of bytes of a file of weights in a folder; None writes one.
        on_progress: Called with (tensors done, tensors in all).

    Raises:
        ConfigError: With all faults of the file and their lines, before a model is opened; or if method and models do not suit.
        DataError: If a model is not there, or models do not fit together.
        StorageError: If the result cannot be written.
    """
    started, cpu = time.monotonic(), time.process_time()
    file = read_merge_file(path)
    problems, notes = check_parameters(file, METHODS[file.method])
    if problems:
        raise ConfigError(f"{path} cannot be used.", problems)
    folders = {name: _found(file, name) for name in file.models}
    for name in filter(lambda name: is_change(folders[name]), folders):
        raise ConfigError(
            f"{file.path.name}, line {file.model_lines.get(name, 1)}: {name} is a change of a base (an adapter or a delta) and no whole "
            "model. Give it with --models and its base with --base, without a file."
        )
    models = {name: open_tensors(folder) for name, folder in folders.items()}
    sources, paths = list(models.values()), list(folders.values())
    check_quantised(sources, paths)
    planned = plan_tensors(file, models)
    check_planned(file, planned, models)
    is_file = Path(out).suffix == ".safetensors"
    if is_file and shard_size is not None:
        raise ConfigError("--shard-size parts the weights of a folder. Leave it out, or name a folder with --out.")
    if not is_file:
        check_folder(out, MERGE_KIND)
    target = check_out(out if is_file else Path(out) / MODEL_NAME, sources, paths)
    notes += [*_check_tokenizer(file, folders), *note_types(sources, paths, file.stored)]
    layout = {}
    for tensor in planned:
        model, name = models[tensor.sources[0].model], tensor.names[0]
        kept = model.dtype_name(name)
        layout[tensor.name] = (file.stored if file.stored and model.is_float(name) else kept, model.shape(name))
    beside = None if is_file else _Beside(file, folders, models)
    parts = split_layout(layout, shard_size)
    index = [INDEX_NAME] if len(parts) > 1 else []
    lineage = Lineage(paths, sources, has_base=bool(file.base), hashes=InputHashes() if hashes else None)
    described = {"method": file.method, "file": Path(path).name}
    not_finite: list[str] = []

    def watched() -> Iterator[tuple[str, Any]]:
        for done, (name, values) in enumerate(merged_tensors(file, planned, models), start=1):
            found = name_not_finite(name, values, layout[name][0], sources, paths)
            not_finite.extend([found] if found else [])
            yield name, values
            if on_progress:
                on_progress(done, len(layout))

    final = (lambda: lineage.metadata(described, final=True)) if hashes else None
    metadata = {"format": "pt", **lineage.metadata(described, final=False)}
    with contextlib.ExitStack() as stack:
        if beside is None:
            target.parent.mkdir(parents=True, exist_ok=True)
            notes += [
                f"removed {item}, {size:,} bytes that a killed process left behind"
                for item, size in remove_leftovers(target.parent)
            ]
        else:
            notes += [*beside.notes, *stack.enter_context(result_folder(target.parent, {*parts, *index, *beside.names}))]
        complete = None if final is None else lambda: {"format": "pt", **final()}
        if is_file:
            write_tensors(target, layout, watched(), metadata, (), complete)
        else:
            write_model(target.parent, parts, watched(), metadata, complete)
        if beside is not None:
            beside.write(target.parent, {name: layout[name][1] for name in layout})
    merged = [model for name, model in models.items() if name != file.base or METHODS[file.method].takes_base]
    notes += note_statistics(merged) if file.method != "passthrough" else []
    seconds = time.monotonic() - started
    stored = sum(math.prod(shape) for _, shape in layout.values())
    return MergeReport(
        path=target if is_file else target.parent,
        method=described,
        num_models=len(models),
        num_parameters=sum(math.prod(shape) for dtype, shape in layout.values() if dtype in DTYPES.values()),
        sign_conflict_share=None,
        not_finite=tuple(not_finite),
        notes=tuple(notes),
        seconds=seconds,
        ledger=Ledger(wall_seconds=seconds, cpu_seconds=time.process_time() - cpu, parameters_stored=stored),
    )


def _found(file: MergeFile, name: str) -> Path:
    for folder in (Path(name), file.path.parent / name):
        # Not that of Path, which raises where a name is too long for the file system.
        if os.path.exists(folder):
            return folder
    raise DataError(
        f"{file.path.name}, line {file.model_lines.get(name, 1)}: there is no model at {name:.200}, neither from here nor from the "
        "folder of the file. Names on a hub are not downloaded: give the folder of a model that is here."
    )


def _check_tokenizer(file: MergeFile, folders: Mapping[str, Path]) -> list[str]:
    """Refuse to unite vocabularies that differ; say so where it is not asked for.

    Raises:
        ConfigError: If the tokenizers of the models differ, and their union was asked for, or the one asked for is not there.
    """
    files = {name: folder / "tokenizer.json" for name, folder in folders.items() if folder.is_dir()}
    contents = {name: item.read_bytes() for name, item in files.items() if item.is_file()}
    differ = len(set(contents.values())) > 1
    line = file.lines.get("tokenizer_source", file.lines.get("tokenizer.source", 1))
    if file.tokenizer == "union" and differ:
        raise ConfigError(
            f"{file.path.name}, line {line}, tokenizer_source: a union of different vocabularies is not supported, and those of "
            f"{', '.join(contents)} differ. Merge models of one tokenizer, or take base."
        )
    if file.tokenizer not in ("", "base", "union") and file.tokenizer not in folders:
        raise ConfigError(
            f"{file.path.name}, line {line}, tokenizer_source: {file.tokenizer!r} is none of the merged models, base or union."
        )
    return [f"the tokenizers of {', '.join(contents)} are not the same; the result has that of the base."] if differ else []


class _Beside:
    """Configuration and tokenizer that go with the weights; refuses links before anything is written.

    Raises:
        ConfigError: If a file of a model is a link that leaves the model's folder.
        FileFormatError: If the configuration is no JSON.
    """

    def __init__(self, file: MergeFile, folders: Mapping[str, Path], models: Mapping[str, TensorSource]) -> None:
        self._file, self._model = file, models[file.base or file.models[0]]
        self._copies: dict[str, Path] = {}
        self._config: Any = None
        self.notes: list[str] = []
        """What is missing."""
        first = file.base or file.models[0]
        home = folders[first]
        if not home.is_dir():
            self.notes.append(f"{first} is a file, so there is no configuration to go with the weights.")
            return
        self._copies = plan_copies(folders.get(file.tokenizer, home), home)
        if (home / "config.json").is_file():
            self._config = read_json(own_file(home / "config.json", home))
        else:
            self.notes.append(f"{first} has no config.json, so there is none to go with the weights.")

    @property
    def names(self) -> set[str]:
        """Names of the files that :meth:`write` writes."""
        return {COPY_NAME, *self._copies} | ({"config.json"} if isinstance(self._config, dict) else set())

    def write(self, out: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Write all files; ``shapes`` are those of the merged tensors."""
        write_copies({COPY_NAME: self._file.path, **self._copies}, out)
        if not isinstance(self._config, dict):
            return
        content, before = dict(self._config), num_layers(self._model)
        layers = {int(name[len(head) :].partition(".")[0]) for head in before for name in shapes if name.startswith(head)}
        for key in _LAYER_KEYS:
            if len(before) == 1 and content.get(key) == next(iter(before.values())):
                content[key] = len(layers)
        if self._file.stored:
            name = next(name for name, code in DTYPES.items() if code == self._file.stored)
            content |= {key: name for key in ("dtype", "torch_dtype") if key in content}
        write_json(out / "config.json", content)
