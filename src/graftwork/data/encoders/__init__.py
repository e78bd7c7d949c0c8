"""Encoders for tables, pictures and texts. None of them imports torch, so prediction needs none either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork.core.errors import FileFormatError, GraftworkError
from graftwork.core.input_kinds import input_kind, input_kind_names, load_part
from graftwork.data.encoders.base import SEVERAL, Encoder

__all__ = ["Encoder", "encoder_from_state"]

_SEVERAL = "graftwork.data.encoders.several:SeveralEncoders"


def encoder_from_state(state: Mapping[str, Any]) -> Encoder:
    """Restore an encoder from the JSON state kept in a suite or beside a model.

    Raises:
        FileFormatError: If the state is of an unknown kind or incomplete.
    """
    kind = state.get("kind")
    if not isinstance(kind, str) or kind not in input_kind_names():
        raise FileFormatError(
            f"The encoder state has the kind {kind!r}; allowed are {', '.join(input_kind_names())}. Export the model again."
        )
    try:
        # By path, as the encoders of kinds are: this module is what they are restored with.
        path = _SEVERAL if SEVERAL in state else input_kind(kind).encoder
        encoder: Encoder = load_part(path).from_state(state)
    except GraftworkError:
        raise  # it says already what is wrong
    except (KeyError, TypeError) as error:
        raise FileFormatError(f"The {kind} encoder state lacks {error}. Export the model again.") from error
    except (ValueError, LookupError, AttributeError, OverflowError) as error:
        raise FileFormatError(f"The {kind} encoder state is damaged: {error!s:.300}. Export the model again.") from error
    return encoder
