"""S2A: biases, prompts and small side branches learn, and the backward pass works from codes of 4 bits.

Paper: Jin et al., "S2A: A Unified Framework for Parameter and Memory Efficient Transfer Learning", 2025,
https://arxiv.org/abs/2503.08154 (abstract read; neither code nor the modules' layouts are published).

Two sides, as the paper has them. Structure: what learns needs no large inputs (biases sum up the gradients of outputs, prompts are
few, side branches read averages). Activation: nonlinear functions hold their derivatives, and softmax and layer norms their outputs,
as codes of 4 bits (:mod:`graftwork.nn.lean_backward`); the forward pass is exact, and in evaluation nothing is left of the codes.

Departures: side branches stand behind blocks, prompts are those of VPT-Deep, and biases before the first tuned block stay, so that no
gradient enters what is before it. Queries, keys and values of attention are held as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

from torch import Tensor, nn

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import BlockBackbone
from graftwork.interfaces.delta import Delta
from graftwork.interfaces.tuner import Tuner
from graftwork.math.fingerprint import state_fingerprint, tensor_prints
from graftwork.methods.tuning.prompt import takes_prompts
from graftwork.nn.backbones.resizable import set_working_size
from graftwork.nn.foldable import plain_state, put_module
from graftwork.nn.freeze import fix_mode, is_batch_norm, release_mode
from graftwork.nn.grafts import Graft, own_tensors
from graftwork.nn.lean_backward import LeanKind, make_exact, make_lean
from graftwork.nn.module_delta import ModuleDelta, PlacedGraft
from graftwork.nn.pooled_branch import PooledBranch
from graftwork.nn.prompts import PromptedBlock
from graftwork.nn.weight_delta import WeightDelta

__all__ = ["S2A"]

Codes = Literal["derivative", "input", "none"]
_KINDS: dict[str, LeanKind | None] = {"derivative": "codes", "input": "input-codes", "none": None}


class S2A(Tuner):
    """Biases, prompts and side branches learn; everything else is frozen, BatchNorm statistics included.

    In a chain of blocks (:class:`.BlockBackbone`) biases of the tuned blocks and of what follows them learn; each of the blocks gets
    a side branch (those of a Swin, whose states are no maps, none), and prompts where its tokens take any. Of other models all biases
    learn, and nothing else.

    Args:
        num_tokens: Prompts of each block; 0 for none. With prompts, outputs change a little when they are attached.
        bottleneck: Hidden size of a side branch; 0 for no branches.
        pool: Neighbouring places that a side branch averages, at least 1; of maps the side of a square.
        codes: What activation functions hold: ``"derivative"`` (in 4 bits), ``"input"`` (in 4 bits, for comparison) or ``"none"``:
            the exact backward pass, also of norms and softmax.
        depth_share: Share of the blocks that are tuned, counted from the output, in ``(0, 1]``.
        working_size: Working resolution in pixels of an image backbone that resizes; None leaves it. Others ignore it.

    Raises:
        ConfigError: If a setting is out of range; on :meth:`attach`, if there is nothing to tune.

    Example:
        >>> from graftwork.nn.backbones.vit import ViTBackbone
        >>> tuner = S2A(num_tokens=2, bottleneck=0)
        >>> tuner.attach(ViTBackbone(16, width=8, depth=1, num_heads=2))
        >>> sum(parameter.numel() for parameter in tuner.trainable())  # biases 8 * (3 + 1 + 4 + 1 + 2 + 1), prompts 2 * 8
        112
    """

    def __init__(
        self,
        *,
        num_tokens: int = 2,
        bottleneck: int = 8,
        pool: int = 4,
        codes: Codes = "derivative",
        depth_share: float = 1.0,
        working_size: int | None = None,
    ) -> None:
        if num_tokens < 0 or bottleneck < 0 or pool < 1:
            raise ConfigError(
                f"`num_tokens` and `bottleneck` must be at least 0, `pool` at least 1; got {num_tokens!r}, {bottleneck!r}, {pool!r}."
            )
        if codes not in _KINDS:
            raise ConfigError(f"`codes` must be one of {', '.join(_KINDS)}; got {codes!r}.")
        if not 0.0 < depth_share <= 1.0:
            raise ConfigError(f"`depth_share` must be in (0, 1]; got {depth_share!r}.")
        self.num_tokens, self.bottleneck, self.pool, self.depth_share = num_tokens, bottleneck, pool, depth_share
        self.codes: Codes = codes
        self.working_size = working_size
        self._model: nn.Module | None = None
        self._grafts: list[tuple[str, str]] = []
        self._biases: dict[str, nn.Parameter] = {}
        self._before: dict[str, Tensor] = {}

    def attach(self, model: nn.Module) -> None:
        """Freeze ``model`` but for its biases, put prompts and branches in, and let it hold less for the backward pass, in place.

        Raises:
            ConfigError: If there is nothing to tune, or this tuner is attached already.
        """
        if self._model is not None:
            raise ConfigError("This S2A is attached to a model already; make one tuner a model.")
        kept = _last_blocks(model, self.depth_share)
        chosen = _biases(model, kept)
        if not chosen and not kept:
            raise ConfigError(f"S2A tunes biases, and blocks of a chain; {type(model).__name__} has neither. Choose full tuning.")
        model.requires_grad_(False)
        self._biases = chosen
        for bias in chosen.values():
            bias.requires_grad_(True)
        self._before = {name: tensor.detach().clone() for name, tensor in chosen.items()}
        for module in list(model.modules()):
            if is_batch_norm(module):
                fix_mode(module)
        self._model = model
        self._put_in(model, kept)
        kind = _KINDS[self.codes]
        if kind is not None:
            make_lean(model, kind)
        set_working_size(model, self.working_size)

    def _put_in(self, model: nn.Module, kept: list[int]) -> None:
        if not kept:
            return
        assert isinstance(model, BlockBackbone), "only chains have blocks"
        names = {id(module): name for name, module in model.named_modules()}
        blocks, shapes = list(model.block_list()), model.block_shapes()
        places = {number: names[id(blocks[number])] for number in kept}
        prompted = bool(self.num_tokens) and takes_prompts(model)
        for number, place in places.items():
            width, layout = shapes[number].width, shapes[number].layout
            inner = blocks[number]
            branched = bool(self.bottleneck) and (layout != "map" or _states_are_features(model))
            if prompted:
                inner = PromptedBlock(inner, width=width, num_tokens=self.num_tokens)
                self._grafts.append((place, f"{place}.base" if branched else place))
            if branched:
                inner = PooledBranch(inner, width=width, bottleneck=min(self.bottleneck, width), pool=self.pool, layout=layout)
                self._grafts.append((place, place))
            put_module(model, place, inner)

    def trainable(self) -> Iterator[nn.Parameter]:
        """Yield biases, prompts and the weights of side branches."""
        yield from self._biases.values()
        for graft in self._attached_grafts(self._model):
            yield from (parameter for name, parameter in graft.named_parameters() if not name.startswith("base."))

    def _attached_grafts(self, model: nn.Module | None) -> list[Graft]:
        found = [] if model is None else [model.get_submodule(name) for _, name in self._grafts]
        assert all(isinstance(graft, Graft) for graft in found), "a copy of the attached model has its grafts"
        return found  # type: ignore[return-value]

    def delta(self, model: nn.Module | None = None) -> Delta:
        """Return biases as differences, and the modules with copies of their tensors; see :class:`.Tuner`."""
        if self._model is None:
            raise ConfigError("This S2A is attached to no model yet; call attach(model) first.")
        source = self._model if model is None else model
        now = plain_state(source)
        base = {**now, **self._before}
        lineage = {"tuner": "S2A", "num_tokens": self.num_tokens, "bottleneck": self.bottleneck, "codes": self.codes}
        weights = WeightDelta.between(base, now, lineage=lineage)
        placed = []
        for (place, _), graft in zip(self._grafts, self._attached_grafts(source), strict=True):
            tensors = {name: tensor.detach().clone() for name, tensor in own_tensors(graft).items()}
            placed.append(
                PlacedGraft(place, Component(f"{type(graft).__module__}:{type(graft).__name__}", graft.settings), tensors)
            )
        if not placed:
            return weights
        return ModuleDelta(
            placed, weights, base_fingerprint=state_fingerprint(base), base_prints=tensor_prints(base), lineage=lineage
        )

    def fold(self) -> None:
        """Give the model its plain classes back; biases are in plain weights already.

        Raises:
            ConfigError: If there are prompts or side branches: they are no weights.
        """
        if self._grafts:
            raise ConfigError(
                "Prompts and side branches cannot be written into weights. Keep them attached (export and serving do), or tune with "
                "num_tokens=0 and bottleneck=0."
            )
        if self._model is not None:
            make_exact(self._model)
            for module in list(self._model.modules()):
                release_mode(module)


def _states_are_features(model: BlockBackbone) -> bool:
    """Whether blocks give what the chain shows of them; a Swin's have channels last, and it shows maps."""
    return type(model).read_states is BlockBackbone.read_states


def _last_blocks(model: nn.Module, share: float) -> list[int]:
    """Return the numbers of the blocks that are tuned; none if the model is no chain of blocks."""
    if not isinstance(model, BlockBackbone):
        return []
    count = len(model.block_list())
    return list(range(count - math.ceil(share * count), count))


def _biases(model: nn.Module, kept: list[int]) -> dict[str, nn.Parameter]:
    """Return the biases that learn, by name: of a chain those of the kept blocks and of layers that stand behind them."""
    found = {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.rpartition(".")[2] == "bias" or name.endswith("_bias")
    }
    if not kept:
        return found
    assert isinstance(model, BlockBackbone), "only chains have blocks"
    names = {id(module): name for name, module in model.named_modules()}
    places = [names[id(block)] for block in model.block_list()]
    order = [name for name, _ in model.named_parameters()]
    # Layers are defined from input to output: what follows the last block's parameters stands behind it.
    end = max((index for index, name in enumerate(order) if name.startswith(f"{places[-1]}.")), default=-1)
    behind = set(order[end + 1 :])
    inside = tuple(f"{places[number]}." for number in kept)
    return {name: parameter for name, parameter in found.items() if name in behind or name.startswith(inside)}
