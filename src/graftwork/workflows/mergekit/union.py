"""Brings the vocabularies of a document's models together: tables in one order of rows, tokenizer and configuration to match."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.core.tensor_files import TensorSource
from graftwork.data.names import short_list
from graftwork.workflows.merge_beside import Content, SideFiles
from graftwork.workflows.mergekit.inputs import Inputs
from graftwork.workflows.mergekit.schema import MergeFile
from graftwork.workflows.mergekit.tables import TableRows, TokenTables, find_tables, note_unknown, num_tokens, table_sizes
from graftwork.workflows.mergekit.tensors import PlannedTensor
from graftwork.workflows.mergekit.tokens import TokenizerChoice
from graftwork.workflows.mergekit.vocabulary import Vocabulary, read_vocabulary, tokenizer_config

__all__ = ["United", "unite"]

_GENERATION = "generation_config.json"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class United:
    """Models of one vocabulary."""

    models: Mapping[str, TensorSource]
    files: SideFiles
    """What goes with the result: its tokenizer, and the configuration of the base with the new number of rows."""
    notes: tuple[str, ...]


def unite(file: MergeFile, inputs: Inputs, planned: Sequence[PlannedTensor]) -> United | None:
    """Return the models of a document with the vocabulary that it asks for; None if theirs is that already.

    Args:
        file: The document.
        inputs: Its models.
        planned: Tensors of its result.

    Raises:
        ConfigError: If tokenizers cannot be brought together, or tokens are asked for that are not there.
        DataError: If tables do not fit together.
        FileFormatError: If a file beside a model is damaged.
        MissingDependencyError: If the ``tokenizers`` package is not installed.
    """
    choice = file.tokenizer
    if choice is None or _are_one(file, choice, inputs):
        return None
    where = f"{file.path.name}, line {file.lines.get(choice.key, 1)}, {choice.key}"
    first = file.base or file.models[0]
    sizes = {name: num_tokens(name, model, inputs.files_of(name), where) for name, model in inputs.models.items()}
    vocabulary = read_vocabulary(file, choice, inputs, sizes)
    tables = find_tables(planned, inputs.models, sizes)
    rows = TableRows(vocabulary, inputs.models, tables)
    notes = [*vocabulary.notes, *note_unknown(planned, inputs.models, sizes)]
    # One note for tables that lack the same tokens.
    for tokens in dict.fromkeys(tuple(rows.missing(name)) for name in tables):
        if tokens:
            notes.append(
                f"{len(tokens):,} tokens are in none of the models that tables are made from; their rows are 0: {short_list(tokens, 3)}."
            )
    home = inputs.files_of(choice.reference or first)
    files = dataclasses.replace(inputs.files_of(first), tokenizer=_tokenizer(home, vocabulary))
    return United(
        models={name: TokenTables(name, model, rows) for name, model in inputs.models.items()},
        files=_configured(files, home, vocabulary),
        notes=tuple(notes),
    )


def _are_one(file: MergeFile, choice: TokenizerChoice, inputs: Inputs) -> bool:
    """Return whether nothing is to be done: equal tokenizers, equal numbers of rows, nothing asked for single tokens."""
    if choice.tokens or choice.multiple > 1:
        return False
    names = (*file.models, *([choice.reference] if choice.reference else []))
    contents = {content for name in names if (content := inputs.tokenizer_of(name)) is not None}
    if len(contents) > 1:
        return False
    return len({table_sizes(model) for model in inputs.models.values()}) == 1


def _tokenizer(home: SideFiles, vocabulary: Vocabulary) -> Mapping[str, Content]:
    if vocabulary.extended is None:
        return home.tokenizer
    # Files of slow tokenizers would say another vocabulary.
    kept = {
        name: content
        for name, content in home.tokenizer.items()
        if name.startswith(("tokenizer_config", "special_tokens_map", "chat_template"))
    }
    config = tokenizer_config(home.read("tokenizer_config.json"), vocabulary.added)
    return {**kept, "tokenizer.json": vocabulary.extended, **({} if config is None else {"tokenizer_config.json": config})}


def _configured(files: SideFiles, home: SideFiles, vocabulary: Vocabulary) -> SideFiles:
    """Return the files with the number of rows, and the ids of special tokens in the new vocabulary."""
    config = None if files.config is None else _renumbered(files.config, home.config or {}, vocabulary)
    others, generation = dict(files.others), files.json(_GENERATION)
    if isinstance(generation, dict):
        taken = home.json(_GENERATION)
        changed = _renumbered(generation, taken if isinstance(taken, dict) else {}, vocabulary)
        others[_GENERATION] = (json.dumps(changed, indent=2, ensure_ascii=False) + "\n").encode()
    return dataclasses.replace(files, config=config, others=others)


def _renumbered(config: Mapping[str, Any], home: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """Return a configuration for the new vocabulary; special tokens that are not in it are those of ``home``."""
    found = dict(config)
    for key, value in config.items():
        if key == "vocab_size":
            found[key] = vocabulary.num_rows
        elif key == "text_config" and isinstance(value, Mapping):
            taken = home.get(key)
            found[key] = _renumbered(value, taken if isinstance(taken, Mapping) else {}, vocabulary)
        elif key.endswith("_token_id") and value is not None:
            ids = [
                vocabulary.ids.get(vocabulary.before.get(item, "")) for item in (value if isinstance(value, list) else [value])
            ]
            if None in ids:
                found[key] = home.get(key)
            else:
                found[key] = ids if isinstance(value, list) else ids[0]
    return found
