"""OT fusion: transformers from different starts, of equal or other width, are aligned by optimal transport before they are averaged.

Paper: Imfeld et al., "Transformer Fusion with Optimal Transport", ICLR 2024, https://github.com/graldij/transformer-fusion

The last model is the anchor, whose names and shapes the result has; the first one is aligned to it, layer by layer. For a linear
layer with weights ``W0`` and ``W1`` and the transport ``T_in`` of its inputs: ``A = W0 T_in``; the cost between units is the distance of
their activations on the same rows (or of their weights), over the largest; ``T`` is the soft or exact transport with equal shares, each
column scaled to sum 1; the result is the mean of ``T^T A`` and ``W1``. Transports flow through attention (values into its output;
queries and keys end there), norms, feed-forward networks, and residual sums, where the two that meet are combined by a policy.

Departures and limits: two models of the own vision transformer (:class:`graftwork.nn.backbones.vit.ViTBackbone` with tokens) of equal
depth under :class:`graftwork.methods.sharing.shared_trunk.SharedTrunk`, with linear heads of the same tasks. Columns are scaled by the
number of the anchor's units, which is the same as in the paper where widths are equal. A map over the width mixes attention heads, as in the
paper. There is no class token. ``policy=weighted`` takes the block's input as the residual of both sums (patches without positions in the
first block), where the released code takes what each sum reads, and the maps of patches and positions are always averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.interfaces.model_merger import MergeContext, MergeModel, ModelMerger
from graftwork.math.transport import exact_transport, sinkhorn_transport
from graftwork.methods.merging.model_answers import Answering

if TYPE_CHECKING:
    from torch import nn

__all__ = ["OTFusion", "OTFusionConfig", "combine_maps", "unit_transport"]

Array = NDArray[Any]
Policy = Literal["mean", "weighted", "residual"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OTFusionConfig:
    """Settings of OT fusion (Imfeld et al., 2024)."""

    solver: Literal["sinkhorn", "exact"] = "sinkhorn"
    """``sinkhorn`` gives soft maps, ``exact`` permutations (of unequal widths: a linear program)."""
    cost: Literal["activations", "weights"] = "activations"
    """What units are compared by; weights need no rows."""
    regularization: float = 0.08
    """Of soft maps, relative to the largest cost; the paper takes 0.06 for weights."""
    standardize: bool = False
    """Whether the activations of each unit get mean 0 and spread 1 before they are compared, as in the released settings for
    CIFAR-10. Narrow networks are aligned better without."""
    policy: Policy = "mean"
    """Map after a residual sum: the mean of both, weighted for each unit by mean absolute activations, or that of the residual."""
    anchor_share: float = 0.5
    """Share of the anchor in the mean, from 0 to 1."""
    num_rows: int = 200
    """Rows that activations are taken from, the first ones; their labels are not used."""
    role: str = "train"
    """Which rows."""

    def __post_init__(self) -> None:
        if not 0.0 < self.regularization < float("inf") or not 0.0 <= self.anchor_share <= 1.0 or self.num_rows < 2:
            raise ConfigError(
                "`regularization` must be above 0, `anchor_share` from 0 to 1 and `num_rows` at least 2; "
                f"got {self.regularization!r}, {self.anchor_share!r} and {self.num_rows!r}."
            )
        if self.cost == "weights" and self.policy == "weighted":
            raise ConfigError("`policy=weighted` weighs by activations, and `cost=weights` takes none. Choose another policy.")


def unit_transport(first: Array, second: Array, config: OTFusionConfig) -> Array:
    """Return the map from units to the anchor's, ``[n0, n1]``, columns summing to 1.

    Args:
        first: What describes each unit of the model, ``[n0, d]``.
        second: The same of the anchor, ``[n1, d]``.
        config: Solver and regularization.
    """
    squared = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2.0 * first @ second.T
    cost = np.sqrt(np.maximum(squared, 0.0))
    cost /= max(float(cost.max()), 1e-12)
    plan = exact_transport(cost) if config.solver == "exact" else sinkhorn_transport(cost, config.regularization, iterations=300)
    return plan * cost.shape[1]


def combine_maps(residual: Array, branch: Array, sizes: tuple[Array, Array] | None, policy: Policy) -> Array:
    """Return the map after a residual sum.

    Args:
        residual: Of what passes by, ``[n0, n1]``.
        branch: Of what is added.
        sizes: Mean absolute activations of the anchor's units in both, ``[n1]`` each.
        policy: See :class:`OTFusionConfig`.
    """
    if policy == "residual":
        return residual
    if policy == "weighted" and sizes is not None:
        share = sizes[0] / np.maximum(sizes[0] + sizes[1], 1e-12)
        return residual * share + branch * (1.0 - share)
    return 0.5 * (residual + branch)


class OTFusion(ModelMerger):
    """Fuse two vision transformers. Needs networks, and rows for activations; a base takes no part.

    Args:
        config: Settings; see :class:`OTFusionConfig`.
    """

    def __init__(self, config: OTFusionConfig | None = None) -> None:
        self.config = config or OTFusionConfig()

    def merge(self, base: MergeModel | None, experts: Sequence[MergeModel], context: MergeContext) -> dict[str, Array]:
        """Return the fused tensors, under the names and in the shapes of the last model.

        Raises:
            ConfigError: If there are not two models, or networks or rows are missing.
            DataError: If the networks are none that are known, or of other depth or tasks.
        """
        del base
        if len(experts) != 2:
            raise ConfigError(f"OT fusion aligns one model to another; there are {len(experts)} models. Give two.")
        answering = [Answering(model, context.tasks) for model in experts]
        for answer in answering:
            _check(answer)
        first, anchor = (_Side(answer, context, self.config) for answer in answering)
        if first.depth != anchor.depth or answering[0].answered != answering[1].answered:
            raise DataError(
                f"{experts[0].name} has {first.depth} blocks and answers {', '.join(answering[0].answered)}, {experts[1].name} has "
                f"{anchor.depth} and answers {', '.join(answering[1].answered)}. OT fusion needs equal depths and tasks."
            )
        return _Fusion(first, anchor, self.config).run()

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "ot-fusion", **asdict(self.config)}


def _check(answering: Answering) -> None:
    from torch import nn

    from graftwork.nn.attention import AttentionBlock

    network: Any = answering.network
    backbone = getattr(network, "backbone", None)
    blocks = list(getattr(backbone, "blocks", []))
    parts = all(hasattr(backbone, name) for name in ("patches", "positions", "norm"))
    plain = blocks and all(isinstance(block, AttentionBlock) and not block.attention.rotary for block in blocks)
    heads = list(getattr(network, "heads", []))
    linear = heads and all(
        isinstance(getattr(head, "norm", None), nn.LayerNorm)
        and getattr(head, "layout", "") == "tokens"
        and len(head.layers) == 1
        for head in heads
    )
    if not (parts and plain and linear):
        raise DataError(
            f"{answering.name} is no vision transformer that OT fusion knows: the own ViTBackbone with tokens as features, and linear "
            "heads (head_hidden = 0). For networks of linear layers and convolutions use --align with any method."
        )


class _Side:
    """Weights and activations of one model."""

    def __init__(self, answering: Answering, context: MergeContext, config: OTFusionConfig) -> None:
        self.weights: dict[str, Array] = {
            name: value.detach().cpu().double().numpy() for name, value in answering.network.state_dict().items()
        }
        network: Any = answering.network
        self.depth, self.num_heads = len(network.backbone.blocks), len(network.heads)
        self.activations: dict[str, Array] = {}
        """Outputs of layers by name, ``[units, rows * tokens]``."""
        if config.cost == "activations":
            self._watch(answering.network.to(context.device), answering, context, config)

    def _watch(self, network: nn.Module, answering: Answering, context: MergeContext, config: OTFusionConfig) -> None:
        import torch
        from torch import nn

        found: dict[str, list[Array]] = {}

        def watch(name: str) -> Any:
            def hook(_: Any, __: Any, output: Any) -> None:
                # Maps come as [B, units, h, w], everything else with units last.
                units = output.movedim(1, -1) if output.dim() == 4 else output
                found.setdefault(name, []).append(units.reshape(-1, units.shape[-1]).double().cpu().numpy())

            return hook

        handles = [
            module.register_forward_hook(watch(name))
            for name, module in network.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d) or name.rpartition(".")[0] == "backbone.blocks"
        ]
        seen = 0
        try:
            with torch.inference_mode():
                for batch in context.batches(config.role, 64):
                    rows = batch.take(slice(0, config.num_rows - seen))
                    seen += len(rows)
                    network(rows.inputs, list(answering.answered))
                    if seen >= config.num_rows:
                        break
        finally:
            for handle in handles:
                handle.remove()
        if not seen:
            raise DataError(f"There are no {config.role!r} rows to take activations from. Give some, or set cost=weights.")
        self.activations = {name: np.concatenate(parts).T for name, parts in found.items()}


def _standardized(values: Array) -> Array:
    """Return activations ``[units, n]`` with mean 0 and spread 1 for each unit; one that never changes becomes 0."""
    centred = values - values.mean(axis=1, keepdims=True)
    return np.asarray(centred / (centred.std(axis=1, keepdims=True) + 1e-9))


class _Fusion:
    """Walks through both models from the patches to the heads."""

    def __init__(self, first: _Side, anchor: _Side, config: OTFusionConfig) -> None:
        self.first, self.anchor, self.config = first, anchor, config
        self.fused: dict[str, Array] = {}

    def mix(self, name: str, aligned: Array) -> None:
        """Keep the mean of an aligned tensor and the anchor's."""
        target = self.anchor.weights[name]
        share = self.config.anchor_share
        self.fused[name] = ((1.0 - share) * aligned.reshape(target.shape) + share * target).astype(np.float32)

    def linear(
        self, layer: str, inputs: Array | None, *, part: tuple[int, int] = (0, 1), maps: bool = True
    ) -> tuple[Array, Array, Array]:
        """Return the aligned weight and bias of a linear layer, or of one part of its outputs, and the map of its outputs.

        Args:
            layer: Its name.
            inputs: Map of its inputs; None for pictures, which are the same for both.
            part: Which part of how many (queries, keys, values).
            maps: Whether its outputs are aligned; answers are the same in both models.
        """
        place, count = part

        def own(side: _Side, values: Array) -> Array:
            del side
            size = len(values) // count
            return values[place * size : (place + 1) * size]

        weight, bias = (own(self.first, self.first.weights[f"{layer}.{kind}"]) for kind in ("weight", "bias"))
        weight = weight.reshape(len(weight), -1)
        weight = weight if inputs is None else weight @ inputs
        if not maps:
            return weight, bias, np.eye(len(weight))
        if self.config.cost == "activations":
            units = [own(side, side.activations[layer]) for side in (self.first, self.anchor)]
            units = [_standardized(values) for values in units] if self.config.standardize else units
        else:
            other = own(self.anchor, self.anchor.weights[f"{layer}.weight"])
            units = [weight, other.reshape(len(other), -1)]
        found = unit_transport(units[0], units[1], self.config)
        return found.T @ weight, found.T @ bias, found

    def norm(self, name: str, units: Array) -> None:
        for kind in ("weight", "bias"):
            self.mix(f"{name}.{kind}", units.T @ self.first.weights[f"{name}.{kind}"])

    def whole(self, layer: str, inputs: Array | None, *, maps: bool = True) -> Array:
        weight, bias, found = self.linear(layer, inputs, maps=maps)
        self.mix(f"{layer}.weight", weight)
        self.mix(f"{layer}.bias", bias)
        return found

    def sizes(self, before: str, branch: str) -> tuple[Array, Array] | None:
        """Return mean absolute activations of the anchor's units in the residual stream and in what is added."""
        found = self.anchor.activations
        if before not in found or branch not in found:
            return None
        return np.abs(found[before]).mean(axis=1), np.abs(found[branch]).mean(axis=1)

    def run(self) -> dict[str, Array]:
        """Return all fused tensors."""
        units = self.embedding()
        for number in range(self.first.depth):
            units = self.block(number, units)
        self.norm("backbone.norm", units)
        for number in range(self.first.num_heads):
            self.norm(f"heads.{number}.norm", units)
            self.whole(f"heads.{number}.layers.0", units, maps=False)
        left = [name for name in self.anchor.weights if name not in self.fused]
        return {**{name: self.anchor.weights[name].astype(np.float32) for name in left}, **self.fused}

    def embedding(self) -> Array:
        patches = self.whole("backbone.patches", None)
        name = "backbone.positions"
        first, second = self.first.weights[name][0], self.anchor.weights[name][0]
        if first.shape[0] != second.shape[0]:
            raise DataError(f"The models read {first.shape[0]} and {second.shape[0]} patches of a picture; they must be as many.")
        # A position is a vector over units: units are compared by their values at all positions.
        places = unit_transport(first.T, second.T, self.config)
        self.mix(name, first @ places)
        return 0.5 * (patches + places)

    def block(self, number: int, units: Array) -> Array:
        name = f"backbone.blocks.{number}"
        before = f"backbone.blocks.{number - 1}" if number else "backbone.patches"
        self.norm(f"{name}.attention_norm", units)
        parts = [self.linear(f"{name}.attention.project", units, part=(place, 3)) for place in range(3)]
        self.mix(f"{name}.attention.project.weight", np.concatenate([weight for weight, _, _ in parts]))
        self.mix(f"{name}.attention.project.bias", np.concatenate([bias for _, bias, _ in parts]))
        # Only values reach the output layer, so its inputs have their map, not that of the residual.
        attended = self.whole(f"{name}.attention.output", parts[2][2])
        units = combine_maps(units, attended, self.sizes(before, f"{name}.attention.output"), self.config.policy)
        self.norm(f"{name}.feed_norm", units)
        hidden = self.whole(f"{name}.feed.0", units)
        added = self.whole(f"{name}.feed.3", hidden)
        return combine_maps(units, added, self.sizes(before, f"{name}.feed.3"), self.config.policy)
