"""The vocabulary of a result: the tokens of all models, or of one, and which row of each model's tables belongs to each token.

Tokenizers are those of the ``tokenizers`` library, kept in ``tokenizer.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.optional import require
from graftwork.data.names import short_list
from graftwork.workflows.mergekit.inputs import Inputs
from graftwork.workflows.mergekit.schema import MergeFile
from graftwork.workflows.mergekit.tokens import TokenizerChoice, TokenRule

__all__ = ["Donor", "Vocabulary", "read_vocabulary", "tokenizer_config"]

Rows = NDArray[np.int64]
_NAME = "tokenizer.json"
_SLOW = ("vocab.txt", "vocab.json", "merges.txt")
"""Files of tokenizers of another kind, besides ``*.model``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Donor:
    """A row that models get for a token."""

    model: str
    """Empty for zeros."""
    row: int
    force: bool
    """Whether models that have the token get it, too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """Tokens of the result."""

    ids: Mapping[str, int]
    rows: Mapping[str, Rows]
    """For each model the row of each token of the result, by its id; -1 where the model does not have the token."""
    donors: Mapping[int, Donor]
    """Tokens whose rows were asked for, by their ids."""
    num_rows: int
    """Rows of the result's tables, with padding."""
    before: Mapping[int, str]
    """Tokens by their ids in the model whose configuration the result has."""
    extended: bytes | None
    """The tokenizer, if it is that of no model."""
    added: tuple[tuple[int, str, Any], ...]
    """What was added to it: id, token, and its settings."""
    notes: tuple[str, ...]

    @property
    def num_ids(self) -> int:
        """Rows without padding."""
        return max(self.ids.values()) + 1


