"""A hash of a DataFrame, for the lineage of what is learned from it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["hash_frame"]


def hash_frame(frame: pd.DataFrame) -> str:
    """Return a SHA-256 over names, types and cells: equal frames give equal hashes. The index does not count."""
    digest = hashlib.sha256(repr((len(frame), [str(name) for name in frame.columns])).encode("utf-8", "surrogatepass"))
    for position in range(frame.shape[1]):
        column = frame.iloc[:, position]
        digest.update(f"\n{column.dtype}\n".encode())
        if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biufcmM":
            # Machine numbers are hashed as they are: writing 10 million of them as text takes a quarter of a minute.
            digest.update(np.ascontiguousarray(column.to_numpy()).view(np.uint8).data)
        else:
            # surrogatepass: a lone surrogate in a cell must not keep the data from being hashed. repr tells 1 from "1".
            cells = "\n".join(map(repr, column.astype(object).tolist()))
            digest.update(cells.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
