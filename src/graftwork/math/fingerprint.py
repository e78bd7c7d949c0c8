"""What a set of weights is known by: a SHA-256 over names, types, shapes and values, and a short print of each tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["state_fingerprint", "tensor_prints"]


def state_fingerprint(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256, in hexadecimal, of the named tensors of a model; the order of the names does not matter.

    Args:
        state: Parameters and buffers by name, as ``state_dict()`` gives them.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def tensor_prints(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return a short print of each tensor, 16 hexadecimal digits: it tells which tensors of two models differ.

    Args:
        state: As in :func:`state_fingerprint`.
    """
    found = {}
    for name, tensor in sorted(state.items()):
        digest = hashlib.blake2b(f"{tensor.dtype}{tuple(tensor.shape)}".encode(), digest_size=8)
        digest.update(_bytes(tensor))
        found[name] = digest.hexdigest()
    return found


def _bytes(tensor: Tensor) -> memoryview:
    # As bytes, for NumPy knows no bfloat16, and without a copy.
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
