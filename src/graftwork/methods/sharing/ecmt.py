r"""ECMT: one multi-task network whose compute budget and task priorities are set after training.

Paper: Aich et al., "Efficient Controllable Multi-Task Architectures", ICCV 2023, https://arxiv.org/abs/2308.11744 (no code was
published).

Encoder and every task's decoder are slimmable: a configuration :math:`c = (a_e, a_1, \dots, a_T)` gives each of them a width
ratio, narrow widths being the leading channels of wide ones, with norms of their own. Training
(:mod:`graftwork.methods.sharing.ecmt_training`) runs the full
network, the *parent*, and a few sampled configurations in every step. After it, no weight changes any more: **importance**
:math:`p` gives decoder :math:`t` the ratio nearest to :math:`p_t / \max p`, **budget** takes the widest encoder that fits, and
where none does, decoders shrink, those of the least important tasks first. What is deployed are ordinary small networks
(:meth:`ECMT.slice`).

Departures and choices:

- The widest feasible encoder is taken; the paper searches the encoder for the best multi-task score. Widths are nested and
  trained together, so that the wider one is the better one up to noise, and no validation data is needed when the user changes a
  budget.
- Group norm with an affine pair for each width in place of batch statistics for each width: the statistics of a decoder's
  features depend on the encoder's width as well as on its own. ``norm="batch"`` keeps running statistics for each width (of a
  decoder: its own).
- Small convolutional encoder and decoders, four ratios; tables get linear layers.
- FLOPs are measured on the sliced network by torch's counter, not computed from ratios.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpecs
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.controllable import Configuration, ControllableModel
from graftwork.interfaces.shared_model import SharedModel
from graftwork.math.widths import narrowing_widths
from graftwork.nn.heads import output_size
from graftwork.nn.slimmable import NormKind, active_channels, materialise
from graftwork.nn.slimmable_nets import DenseDecoder, GlobalDecoder, build_encoder, set_width

__all__ = ["ECMT", "EncoderDecoders"]


class EncoderDecoders(SharedModel):
    """An encoder and one decoder for each task: what every configuration of ECMT is when sliced.

    Args:
        task_names: The tasks.
        encoder: Inputs to features.
        decoders: One for each task, features to outputs.
    """

    def __init__(self, task_names: Sequence[str], encoder: nn.Module, decoders: nn.ModuleList) -> None:
        super().__init__()
        self.task_names = tuple(task_names)
        self.encoder, self.decoders = encoder, decoders
        self._index = {name: index for index, name in enumerate(self.task_names)}

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        """Return the encoder's features."""
        features: Tensor = self.encoder(inputs)
        return features

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the outputs of the asked tasks."""
        names = self.task_names if tasks is None else tasks
        return {name: self.decoders[self._index[name]](representation) for name in names}

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of the task's decoder."""
        return self.decoders[self._index[task]].parameters()


