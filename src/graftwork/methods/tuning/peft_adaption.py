"""Adaption prompts of peft (LLaMA-Adapter), read without peft: learned tokens that attention reads beside its own, through a gate.

Paper: Zhang et al., "LLaMA-Adapter: Efficient Fine-tuning of Language Models with Zero-init Attention", ICLR 2024,
https://arxiv.org/abs/2303.16199 (section 3.2). The last blocks have tokens ``P`` of their own. Their queries ``Q``, turned by their
positions, read keys and values made of ``P``: ``attention + W_o(gate * softmax(Q K(P)^T / sqrt(d)) V(P))``. The softmax runs over the
prompts alone, and a gate of 0 leaves the block as it was. They are no difference of weights: :func:`prompts_from_peft` returns a
delta that puts modules around the attention layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.tensor_files import TensorFile
from graftwork.math.fingerprint import state_fingerprint, tensor_prints
from graftwork.methods.tuning.peft_reading import CONFIG_NAME, WEIGHTS_NAME, read_config
from graftwork.nn.foldable import plain_state
from graftwork.nn.grafts import Graft
from graftwork.nn.module_delta import ModuleDelta, PlacedGraft

__all__ = ["GatedPrompts", "prompts_from_peft"]

KIND = "ADAPTION_PROMPT"
_MODELS = ("llama", "mistral")
"""Whose attention peft puts such prompts into, GPT-2's aside, which is laid out in another way."""
_PARTS = ("adaption_prompt", "adaption_gate")
_INFORMATION = frozenset((
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "target_modules",
    "adapter_len", "adapter_layers",
))  # fmt: skip


class GatedPrompts(Graft):
    """Stands around the attention of a Llama or Mistral block of transformers; starts with a gate of 0, which changes nothing.

    Args:
        base: The attention layer.
        num_tokens: Learned tokens, at least 1.

    Raises:
        ConfigError: If the layer is no such attention, or there are no tokens.
    """

    def __init__(self, base: nn.Module, *, num_tokens: int) -> None:
        super().__init__()
        model: Any = getattr(base, "config", None)
        if getattr(model, "model_type", "") not in _MODELS or not hasattr(base, "q_proj"):
            raise ConfigError(
                f"Adaption prompts go into the attention of {' and '.join(_MODELS)} models of transformers; got {type(base).__name__}. "
                "Use this adapter with peft."
            )
        if num_tokens < 1:
            raise ConfigError(f"`num_tokens` must be at least 1; got {num_tokens!r}.")
        self.base: Any = base
        self.num_tokens, self.num_heads, self.num_groups = num_tokens, model.num_attention_heads, model.num_key_value_heads
        like: Tensor = base.q_proj.weight  # type: ignore[assignment, union-attr] # a linear layer
        self.adaption_prompt = nn.Parameter(
            torch.empty(1, num_tokens, like.shape[1], dtype=like.dtype, device=like.device).normal_()
        )
        """``[1, num_tokens, width]``."""
        self.adaption_gate = nn.Parameter(torch.zeros(1, dtype=like.dtype, device=like.device))

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword."""
        return {"num_tokens": self.num_tokens}

    @classmethod
    def scaled(cls, tensors: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
        """Return the tensors with the gate multiplied by ``factor``."""
        return {name: tensor * factor if name == "adaption_gate" else tensor for name, tensor in tensors.items()}

    def forward(self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], **keywords: Any) -> Any:
        """Return what the attention returns, with what the prompts say added to its first tensor ``[B, tokens, width]``."""
        output, *rest = self.base(hidden_states=hidden_states, position_embeddings=position_embeddings, **keywords)
        queries = _turned(self._heads(self.base.q_proj(hidden_states), self.num_heads), *position_embeddings)
        # Heads of a group read the same keys and values: [1, heads, num_tokens, d].
        keys, values = (
            self._heads(layer(self.adaption_prompt), self.num_groups).repeat_interleave(self.num_heads // self.num_groups, dim=1)
            for layer in (self.base.k_proj, self.base.v_proj)
        )
        scores = queries @ keys.transpose(2, 3) / math.sqrt(self.base.head_dim)
        shares = self.adaption_gate * scores.softmax(dim=-1, dtype=torch.float32).to(queries.dtype)
        added = self.base.o_proj((shares @ values).transpose(1, 2).flatten(2))
        return (output + added, *rest)

    def _heads(self, states: Tensor, count: int) -> Tensor:
        return states.view(*states.shape[:2], count, self.base.head_dim).transpose(1, 2)


def _turned(queries: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return queries ``[B, heads, tokens, d]`` turned by their positions, as rotary embeddings do."""
    first, second = queries.chunk(2, dim=-1)
    turned: Tensor = queries * cos.unsqueeze(1) + torch.cat((-second, first), dim=-1) * sin.unsqueeze(1)
    return turned


def prompts_from_peft(folder: str | Path, model: nn.Module, *, prefix: str = "") -> ModuleDelta:
    """Read adaption prompts that peft saved as a delta of modules.

    Args:
        folder: Holds ``adapter_config.json`` and ``adapter_model.safetensors``.
        model: The base, a Llama or Mistral model of transformers, or what holds one.
        prefix: Put before all names, where the base stands inside of ``model``.

    Raises:
        FileFormatError: If a file is missing, damaged or incomplete.
        ConfigError: If the adapter is of another kind, uses a setting that graftwork does not know, or does not fit the model.
    """
    folder = Path(folder)
    config = read_config(folder)
    odd = [key for key in sorted(config.keys() - _INFORMATION) if config[key] not in (None, False, [], {})]
    if config.get("peft_type") != KIND or odd:
        what = (
            f"{odd[0]} is a setting that is not known here" if odd else f"peft_type is {config.get('peft_type')!r}, not {KIND!r}"
        )
        raise ConfigError(
            f"{folder / CONFIG_NAME} cannot be used: {what}. Use it with peft; LoRA and IA3 are read by delta_from_peft(folder, model)."
        )
    found: dict[str, dict[str, Tensor]] = {}
    stored = TensorFile(folder / WEIGHTS_NAME)
    for key in stored:
        place, _, part = key.removeprefix("base_model.model.").rpartition(".")
        # A copy: the file is mapped read-only, and torch needs writable memory.
        found.setdefault(place, {})[part] = torch.from_numpy(np.array(stored[key]))
    for place, tensors in found.items():
        if set(tensors) != set(_PARTS) or tensors[_PARTS[0]].ndim != 3:
            shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
            raise FileFormatError(
                f"{folder / WEIGHTS_NAME} holds at {place!r} {shapes}; {_PARTS[0]} of shape [1, tokens, width] and {_PARTS[1]} are "
                "expected. Save the adapter again."
            )
    if not found:
        raise FileFormatError(f"{folder / WEIGHTS_NAME} holds no prompt. Save the adapter again.")
    state = plain_state(model)
    path = f"{GatedPrompts.__module__}:{GatedPrompts.__name__}"
    grafts = [
        PlacedGraft(f"{prefix}{place}", Component(path, {"num_tokens": tensors[_PARTS[0]].shape[1]}), tensors)
        for place, tensors in found.items()
    ]
    for graft in grafts:
        graft.build(model)  # whether it fits, before the delta is kept
    return ModuleDelta(
        grafts,
        base_fingerprint=state_fingerprint(state),
        base_prints=tensor_prints(state),
        lineage={"peft": str(folder), "tuner": KIND},
    )
