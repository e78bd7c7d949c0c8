"""Some layers of MiniLM that learn, on token states that the frozen layers below them give once for all texts."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.data.suite import Suite
from graftwork.nn.backbones.transformers_bridge import BertBlocks, load_transformers, minilm_folder

__all__ = ["MiniLMLayers", "states_before"]

Array = NDArray[Any]


@functools.cache
def _minilm() -> BertBlocks:
    trunk = load_transformers(minilm_folder(), local_only=True)
    assert isinstance(trunk, BertBlocks)
    return trunk.eval()


@torch.inference_mode()
def states_before(layer: int, suite: Suite) -> NDArray[np.float16]:
    """Return the token states of all texts of a suite before a layer, ``[N, L, 384]``, in half precision.

    Args:
        layer: 0 is the first of six.
        suite: Texts in MiniLM's tokens.
    """
    trunk, parts = _minilm(), []
    for start in range(0, len(suite), 256):
        inputs = {name: torch.from_numpy(np.array(array[start : start + 256])) for name, array in suite.inputs.items()}
        states = trunk.embed(inputs)
        for number in range(layer):
            states = trunk.run_block(number, states, inputs)
        parts.append(states.numpy().astype(np.float16))
    return np.concatenate(parts)


class MiniLMLayers(nn.Module):
    """Layers ``first`` to ``last`` (not included) with their pretrained weights: token states to embeddings of length 1, the mean
    over tokens.

    Args:
        first: Of six, from 0.
        last: Layers above it are left out, so that a smaller encoder is what stays.
    """

    def __init__(self, first: int, last: int = 6) -> None:
        super().__init__()
        trunk = load_transformers(minilm_folder(), local_only=True)
        self.layers = nn.ModuleList(list(trunk.model.encoder.layer)[first:last])

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return embeddings ``[B, 384]`` of states ``[B, L, 384]`` with the mask ``[B, L]`` of real tokens."""
        hidden = torch.zeros(mask.shape).masked_fill(mask == 0, torch.finfo(states.dtype).min)[:, None, None, :]
        for layer in self.layers:
            output = layer(states, hidden)
            states = output[0] if isinstance(output, tuple) else output
        weights = mask.unsqueeze(2).to(states.dtype)
        return F.normalize((states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0), dim=1)

    def embed(self, states: Array, mask: Array) -> Tensor:
        """Return embeddings of states in half precision and their mask."""
        found: Tensor = self(torch.from_numpy(states.astype(np.float32)), torch.from_numpy(np.array(mask)))
        return found
