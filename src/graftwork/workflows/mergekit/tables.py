"""Embeddings and output layers whose rows are tokens, in the order of the result's vocabulary; rows that a model lacks are filled."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.bfloat16 import WidenedTensor
from graftwork.core.errors import ConfigError, DataError
from graftwork.core.tensor_files import TensorSource
from graftwork.data.names import short_list
from graftwork.workflows.merge_beside import SideFiles
from graftwork.workflows.mergekit.tensors import PlannedTensor, layer_of
from graftwork.workflows.mergekit.vocabulary import Vocabulary

__all__ = ["Table", "TableRows", "TokenTables", "find_tables", "note_unknown", "num_tokens", "table_sizes"]

Array = NDArray[Any]
_TABLE = re.compile(
    r"(?:.*\.)?(?:embed_tokens|word_embeddings?|tok_embeddings|token_embedding|wte|embed_in|embed_out|shared|lm_head|lm_head\.decoder|"
    r"predictions|predictions\.decoder|vocab_projector|lm_loss)\.(?:weight|bias)|(?:decoder|output)\.(?:weight|bias)"
)
"""Names of tensors with a row for each token; that they have so many is looked at as well."""
_NO_TABLE = re.compile(r"norm|pos|wpe|type|bias")
"""Parts of names of tensors that may have as many rows as there are tokens by chance."""


@dataclass(frozen=True, slots=True)
class Table:
    """A tensor whose rows are tokens."""

    sources: tuple[str, ...]
    """The models that it is merged from."""
    base: str
    """The base; empty if there is none."""


def table_sizes(model: TensorSource) -> frozenset[int]:
    """Return the numbers of rows of all tensors of a model that are tables by their names."""
    return frozenset(model.shape(name)[0] for name in model if _TABLE.fullmatch(name) and model.shape(name))


def num_tokens(name: str, model: TensorSource, files: SideFiles, where: str) -> int:
    """Return how many rows the tables of a model have.

    Args:
        name: Of the model, for messages.
        model: Its tensors.
        files: What stands beside them; ``vocab_size`` of the configuration settles it where tables differ.
        where: File, line and key, for messages.

    Raises:
        ConfigError: If it has no tables, or it is not clear.
    """
    found = set(table_sizes(model))
    config = files.config or {}
    text = config.get("text_config")
    said = config.get("vocab_size", text.get("vocab_size") if isinstance(text, Mapping) else None)
    if len(found) == 1:
        return found.pop()
    if said in found and type(said) is int:
        return said
    what = (
        f"tables of {', '.join(map(str, sorted(found)))} rows" if found else "no tensors that are known as embeddings of tokens"
    )
    raise ConfigError(
        f"{where}: {name} has {what}, so its vocabulary cannot be brought together with others. Leave the tokenizer out."
    )


def find_tables(
    planned: Sequence[PlannedTensor], models: Mapping[str, TensorSource], sizes: Mapping[str, int]
) -> dict[str, Table]:
    """Return the planned tensors whose rows are tokens.

    They are known by their names and their number of rows; where models have vocabularies of different sizes, by that alone.
    """
    found = {}
    for tensor in planned:
        sources = [source.model for source in tensor.sources]
        rows = [models[model].shape(name)[:1] for model, name in zip(sources, tensor.names, strict=True) if name in models[model]]
        fits = rows == [(sizes[model],) for model in sources]
        if fits and (_TABLE.fullmatch(tensor.name) or len(set(rows)) > 1):
            found[tensor.name] = Table(tuple(dict.fromkeys(sources)), tensor.slice.base)
    return found


def note_unknown(planned: Sequence[PlannedTensor], models: Mapping[str, TensorSource], sizes: Mapping[str, int]) -> list[str]:
    """Return a note on tensors that have a row for each token but are not known as tables, so that their rows keep their order."""
    known = find_tables(planned, models, sizes)
    found = []
    for tensor in planned:
        shapes = [models[source.model].shape(name) for source, name in zip(tensor.sources, tensor.names, strict=True)
                  if name in models[source.model]]  # fmt: skip
        fits = [shape[:1] for shape in shapes] == [(sizes[source.model],) for source in tensor.sources]
        if (
            fits
            and len(shapes[0]) > 1
            and tensor.name not in known
            and layer_of(tensor.name) is None
            and not _NO_TABLE.search(tensor.name)
        ):
            found.append(tensor.name)
    if not found:
        return []
    return [
        f"{short_list(found, 3)} has as many rows as there are tokens, but is not known as a table of them; its rows keep their order."
    ]


class TableRows:
    """Computes the tables of each model in the order of the result's vocabulary.

    Args:
        vocabulary: Of the result.
        models: All models of the document.
        tables: See :func:`find_tables`.

    Raises:
        DataError: If rows of a token are asked of a model that does not have the table, or widths differ.
    """

    def __init__(self, vocabulary: Vocabulary, models: Mapping[str, TensorSource], tables: Mapping[str, Table]) -> None:
        self.vocabulary, self._models, self.tables = vocabulary, models, tables
        for name, table in tables.items():
            widths = {models[model].shape(name)[1:]: model for model in table.sources}
            for donor in vocabulary.donors.values():
                if donor.model and name not in models[donor.model]:
                    raise DataError(
                        f"{donor.model} has no tensor {name!r}, of which a row is asked for a token. Take another source."
                    )
                if donor.model:
                    widths.setdefault(models[donor.model].shape(name)[1:], donor.model)
            if len(widths) > 1:
                each = ", ".join(f"{list(width)} in {model}" for width, model in widths.items())
                raise DataError(f"The models do not fit together: rows of {name!r} are {each}.")

    def missing(self, name: str) -> list[str]:
        """Return tokens whose rows are zeros in a table, because no model of it has them and nothing else was asked for."""
        nowhere = self._nowhere(name)
        return [token for token, place in self.vocabulary.ids.items() if nowhere[place]]

    def _nowhere(self, name: str) -> NDArray[np.bool_]:
        found = np.ones(self.vocabulary.num_ids, bool)
        for model in self.tables[name].sources:
            found &= self.vocabulary.rows[model] < 0
        found[list(self.vocabulary.donors)] = False
        return found

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a table of the result."""
        return (self.vocabulary.num_rows, *self._models[self.tables[name].sources[0]].shape(name)[1:])

    def of(self, name: str, model: str) -> Array:
        """Return the table of one model, float32 or wider."""
        words = self.vocabulary
        own = self._read(name, model)
        table = np.zeros((words.num_rows, *own.shape[1:]), own.dtype)
        has = words.rows[model] >= 0
        table[: words.num_ids][has] = own[words.rows[model][has]]
        self._fill(name, table, ~has)
        for place, donor in words.donors.items():
            if donor.force or not has[place]:
                table[place] = self._models[donor.model].lazy(name)[donor.row] if donor.model else 0.0
        # Rows of no token are the mean of all others, so that an output layer does not prefer them.
        idle = np.ones(words.num_rows, bool)
        idle[list(words.ids.values())] = False
        if idle.any():
            table[idle] = table[~idle].mean(axis=0, dtype=np.float64)
        return table

    def _fill(self, name: str, table: Array, wanted: NDArray[np.bool_]) -> None:
        """Fill rows that a model lacks: with those of the base, otherwise with the mean of all models that have them."""
        words, merged = self.vocabulary, self.tables[name]
        wanted = wanted.copy()
        wanted[list(words.donors)] = False
        count = np.zeros(words.num_ids, np.int64)
        for model in sorted(merged.sources, key=lambda source: source != merged.base):
            rows = words.rows[model]
            fits = wanted & (rows >= 0)
            if fits.any():
                table[: words.num_ids][fits] += self._read(name, model)[rows[fits]]
                count[fits] += 1
            if model == merged.base:
                wanted &= ~fits
        several = count > 1
        table[: words.num_ids][several] /= count[several].reshape(-1, *[1] * (table.ndim - 1))

    def _read(self, name: str, model: str) -> Array:
        values = self._models[model].lazy(name)
        return np.asarray(values, np.result_type(values.dtype, np.float32))

    def release(self, name: str) -> None:
        """Give memory back into which a table was mapped."""
        for model in {*self.tables[name].sources, *(donor.model for donor in self.vocabulary.donors.values() if donor.model)}:
            self._models[model].release(name)


