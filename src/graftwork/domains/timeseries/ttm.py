"""TTM: a small forecaster that is trained once on many series, forecasts series it has never seen, and is tuned by its decoder
alone.

Paper: Ekambaram et al., "Tiny Time Mixers (TTMs): Fast Pre-trained Models for Enhanced Zero/Few-Shot Forecasting of Multivariate
Time Series", NeurIPS 2024, https://arxiv.org/abs/2401.03955. The trunk is :class:`~graftwork.nn.backbones.ttm.TtmBackbone`;
decoder and heads are here. Each channel is scaled by its own context, and forecasts are scaled back.

- Pre-training: channels apart from each other (``mix_channels`` off), all weights learn, one window a row.
- Zero-shot: the trained model as it is.
- Few-shot: the trunk is frozen by the plan's tuner; decoder and heads go on from their trained weights, with mixing of channels
  in the decoder, which starts as the identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpecs
from graftwork.core.records import TaskSpec
from graftwork.domains.timeseries.forecasts import ForecastOutput, forecast_tasks, series_of
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.backbones.ttm import TtmBackbone
from graftwork.nn.backbones.ttm_folder import save_ttm
from graftwork.nn.heads import build_head
from graftwork.nn.mixers import MixerLayer
from graftwork.nn.series_scale import context_scale, unscaled_by

__all__ = ["TTM", "Decoder"]


class Decoder(nn.Module):
    """Linear adapter to the decoder's width, then mixer layers; ``[B, C, n, width]`` to ``[B, C, n, decoder_width]``.

    Args:
        width: Width of the trunk's patches.
        patches: Number of patches ``n``.
        decoder_width: Width of the decoder.
        layers: Mixer layers.
        channels: Number of channels that are mixed; 0 keeps them apart.
        dropout: Probability of dropping a hidden unit.
    """

    def __init__(self, width: int, patches: int, *, decoder_width: int, layers: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.adapter = nn.Linear(width, decoder_width)
        self.layers = nn.Sequential(
            *(MixerLayer(decoder_width, patches, channels=channels, dropout=dropout) for _ in range(layers))
        )

    def forward(self, state: Tensor) -> Tensor:
        """Return the decoded state."""
        return self.layers(self.adapter(state))


class TTM(SharedModel):
    """Trunk, decoder, and a head for each task: a forecast scaled back by the context, or any other answer from all patches.

    A backbone that is no :class:`~graftwork.nn.backbones.ttm.TtmBackbone` (the library's own untrained trunk) is replaced by a
    new one, which the settings of the trunk describe; a trained one (``ttm:FOLDER``) brings its own settings, decoder and head.

    Args:
        tasks: The tasks; see :func:`~graftwork.domains.timeseries.forecasts.forecast_tasks` for what counts as a forecast.
        make_backbone: Returns a backbone.
        inputs: The suite's inputs: one series.
        width: Width of a patch.
        patch: Steps of a patch.
        levels: Levels of adaptive patching; 1 switches it off.
        layers: Mixer layers of each level.
        prefix: Whether the sampling rate is one more patch.
        decoder_width: Width of the decoder.
        decoder_layers: Mixer layers of the decoder.
        mix_channels: Whether the decoder mixes channels; without it no weight but those of other heads depends on their number.
        dropout: Probability of dropping a hidden unit.

    Raises:
        ConfigError: If the input is no series, a task asks for one answer a step, a size is out of range, or a trained decoder has
            weights that this one has no place for.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        make_backbone: Callable[[], Backbone],
        *,
        inputs: InputSpecs,
        width: int = 32,
        patch: int = 8,
        levels: int = 3,
        layers: int = 2,
        prefix: bool = True,
        decoder_width: int = 16,
        decoder_layers: int = 2,
        mix_channels: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.spec = series_of(inputs, "TTM")
        over_steps = [task.name for task in tasks if task.positions]
        if over_steps:
            raise ConfigError(
                f"TTM gives one answer a row; {', '.join(over_steps)} asks for one for each of its positions. Choose the plan "
                "shared-trunk for it."
            )
        if decoder_width < 1 or decoder_layers < 1 or not 0 <= dropout < 1:
            raise ConfigError(
                "decoder_width and decoder_layers must be at least 1 and dropout in [0, 1); "
                f"got {decoder_width!r}, {decoder_layers!r} and {dropout!r}."
            )
        self.task_names = tuple(task.name for task in tasks)
        length, channels = int(self.spec.sizes["length"]), int(self.spec.sizes["channels"])
        trunk = make_backbone()
        if not isinstance(trunk, TtmBackbone):
            trunk = TtmBackbone(
                length, channels, width=width, patch=patch, levels=levels, layers=layers, prefix=prefix, dropout=dropout
            )
        self.backbone = trunk
        # A trained decoder fits only a decoder of its own sizes, so they win over the arguments.
        trained = trunk.forecaster.get("settings", {})
        if trunk.forecaster:
            # Layers with and without dropout name their weights differently, and trained ones are found by name.
            dropout = float(trunk.settings["dropout"])
        self.settings = {"width": decoder_width, "layers": decoder_layers, **trained}
        """What the decoder was built with, but for the channels."""
        decoded = int(self.settings["width"])
        self.decoder = Decoder(
            trunk.feature_shape.width,
            trunk.patches,
            decoder_width=decoded,
            layers=int(self.settings["layers"]),
            channels=channels if mix_channels else 0,
            dropout=dropout,
        )
        self.channels, self.forecasts = channels, forecast_tasks(tasks, self.spec)
        per_channel = trunk.patches * decoded
        horizon = int(self.spec.sizes.get("horizon", 0))
        self.heads = nn.ModuleList(
            nn.Linear(per_channel, horizon)
            if task.name in self.forecasts
            else build_head(FeatureShape("vector", channels * per_channel), task)
            for task in tasks
        )
        self.outputs = nn.ModuleDict(
            {str(index): ForecastOutput(task, self.spec) for index, task in enumerate(tasks) if task.name in self.forecasts}
        )
        self._index = {name: index for index, name in enumerate(self.task_names)}
        self._take(trunk.forecaster.get("tensors", {}))

    @torch.no_grad()
    def _take(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy trained weights of the decoder, and of the head where the horizon is the one that it was trained for."""
        own = {f"decoder.{name}" for name, _ in self.decoder.named_parameters()}
        # A decoder that keeps some of its new weights would forecast, badly, without a sign of it.
        if strange := [name for name in tensors if name.startswith("decoder.") and name not in own]:
            raise ConfigError(
                f"The trained decoder has weights that this one has no place for: {', '.join(strange[:3])}"
                f"{' and others' if len(strange) > 3 else ''}. Save the trained model again with this version."
            )
        for name, parameter in self.decoder.named_parameters():
            # Mixing of channels is new where a model is tuned with it, and has no trained weights.
            found = tensors.get(f"decoder.{name}")
            if found is not None:
                parameter.copy_(found)
        for task in self.forecasts:
            head = self.heads[self._index[task]]
            for name, parameter in head.named_parameters():
                found = tensors.get(f"head.{name}")
                # With another horizon the head starts anew.
                if found is not None and found.shape == parameter.shape:
                    parameter.copy_(found)

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        """Return what the decoder makes of all patches and, behind it, mean and deviation of the context: ``[B, C, F + 2]``."""
        own = self.spec.own(inputs)
        tokens: Tensor = self.backbone(own)
        # [B, C * n, width] to [B, C, n, width]
        state = self.decoder(tokens.unflatten(1, (self.channels, -1)))
        center, scale = context_scale(own["series"], own["series_mask"])
        return torch.cat([state.flatten(2), torch.stack([center, scale], dim=2)], dim=2)

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the outputs of the asked heads."""
        assert isinstance(representation, Tensor)
        state, center, scale = representation[..., :-2], representation[..., -2], representation[..., -1]
        found: dict[str, Tensor] = {}
        for name in self.task_names if tasks is None else tasks:
            index = self._index[name]
            if name in self.forecasts:
                found[name] = self.outputs[str(index)](unscaled_by(self.heads[index](state), center, scale))
            else:
                found[name] = self.heads[index](state.flatten(1))
        return found

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of the task's head."""
        return self.heads[self._index[task]].parameters()

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write trunk, decoder and the head of the first forecast, for plans that start from ``ttm:FOLDER``.

        Returns:
            The folder.

        Raises:
            ConfigError: If no task is a forecast, or the decoder mixes channels.
            StorageError: If the folder cannot be written.
        """
        if not self.forecasts or any(
            isinstance(layer, MixerLayer) and layer.channels is not None for layer in self.decoder.layers
        ):
            raise ConfigError(
                "What others start from forecasts each channel by itself: train it with mix_channels off, on a forecast."
            )
        head = self.heads[self._index[self.forecasts[0]]]
        tensors: dict[str, Any] = {f"decoder.{name}": tensor for name, tensor in self.decoder.state_dict().items()}
        tensors |= {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
        return save_ttm(self.backbone, tensors, self.settings, folder)
