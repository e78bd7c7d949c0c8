"""TextEncoder: texts as token numbers of a tokenizer trained on the training rows (or of a pretrained one)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.optional import require
from graftwork.data.encoders.base import Encoder
from graftwork.data.names import check_names
from graftwork.data.reading.cells import as_text
from graftwork.data.reading.missing_words import is_missing_word
from graftwork.data.reading.surrogates import valid_text

__all__ = ["NETWORK_TOKENS", "PRETRAINED_TOKENS", "TextEncoder", "join_texts"]

NETWORK_TOKENS = 256
"""So many tokens of a text are read by untrained networks, whose cost grows with the length; linear models and trees read all."""
PRETRAINED_TOKENS = 128
"""Most tokens of a text that pretrained backbones read: attention costs grow with the square."""
_SHORTEST, _LONGEST = 64, 1024
_MOST_CELLS = 64_000_000
"""Token numbers of all training texts, padding included: half a gigabyte. Many texts are cut earlier than a few."""
_MOST_TOKENS = 1_000_000
_BATCH = 1000
"""Texts that are encoded at a time: the tokenizer keeps the strings and places of all their tokens."""
_LONGEST_WORD = 1000
# Only where more letters follow: a word of exactly 1000 stays whole.
_ENDLESS_WORD = re.compile(rf"\S{{{_LONGEST_WORD}}}(?=\S)")


def join_texts(frame: Any, columns: Sequence[str], missing: Sequence[str] = ()) -> list[str]:
    """Return one text per row: the columns' texts joined by a line break, missing cells and words for them as nothing."""
    cells = [getattr(frame[name], "cells", frame[name]) for name in columns]  # of a table that is read lazily, or a DataFrame
    parts = [[as_text(value) or "" for value in column.tolist()] for column in cells]
    if missing:
        parts = [["" if is_missing_word(text, missing) else text for text in part] for part in parts]
    return ["\n".join(filter(None, row)) for row in zip(*parts, strict=True)]


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), _BATCH):
        yield texts[start : start + _BATCH]


def _with_short_words(text: str) -> str:
    """Return a text whose words have 1000 letters at most, and without lone surrogates.

    Byte-pair encoding takes a time that grows with the square of a word's length.
    """
    text = valid_text(text)
    if len(text) <= _LONGEST_WORD:
        return text
    return _ENDLESS_WORD.sub(lambda found: f"{found[0]} ", text)