class ECMT(EncoderDecoders, ControllableModel):
    """The controllable network. A fresh one computes with all its channels.

    Args:
        tasks: The tasks.
        make_backbone: Not called: the slimmable encoder is part of the method.
        inputs: The suite's inputs: pictures, or a table.
        ratios: Widths that encoder and decoders can take, in ``(0, 1]``; 1 is one of them.
        channels: Full channels of the encoder's stages (tables: of its layers, default three of 128).
        decoder_width: Full channels of a decoder's hidden layers; None takes 32 for predictions per pixel and 64 otherwise.
        norm: Kind of norm for pictures.
        projection: Whether to hold the projections of slim features to the full width that distillation uses and deployment
            drops.

    Raises:
        ConfigError: If the ratios cannot be used, the inputs are neither pictures nor tables, or a table has a task per pixel.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        make_backbone: Callable[[], Backbone] | None = None,
        *,
        inputs: InputSpecs,
        ratios: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
        channels: Sequence[int] | None = None,
        decoder_width: int | None = None,
        norm: NormKind = "group",
        projection: bool = True,
    ) -> None:
        ordered = tuple(sorted(set(map(float, ratios))))
        if not ordered or ordered[-1] != 1.0 or ordered[0] <= 0.0:
            raise ConfigError(f"`ratios` are widths above 0, the largest of which is 1; got {list(ratios)}.")
        is_image = output_size(inputs) is not None
        settings: dict[str, Any] = {} if channels is None else {"channels" if is_image else "widths": tuple(channels)}
        encoder = build_encoder(inputs, ordered, **settings, **({"norm": norm} if is_image else {}))
        size = output_size(inputs)
        decoders = nn.ModuleList()
        for task in tasks:
            if not task.is_dense:
                width = 64 if decoder_width is None else decoder_width
                decoders.append(GlobalDecoder(encoder.width, task, ordered, width=width, is_map=is_image))
            elif size is None:
                raise ConfigError(f"Task {task.name!r} asks for one prediction per pixel, but the inputs are no pictures.")
            else:
                width = 32 if decoder_width is None else decoder_width
                decoders.append(DenseDecoder(encoder.width, task, ordered, size, width=width, norm=norm))
        super().__init__([task.name for task in tasks], encoder, decoders)
        self.tasks, self.ratios = tuple(tasks), ordered
        self._inputs = inputs
        slim = ordered[:-1] if projection else ()
        self.projections = nn.ModuleList(
            nn.Linear(active_channels(encoder.width, ratio), encoder.width, bias=False) for ratio in slim
        )
        self._measured: dict[Any, float] = {}
        self._configuration = self.full

    @property
    def full(self) -> Configuration:
        """All channels."""
        return self.uniform(1.0)

    @property
    def configuration(self) -> Configuration:
        """What the network computes with at present."""
        return self._configuration

    def uniform(self, ratio: float) -> Configuration:
        """Return the configuration in which encoder and decoders have one common ratio."""
        return Configuration(ratio, dict.fromkeys(self.task_names, ratio))

    def set_configuration(self, configuration: Configuration) -> None:
        """Compute with this configuration from now on.

        Raises:
            ConfigError: If a ratio is none of the model's, or a task is missing or unknown.
        """
        wrong = sorted({configuration.encoder, *configuration.decoders.values()} - set(self.ratios))
        if wrong or set(configuration.decoders) != set(self.task_names):
            raise ConfigError(
                f"A configuration has a ratio of {list(self.ratios)} for the encoder and for each of the tasks "
                f"{list(self.task_names)}; got {configuration.to_json()}."
            )
        set_width(self.encoder, configuration.encoder)
        for name, decoder in zip(self.task_names, self.decoders, strict=True):
            assert isinstance(decoder, DenseDecoder | GlobalDecoder)
            # A decoder's first layer reads as many channels as the encoder gives at its present width.
            decoder.set_width(configuration.decoders[name], configuration.encoder)
        self._configuration = configuration

    @contextlib.contextmanager
    def configured(self, configuration: Configuration) -> Iterator[None]:
        """Compute with another configuration inside the block."""
        before = self._configuration
        self.set_configuration(configuration)
        try:
            yield
        finally:
            self.set_configuration(before)

    def configure(self, *, budget: float = 1.0, importance: Mapping[str, float] | None = None) -> Configuration:
        """Set the configuration for a budget and the importance of the tasks, and return it; see :meth:`choose`."""
        chosen = self.choose(budget=budget, importance=importance)
        self.set_configuration(chosen)
        return chosen

    def choose(self, *, budget: float = 1.0, importance: Mapping[str, float] | None = None) -> Configuration:
        """Return the configuration for a budget and the importance of the tasks; the model is not changed.

        Args:
            budget: Largest share of the full network's FLOPs per sample, above 0 and at most 1.
            importance: Weight of each task, at least 0; tasks that are not named weigh 1. None weighs all alike.

        Raises:
            ConfigError: If the smallest configuration is above the budget, or a weight cannot be used.
        """
        weights = self._weights(importance or {})
        # Room for rounding: a budget that is exactly the cost of a configuration must admit it.
        limit = budget * self.flops(self.full) * (1.0 + 1e-9)
        for decoders in narrowing_widths(dict.fromkeys(self.task_names, self.ratios), weights):
            # Widths of decoders outside, encoders inside: importance is given up only where no encoder fits.
            for ratio in reversed(self.ratios):
                candidate = Configuration(ratio, decoders)
                if self.flops(candidate) <= limit:
                    return candidate
        least = self.flops(self.uniform(self.ratios[0])) / self.flops(self.full)
        raise ConfigError(f"No configuration costs as little as {budget:g} of the full one; the smallest costs {least:.3f}.")

    def _weights(self, importance: Mapping[str, float]) -> dict[str, float]:
        wrong = {
            name: weight
            for name, weight in importance.items()
            if name not in self.task_names or not (math.isfinite(weight) and weight >= 0)
        }
        weights = {name: float(importance.get(name, 1.0)) for name in self.task_names}
        if wrong or not max(weights.values()) > 0:
            raise ConfigError(
                f"`importance` gives tasks of {list(self.task_names)} a weight of at least 0, not 0 to all of "
                f"them; got {dict(importance)}."
            )
        return weights

    def flops(self, configuration: Configuration) -> float:
        """Return the floating-point operations per sample, counted on the sliced network; each configuration is measured once."""
        from torch.utils.flop_counter import FlopCounterMode

        key = configuration.key()
        if key not in self._measured:
            network, counter = self.slice(configuration).eval(), FlopCounterMode(display=False)
            with torch.no_grad(), counter:
                network(self._one_row())
            self._measured[key] = float(counter.get_total_flops())
        return self._measured[key]

    def _one_row(self) -> dict[str, Tensor]:
        (spec,), device = self._inputs.values(), next(self.parameters()).device
        sizes = spec.sizes
        if spec.kind == "image":
            side = int(sizes["image_size"])
            return {"image": torch.zeros(1, side, side, 3, dtype=torch.uint8, device=device)}
        return {
            "numeric": torch.zeros(1, int(sizes["num_numeric"]), device=device),
            "categorical": torch.zeros(1, len(sizes.get("cardinalities", ())), dtype=torch.int64, device=device),
        }

    def slice(self, configuration: Configuration | None = None) -> EncoderDecoders:
        """Return an ordinary network with a copy of the weights of a configuration (None: the present one), equal in its outputs.

        Projections and the norms of other widths are left out.
        """
        with self.configured(configuration or self._configuration):
            network = EncoderDecoders(self.task_names, materialise(self.encoder), materialise(self.decoders))
        return network.train(self.training)

    def project(self, features: Tensor) -> Tensor:
        """Return slim features ``[B, c, ...]`` of the present encoder width projected to the full width ``[B, C, ...]``.

        Raises:
            ConfigError: If the model has no projections.
        """
        if self._configuration.encoder == 1.0:
            return features
        if not self.projections:
            raise ConfigError(
                "This model was built without projections; build it with projection=True, or distil 'leading' channels."
            )
        layer = self.projections[self.ratios.index(self._configuration.encoder)]
        # A linear layer works on the last axis: [B, c, ...] to [B, ..., c].
        projected: Tensor = layer(features.movedim(1, -1))
        return projected.movedim(-1, 1)

    def __deepcopy__(self, memo: dict[int, Any]) -> ECMT:
        """Copy everything but the measured operations, which are shared: equal widths cost the same in every copy."""
        twin = self.__class__.__new__(self.__class__)
        # First, so that references from children back to this module do not copy it again.
        memo[id(self)] = twin
        for name, value in self.__dict__.items():
            twin.__dict__[name] = value if name == "_measured" else copy.deepcopy(value, memo)
        return twin
