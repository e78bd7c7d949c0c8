"""Which reader takes the rows of a model's requests. No torch."""

from __future__ import annotations

from graftwork.core.input_kinds import input_kind, load_part
from graftwork.core.input_spec import InputSpecs
from graftwork.core.optional import require
from graftwork.data.encoders import Encoder
from graftwork.data.encoders.joint import JointEncoder
from graftwork.serving.joint import JointReader
from graftwork.serving.limits import ServeLimits
from graftwork.serving.reading import RowReader

__all__ = ["reader_of"]


def reader_of(encoder: Encoder, inputs: InputSpecs, limits: ServeLimits) -> RowReader:
    """Return the reader for an encoder.

    Args:
        encoder: Of the model's rows.
        inputs: What the model reads.
        limits: Of requests.

    Raises:
        MissingDependencyError: If the model reads pictures and Pillow is not installed.
    """
    if any(spec.kind == "image" for spec in inputs.values()):
        require("PIL.Image", extra="serve", purpose="Serving a model of pictures")
    if isinstance(encoder, JointEncoder):
        return JointReader(encoder, limits)
    reader: RowReader = load_part(input_kind(encoder.kind).reader)(encoder, limits)
    return reader