class TextEncoder(Encoder):
    """Byte-pair encoding of lower-cased words, padded with 0 to a fixed length.

    Args:
        tokenizer: JSON content of a Hugging Face ``tokenizer.json``.
        max_length: Number of tokens ``L`` that are kept.
        columns: Column(s) that hold the text when a table is given.
        inputs: Which arrays to return: name of the input -> ``ids`` or ``mask``.
        pad_id: Token number that fills short texts.
        missing: Words that mean a missing cell of a text column.

    Raises:
        DataError: If the tokenizer cannot be read, or ``max_length`` or ``pad_id`` can be no length and no token.
    """

    kind: ClassVar[str] = "text"

    def __init__(
        self,
        tokenizer: Mapping[str, Any],
        max_length: int,
        *,
        columns: Sequence[str] = (),
        inputs: Mapping[str, str] | None = None,
        pad_id: int = 0,
        missing: Sequence[str] = (),
    ) -> None:
        library = require("tokenizers", extra="text", purpose="Reading texts")
        self.tokenizer = dict(tokenizer)
        self.max_length = int(max_length)
        self.columns = tuple(columns)
        self.inputs = dict(inputs or {"tokens": "ids"})
        self.pad_id = int(pad_id)
        self.missing = tuple(missing)
        unknown = sorted(set(self.inputs.values()) - {"ids", "mask"})
        if unknown:
            raise DataError(f"A text input must be 'ids' or 'mask'; got {unknown}.")
        try:
            self._tokenizer = library.Tokenizer.from_str(json.dumps(self.tokenizer))
        except Exception as error:  # the library raises the base class itself
            raise DataError(
                f"The tokenizer cannot be read: {error!s:.200}. Restore the file it came from, or fit again."
            ) from error
        least = self._least_length()
        if not least <= self.max_length <= _MOST_TOKENS:
            raise DataError(
                f"Texts cannot be read as {self.max_length:,} tokens each; with this tokenizer {least:,} to {_MOST_TOKENS:,} can be "
                "kept. Restore the file that says so, or fit again."
            )
        if not 0 <= self.pad_id < 2**31:
            raise DataError(
                f"No token has the number {self.pad_id!r:.40}, which is to fill short texts. Restore the file that says so."
            )
        # The library pads to the longest text of a batch, so padding is done here.
        self._tokenizer.enable_truncation(self.max_length)
        self._tokenizer.no_padding()

    def shorten(self, max_length: int) -> None:
        """Keep fewer tokens of each text from now on.

        Raises:
            DataError: If ``max_length`` is more than now, or less than the tokenizer's own tokens.
        """
        if not self._least_length() <= max_length <= self.max_length:
            raise DataError(
                f"Of each text {self.max_length:,} tokens are kept, so it can be shortened to {self._least_length():,} to "
                f"{self.max_length:,}; got {max_length:,}."
            )
        self.max_length = int(max_length)
        self._tokenizer.enable_truncation(self.max_length)

    def _least_length(self) -> int:
        # Fewer tokens than the tokenizer's own, and the library would not cut at all.
        return max(1, self._tokenizer.num_special_tokens_to_add(False))

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        *,
        columns: Sequence[str] = (),
        vocabulary_size: int = 8000,
        max_length: int | None = None,
        missing: Sequence[str] = (),
    ) -> Self:
        """Train a tokenizer.

        Args:
            texts: Texts of the training rows.
            columns: Columns they came from.
            vocabulary_size: Most tokens, padding and unknown included.
            missing: Words that mean a missing cell of a text column.
            max_length: Tokens kept of each text; by default what 95 % of the texts need, from 64 to 1024, and fewer where there
                are more than 60,000 texts.

        Raises:
            DataError: If all texts are empty.
        """
        library = require("tokenizers", extra="text", purpose="Reading texts")
        known = [_with_short_words(text) for text in texts if text.strip()]
        if not known:
            raise DataError(
                f"All texts of column {' + '.join(columns) or '?'} are empty in the training rows. Name the right column with "
                f"--text."
            )
        tokenizer = library.Tokenizer(library.models.BPE(unk_token="[UNK]"))
        tokenizer.normalizer = library.normalizers.Sequence([library.normalizers.NFKC(), library.normalizers.Lowercase()])
        tokenizer.pre_tokenizer = library.pre_tokenizers.Whitespace()
        # [PAD] first, so that it has number 0.
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            min_frequency=2,
            special_tokens=["[PAD]", "[UNK]"],
            limit_alphabet=1000,
            show_progress=False,
        )
        tokenizer.train_from_iterator(known, trainer)
        if max_length is None:
            # 10,000 texts settle a quantile, and tokenising all of them twice takes long.
            some = known[:: -(-len(known) // 10_000)]
            lengths = [len(encoding.ids) for part in _batches(some) for encoding in tokenizer.encode_batch(part)]
            longest = int(np.clip(_MOST_CELLS // len(texts), _SHORTEST, _LONGEST))
            max_length = int(np.clip(np.ceil(np.quantile(lengths, 0.95)), _SHORTEST, longest))
        return cls(json.loads(tokenizer.to_str()), max_length, columns=columns, missing=missing)

    def transform(self, source: Any) -> dict[str, NDArray[Any]]:
        """Encode a list of texts, or a table that has the text column(s).

        Raises:
            DataError: If the table lacks a text column, or something else than texts is given.
        """
        return self.transform_counted(source)[0]

    def transform_counted(self, source: Any) -> tuple[dict[str, NDArray[Any]], int]:
        """Return :meth:`transform`'s arrays, and how many texts are longer than what is kept of them."""
        texts = self._texts(source)
        ids = np.full((len(texts), self.max_length), self.pad_id, dtype=np.int64)
        mask = np.zeros(ids.shape, dtype=np.int64) if "mask" in self.inputs.values() else None
        row = cut = 0
        # Without the places of tokens, which nobody asks for; older versions of the library cannot leave them out.
        encode = getattr(self._tokenizer, "encode_batch_fast", self._tokenizer.encode_batch)
        for part in _batches(texts):
            for encoding in encode([_with_short_words(text) for text in part]):
                found = encoding.ids
                ids[row, : len(found)] = found
                if mask is not None:
                    mask[row, : len(found)] = 1
                cut += bool(encoding.overflowing)
                row += 1
        arrays: dict[str, Any] = {"ids": ids, "mask": mask}
        return {name: arrays[what] for name, what in self.inputs.items()}, cut

    def _texts(self, source: Any) -> list[str]:
        if hasattr(source, "columns"):
            check_names(self.columns, map(str, source.columns), what="The text column", where="the table")
            return join_texts(source, self.columns, self.missing)
        if isinstance(source, str) or not isinstance(source, Iterable):
            raise DataError(
                f"Give a list of texts or a table with the column(s) {list(self.columns)}; got {type(source).__name__}."
            )
        return [as_text(item) or "" for item in source]

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens."""
        return int(self._tokenizer.get_vocab_size())

    def sizes(self) -> dict[str, Any]:
        """Return what backbones need to size themselves."""
        return {"vocabulary_size": self.vocabulary_size, "max_length": self.max_length}

    def state(self) -> dict[str, Any]:
        """Return the JSON state."""
        return {
            "kind": self.kind,
            "version": 1,
            "max_length": self.max_length,
            "columns": list(self.columns),
            "inputs": dict(self.inputs),
            "pad_id": self.pad_id,
            "tokenizer": self.tokenizer,
            **({"missing": list(self.missing)} if self.missing else {}),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> TextEncoder:
        """Restore from :meth:`state`."""
        return cls(
            state["tokenizer"],
            state["max_length"],
            columns=state.get("columns", ()),
            inputs=state.get("inputs"),
            pad_id=state.get("pad_id", 0),
            missing=state.get("missing", ()),
        )
