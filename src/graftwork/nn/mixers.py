"""MLP mixers for series in patches: mixing along one axis at a time, with gated attention; patches that are split and joined
again.

Papers: Ekambaram et al., "TSMixer: Lightweight MLP-Mixer Model for Multivariate Time Series Forecasting", KDD 2023,
https://arxiv.org/abs/2306.09364 (mixing with gated attention); "Tiny Time Mixers", 2024, https://arxiv.org/abs/2401.03955
(adaptive patching). All states are ``[B, C, n, d]``: channels, patches, width.
"""

from __future__ import annotations

from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.nn.mlp import mlp

__all__ = ["AdaptiveMixer", "AxisMixing", "GatedAttention", "MixerLayer", "join_patches", "split_patches"]

CHANNELS, PATCHES, FEATURES = 1, 2, 3
"""Axes of a state."""
NARROWEST = 4
"""Finest patches are wider than this: fewer numbers cannot describe one."""


def split_patches(state: Tensor, factor: int) -> Tensor:
    """Return ``[B, C, n * factor, d / factor]``: each patch becomes ``factor`` narrower ones, one after the other."""
    batch, channels, patches, width = state.shape
    return state.reshape(batch, channels, patches * factor, width // factor)


def join_patches(state: Tensor, factor: int) -> Tensor:
    """Return ``[B, C, n / factor, d * factor]``: the inverse of :func:`split_patches`."""
    batch, channels, patches, width = state.shape
    return state.reshape(batch, channels, patches // factor, width * factor)


class GatedAttention(nn.Module):
    """``z * softmax(W z)`` along the last axis: what matters little is damped.

    Args:
        size: Length of the axis.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(size, size)

    def forward(self, state: Tensor) -> Tensor:
        """Return the gated state, in the same shape."""
        return state * self.gate(state).softmax(dim=-1)


class AxisMixing(nn.Module):
    """Norm over the features, an MLP along one axis, gated attention along it, residual.

    Args:
        width: Width ``d`` of the features.
        size: Length of the mixed axis; ``width`` for the axis of features.
        axis: 1 mixes channels, 2 patches, 3 features.
        expansion: Hidden width of the MLP over ``size``.
        dropout: Probability of dropping a hidden unit.
    """

    def __init__(self, width: int, size: int, *, axis: int, expansion: float = 2.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.axis = axis
        self.norm = nn.LayerNorm(width)
        self.mlp = mlp([size, max(1, round(size * expansion)), size], dropout=dropout)
        self.attention = GatedAttention(size)

    def forward(self, state: Tensor) -> Tensor:
        """Return the mixed state, in the same shape ``[B, C, n, d]``."""
        # The axis to mix comes last, where the MLP and the gate act. For features the transposition does nothing.
        mixed = self.norm(state).transpose(self.axis, -1)
        return state + self.attention(self.mlp(mixed)).transpose(self.axis, -1)


class MixerLayer(nn.Module):
    """Mixing of channels (if asked for), of patches, of features, in this order.

    Args:
        width: Width ``d``.
        patches: Number of patches ``n``.
        channels: Number of channels to mix; 0 treats channels apart from each other, and any number of them is taken. The mixing
            starts as the identity, so that a layer that gets it later computes what it did before.
        expansion: Hidden width of each MLP over the length of its axis.
        dropout: Probability of dropping a hidden unit.
    """

    def __init__(self, width: int, patches: int, *, channels: int = 0, expansion: float = 2.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.channels: AxisMixing | None = None
        if channels:
            self.channels = AxisMixing(width, channels, axis=CHANNELS, expansion=expansion, dropout=dropout)
            last = self.channels.mlp[-1]
            assert isinstance(last, nn.Linear)
            # An MLP of zeros: the residual alone is left, so the mixing starts as the identity.
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.patches = AxisMixing(width, patches, axis=PATCHES, expansion=expansion, dropout=dropout)
        self.features = AxisMixing(width, width, axis=FEATURES, expansion=expansion, dropout=dropout)

    def forward(self, state: Tensor) -> Tensor:
        """Return the mixed state, in the same shape ``[B, C, n, d]``."""
        if self.channels is not None:
            state = self.channels(state)
        return self.features(self.patches(state))


class AdaptiveMixer(nn.Module):
    """Levels of mixer layers, from fine patches to coarse ones: level ``i`` works on patches split into ``2 ** i``.

    Args:
        width: Width ``d`` of a patch that is not split.
        patches: Number of such patches.
        levels: Number of levels ``K``; the first one splits into ``2 ** (K - 1)``, the last one not at all. 1 is a plain mixer.
        layers: Mixer layers of each level.
        expansion: See :class:`MixerLayer`.
        dropout: See :class:`MixerLayer`.

    Raises:
        ConfigError: If the finest patches would not be a whole number of features, more than 4.
    """

    def __init__(
        self, width: int, patches: int, *, levels: int = 3, layers: int = 2, expansion: float = 2.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        finest = 2 ** (levels - 1) if levels >= 1 else 0
        if not finest or layers < 1 or width % finest or width // finest <= NARROWEST:
            raise ConfigError(
                f"A mixer of {levels} levels of {layers} layers cannot split patches of width {width}: levels and layers are at "
                f"least 1, and the width is a multiple of 2 ** (levels - 1), more than {NARROWEST} times it."
            )
        self.factors = tuple(2**level for level in reversed(range(levels)))
        self.levels = nn.ModuleList(
            nn.Sequential(
                *(MixerLayer(width // factor, patches * factor, expansion=expansion, dropout=dropout) for _ in range(layers))
            )
            for factor in self.factors
        )

    def forward(self, state: Tensor) -> Tensor:
        """Return the mixed state, in the same shape ``[B, C, n, d]``."""
        for factor, level in zip(self.factors, self.levels, strict=True):
            # Finest patches first; every level ends in the layout [B, C, n, d] that it began with.
            state = join_patches(level(split_patches(state, factor)), factor)
        return state
