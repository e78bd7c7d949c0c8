"""What tuners share that put a side network beside a frozen trunk: attaching, what learns, the delta; and what such networks share
that read all depths of a trunk as tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import BlockBackbone
from graftwork.interfaces.tuner import Tuner
from graftwork.math.fingerprint import state_fingerprint, tensor_prints
from graftwork.nn.backbones.resizable import set_working_size
from graftwork.nn.foldable import plain_state
from graftwork.nn.freeze import fix_mode, is_batch_norm
from graftwork.nn.grafts import own_tensors
from graftwork.nn.module_delta import ModuleDelta, PlacedGraft
from graftwork.nn.side import SideNetwork, add_side
from graftwork.nn.taps import blocks_of

__all__ = ["SideTuning", "TokenSide", "mean_of_tokens", "token_mask", "token_widths"]


class SideTuning(Tuner):
    """Freezes a trunk, statistics of BatchNorm included, and lets a side network answer for it: outputs change when it is attached.

    Args:
        working_size: Working resolution in pixels of an image backbone that resizes; None leaves it. Others ignore it.
    """

    def __init__(self, working_size: int | None = None) -> None:
        self.working_size = working_size
        self._model: nn.Module | None = None
        self.side: SideNetwork | None = None
        """The network, once it is attached."""

    @abstractmethod
    def make(self, trunk: BlockBackbone) -> SideNetwork:
        """Return the network for a trunk, which does not have it yet.

        Raises:
            ConfigError: If the trunk is of a kind that it cannot read.
        """

    def attach(self, model: nn.Module) -> None:
        """Freeze ``model`` and put the network beside it, in place.

        Raises:
            ConfigError: If it is no chain of blocks, has a side network, or this tuner is attached already.
        """
        name = type(self).__name__
        if self._model is not None:
            raise ConfigError(f"This {name} is attached to a model already; make one tuner a model.")
        trunk = blocks_of(model, name)  # type: ignore[arg-type] # it says so if this is none
        set_working_size(model, self.working_size)
        side = self.make(trunk)
        like = next(model.parameters())
        side.to(like)
        model.requires_grad_(False)
        for module in model.modules():
            if is_batch_norm(module):
                fix_mode(module)
        add_side(model, side)
        self._model, self.side = model, side

    def trainable(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the network."""
        if self.side is not None:
            yield from self.side.parameters()

    def delta(self, model: nn.Module | None = None) -> ModuleDelta:
        """Return the network with copies of its tensors; see :class:`.Tuner`."""
        if self._model is None:
            raise ConfigError(f"This {type(self).__name__} is attached to no model yet; call attach(model) first.")
        source = self._model if model is None else model
        side = source.get_submodule("side_network")
        assert isinstance(side, SideNetwork), "a copy of the attached model has its network"
        tensors = {name: tensor.detach().clone() for name, tensor in own_tensors(side).items()}
        path = f"{type(side).__module__}:{type(side).__name__}"
        base = plain_state(source)
        return ModuleDelta(
            [PlacedGraft("", Component(path, side.settings), tensors)],
            base_fingerprint=state_fingerprint(base),
            base_prints=tensor_prints(base),
            lineage={"tuner": type(self).__name__, **side.settings},
        )

    def fold(self) -> None:
        """Refuse.

        Raises:
            ConfigError: Always: a side network is no difference of weights.
        """
        raise ConfigError(
            f"The side network of {type(self).__name__} cannot be written into weights. Keep it attached (export and serving do), or "
            "tune with LoRA."
        )


class TokenSide(SideNetwork):
    """A network that reads the states before the first block and after each block as tokens, ``[B, n, width]``, and answers for the
    trunk; no gradient enters the trunk.

    States of trunks over maps are averaged to the grid of the last map; those before their first block are left out.

    Args:
        trunk: A chain of blocks.
    """

    def __init__(self, trunk: BlockBackbone) -> None:
        super().__init__()
        self.depths = tuple(range(len(trunk.block_list())))
        self.layout = trunk.feature_shape.layout
        self.widths = token_widths(trunk)
        """Width of each of the states that are read."""
        self.width_out = trunk.feature_shape.width

    @abstractmethod
    def tokens(self, states: list[Tensor], mask: Tensor) -> Tensor:
        """Return the answer for each token, ``[B, n, width_out]``.

        Args:
            states: ``[B, n, width]`` each, the last one behind the last block; nothing learns in them.
            mask: 1 for tokens that are read and 0 for padding, ``[B, n]``.
        """

    def forward(self, states: Mapping[int, Tensor], features: Tensor) -> Tensor:
        """Return the features from states after the blocks; see :class:`.SideNetwork`."""
        read = list(states.values())
        found = self.tokens(read, read[-1].new_ones(read[-1].shape[:2]))
        return self._arranged(found, found.new_ones(found.shape[:2]), features)

    def answer(self, trunk: BlockBackbone, plain: Callable[..., Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features for a batch."""
        with torch.no_grad():
            # One block after the other, for the states before the first one are read as well.
            states = trunk.embed(inputs)
            read = [trunk.read_states(0, states)] if states.ndim == 3 else []
            for number in range(len(trunk.block_list())):
                states = trunk.run_block(number, states, inputs)
                read.append(trunk.read_states(number, states))
            tokens = [_as_tokens(item, read[-1]) for item in read]
        mask = token_mask(inputs, tokens[-1])
        return self._arranged(self.tokens(tokens, mask), mask, read[-1])

    def _arranged(self, tokens: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        """Return tokens in the layout of the trunk's features."""
        if self.layout == "tokens":
            return tokens
        if self.layout == "vector":
            return mean_of_tokens(tokens, mask)
        length = tokens.shape[1]
        # Maps, or the patches of a square picture.
        size = last.shape[-2:] if last.ndim == 4 else (round(length**0.5),) * 2
        return tokens.transpose(1, 2).unflatten(2, size)


def token_widths(trunk: BlockBackbone) -> list[int]:
    """Return the width of each of the states that a :class:`TokenSide` reads.

    Raises:
        ConfigError: If blocks give vectors.
    """
    shapes = trunk.block_shapes()
    if any(shape.layout == "vector" for shape in shapes):
        raise ConfigError(f"A side network reads tokens or maps; blocks of {type(trunk).__name__} give vectors. Choose LoRA.")
    widths = [shape.width for shape in shapes]
    return [widths[0], *widths] if shapes[0].layout == "tokens" else widths


def token_mask(inputs: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    """Return 1 for tokens that are read and 0 for padding, ``[B, n]``, of the type of ``tokens``: the input ``attention_mask``, if it
    has their number."""
    mask = inputs.get("attention_mask")
    if mask is None or mask.shape != tokens.shape[:2]:
        return tokens.new_ones(tokens.shape[:2])
    return mask.to(tokens.dtype)


def mean_of_tokens(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the tokens that are read, ``[B, width]``; zeros where there is none."""
    return (tokens * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1.0)


def _as_tokens(states: Tensor, last: Tensor) -> Tensor:
    if states.ndim == 3:
        return states
    return F.adaptive_avg_pool2d(states, (int(last.shape[-2]), int(last.shape[-1]))).flatten(2).transpose(1, 2)