class TokenTables(TensorSource):
    """A model whose tables have the rows of the result's vocabulary; all other tensors are its own.

    Args:
        name: Reference to the model.
        model: Its tensors.
        rows: What computes the tables.
    """

    def __init__(self, name: str, model: TensorSource, rows: TableRows) -> None:
        self._name, self._model, self._rows = name, model, rows
        self.metadata = model.metadata

    def _is_table(self, name: str) -> bool:
        return name in self._rows.tables and self._name in self._rows.tables[name].sources

    def __getitem__(self, name: str) -> Array:
        return np.asarray(self.lazy(name))

    def lazy(self, name: str) -> Array | WidenedTensor:
        """Return the values; those of a table are computed."""
        return self._rows.of(name, self._name) if self._is_table(name) else self._model.lazy(name)

    def __contains__(self, name: object) -> bool:
        return name in self._model

    def __iter__(self) -> Iterator[str]:
        return iter(self._model)

    def __len__(self) -> int:
        return len(self._model)

    def dtype_name(self, name: str) -> str:
        """Return the stored type of the model."""
        return self._model.dtype_name(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape; tables have a row for each token of the result."""
        return self._rows.shape(name) if self._is_table(name) else self._model.shape(name)

    def release(self, name: str) -> None:
        """Give the pages of a tensor back."""
        if self._is_table(name):
            self._rows.release(name)
        else:
            self._model.release(name)

    def files(self) -> tuple[Path, ...]:
        """Return the files of the model."""
        return self._model.files()
