"""What a set of weights is known by: a SHA-256 over names, types, shapes and values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor

__all__ = ["state_fingerprint"]


def state_fingerprint(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256, in hexadecimal, of the named tensors of a model; the order of the names does not matter.

    Args:
        state: Parameters and buffers by name, as ``state_dict()`` gives them.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().numpy().tobytes())
    return digest.hexdigest()