def read_vocabulary(file: MergeFile, choice: TokenizerChoice, inputs: Inputs, sizes: Mapping[str, int]) -> Vocabulary:
    """Read the tokenizers of all models, and make that of the result.

    Args:
        file: The document.
        choice: What it says of the tokenizer.
        inputs: Its models.
        sizes: Number of rows of each model's tables; tokens beyond them have none.

    Raises:
        ConfigError: If a tokenizer is of another kind or cannot be read, or a token that is asked for is not there.
        MissingDependencyError: If the ``tokenizers`` package is not installed.
    """
    where = f"{file.path.name}, line {file.lines.get(choice.key, 1)}, {choice.key}"
    first = file.base or file.models[0]
    notes: list[str] = []
    tokenizers: dict[str, Any] = {}
    for name in dict.fromkeys((first, *file.models)):
        content = _content(name, inputs, where)
        if content is None and name == first:
            raise ConfigError(
                f"{where}: {name} has no {_NAME}, so there is no vocabulary to begin with. Put its tokenizer beside it."
            )
        notes += [] if content is not None else [f"{name} has no tokenizer; its tokens are taken for those of {first}."]
        tokenizers[name] = tokenizers[first] if content is None else _parsed(content, name, where)
    own = {name: tokenizer.get_vocab(with_added_tokens=True) for name, tokenizer in tokenizers.items()}
    made = tokenizers[first]
    if choice.reference:
        content = _content(choice.reference, inputs, where)
        if content is None:
            raise ConfigError(f"{where}: {choice.reference} has no {_NAME}.")
        made = _parsed(content, choice.reference, where)
    else:
        # A copy: tokens are added to it.
        made = _parsed(made.to_str().encode(), first, where)
    known = set(made.get_vocab(with_added_tokens=True))
    added: dict[str, Any] = {}
    if choice.source == "union":
        for token, settings in _missing(tokenizers, own, known, sizes, first):
            added.setdefault(token, settings)
        ordinary = [token for token, settings in added.items() if settings is None]
        if ordinary:
            notes.append(
                f"{len(ordinary):,} tokens that the tokenizer of {first} does not make are added to it ({short_list(ordinary, 3)}); text is "
                "split at them before its own rules apply."
            )
    for token in choice.tokens:
        if token not in known:
            added.setdefault(token, None)
    for token, settings in added.items():
        _add(made, token, settings)
    ids = made.get_vocab(with_added_tokens=True)
    num_ids = max(ids.values()) + 1
    rows = {}
    for name, vocabulary in own.items():
        rows[name] = np.full(num_ids, -1, np.int64)
        for token, place in ids.items():
            row = vocabulary.get(token, -1)
            rows[name][place] = row if row < sizes[name] else -1
    decoder = made.get_added_tokens_decoder()
    return Vocabulary(
        ids=ids,
        rows=rows,
        donors={
            ids[token]: _donor(file, token, rule, own, sizes) for token, rule in choice.tokens.items() if not rule.is_default
        },
        num_rows=-(-num_ids // choice.multiple) * choice.multiple,
        before={row: token for token, row in own[first].items()},
        extended=made.to_str(pretty=True).encode() if added else None,
        added=tuple((ids[token], token, decoder[ids[token]]) for token in added if ids[token] in decoder),
        notes=tuple(notes),
    )


def _content(name: str, inputs: Inputs, where: str) -> bytes | None:
    files = inputs.files_of(name)
    content = files.read(_NAME)
    slow = sorted(item for item in files.tokenizer if item in _SLOW or item.endswith(".model"))
    if content is None and slow:
        raise ConfigError(
            f"{where}: {name} has {short_list(slow, 3)} but no {_NAME}. Only fast tokenizers are brought together: save it once with "
            "transformers, which writes one."
        )
    return content


def _parsed(content: bytes, name: str, where: str) -> Any:
    library = require("tokenizers", extra="text", purpose="Bringing vocabularies together")
    try:
        return library.Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # what the library raises has no class of its own
        raise ConfigError(f"{where}: {_NAME} of {name} cannot be read: {error!s:.200}") from error


def _missing(
    tokenizers: Mapping[str, Any], own: Mapping[str, Mapping[str, int]], known: set[str], sizes: Mapping[str, int], first: str
) -> Iterator[tuple[str, Any]]:
    """Yield token and settings of what the first tokenizer does not have: ordinary tokens of all models, then those that were
    added to their tokenizers, by their settings. Tokens beyond a model's rows do not count."""
    decoders = {name: tokenizer.get_added_tokens_decoder() for name, tokenizer in tokenizers.items()}
    named = {name: {token.content for token in decoder.values()} for name, decoder in decoders.items()}
    anywhere = set().union(*named.values())
    for name, vocabulary in own.items():
        for token, row in sorted(vocabulary.items(), key=lambda item: item[1]):
            if row < sizes[name] and token not in known and token not in anywhere:
                yield token, None
    for name, decoder in decoders.items():
        for row, settings in sorted(decoder.items()):
            if row < sizes[name] and settings.content not in named[first]:
                yield settings.content, settings


def _add(tokenizer: Any, token: str, settings: Any) -> None:
    library = require("tokenizers", extra="text", purpose="Bringing vocabularies together")
    entry = library.AddedToken(token, normalized=False) if settings is None else settings
    (tokenizer.add_special_tokens if entry.special else tokenizer.add_tokens)([entry])


def _donor(file: MergeFile, token: str, rule: TokenRule, own: Mapping[str, Mapping[str, int]], sizes: Mapping[str, int]) -> Donor:
    if not rule.model:
        return Donor(model="", row=-1, force=rule.force)
    wanted = token if rule.token is None else rule.token
    row = own[rule.model].get(wanted, -1) if rule.row is None else rule.row
    if not 0 <= row < sizes[rule.model]:
        key = f"tokenizer.tokens.{token}"
        what = f"the row {row} is not there" if rule.row is not None else f"there is no token {wanted!r}"
        raise ConfigError(
            f"{file.path.name}, line {file.lines.get(key, 1)}, {key}: {what} in {rule.model}, whose tables have {sizes[rule.model]:,} rows."
        )
    return Donor(model=rule.model, row=row, force=rule.force)


def tokenizer_config(content: bytes | None, added: tuple[tuple[int, str, Any], ...]) -> bytes | None:
    """Return ``tokenizer_config.json`` with the added tokens where it lists such; None if there is none.

    Args:
        content: What the file holds.
        added: See :attr:`Vocabulary.added`.
    """
    if content is None:
        return None
    value = json.loads(content)
    if isinstance(value, dict) and isinstance(value.get("added_tokens_decoder"), dict):
        keys = ("lstrip", "normalized", "rstrip", "single_word", "special")
        value["added_tokens_decoder"] |= {
            str(place): {"content": token, **{key: getattr(settings, key) for key in keys}} for place, token, settings in added
        }
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
