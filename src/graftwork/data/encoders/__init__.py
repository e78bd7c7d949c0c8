"""Encoders for tables, pictures and texts. None of them imports torch, so prediction needs none either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork.core.errors import FileFormatError
from graftwork.data.encoders.base import Encoder

__all__ = ["Encoder", "encoder_from_state"]

_KINDS = {"table": "TableEncoder", "image": "ImageEncoder", "text": "TextEncoder"}


def encoder_from_state(state: Mapping[str, Any]) -> Encoder:
    """Restore an encoder from the JSON state kept in a suite or beside a model.

    Raises:
        FileFormatError: If the state is of an unknown kind or incomplete.
    """
    import importlib

    kind = state.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise FileFormatError(
            f"The encoder state has the kind {kind!r}; allowed are {', '.join(_KINDS)}. Export the model again."
        )
    module = importlib.import_module(f"graftwork.data.encoders.{kind}")
    try:
        encoder: Encoder = getattr(module, _KINDS[kind]).from_state(state)
    except (KeyError, TypeError) as error:
        raise FileFormatError(f"The {kind} encoder state lacks {error}. Export the model again.") from error
    return encoder
