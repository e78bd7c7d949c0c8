r"""Guidance: the layers of a network become alike to those of a frozen guide, trained or not, while it learns its task.

Paper: Subramaniam et al., "Training the Untrainable: Introducing Inductive Bias via Representational Alignment",
https://github.com/vsubramaniam851/untrainable-networks. Guide and student see the same batch. Each layer of the guide is paired with a layer of the
student, evenly spaced, and :math:`\alpha \sum_{\text{pairs}} (1 - \mathrm{CKA})` is added to the tasks' losses; ``weight`` is
:math:`\alpha`. A guide that has learned nothing still says how its architecture treats pictures.

Departures: the released code keeps one pair a layer of the student, the last one, where the guide has more layers; here all pairs
count. Layers of the student's heads take no part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.binding import Binding
from graftwork.interfaces.objective import Objective, ObjectiveInputs
from graftwork.interfaces.shared_model import SharedModel
from graftwork.methods.distillation.taught import at_least_0
from graftwork.nn.backbones.frozen import FrozenSource, frozen_backbone
from graftwork.nn.kernel_alignment import kernel_alignment
from graftwork.nn.layer_paths import feature_layers
from graftwork.nn.module_taps import tapped_modules
from graftwork.nn.representation import representation_of

__all__ = ["Guidance", "evenly_paired", "noise_like"]

_FEATURES = ""
"""Path that stands for the guide's features, and for the representation that the student's tasks share."""


def evenly_paired(guide: Sequence[str], student: Sequence[str]) -> list[tuple[str, str]]:
    """Return one pair for each layer of the guide: the layers of the student are taken at even distances, from the first to the
    last.

    Example:
        >>> evenly_paired(["g0", "g1", "g2"], ["s0", "s1", "s2", "s3", "s4"])
        [('g0', 's0'), ('g1', 's2'), ('g2', 's4')]
    """
    step = (len(student) - 1) / (len(guide) - 1) if len(guide) > 1 else 1.0
    return [(layer, student[min(round(number * step), len(student) - 1)]) for number, layer in enumerate(guide)]


def noise_like(inputs: Mapping[str, Tensor], random: torch.Generator) -> dict[str, Tensor]:
    """Return random inputs of the same shapes and types: numbers from a normal distribution, whole ones between 0 and the largest.

    Args:
        inputs: A batch.
        random: On the CPU.
    """
    found = {}
    for name, value in inputs.items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=random)
        else:
            top = 255 if value.dtype == torch.uint8 else max(int(value.max()), 1)
            drawn = torch.randint(0, top + 1, value.shape, generator=random)
        found[name] = drawn.to(value.device, value.dtype)
    return found


class Guidance(Objective):
    """One minus the centred kernel alignment between layers of a frozen guide and of the student, summed over pairs.

    Args:
        guide: A backbone by name, or a component with ``path`` and ``settings``; see
            :func:`graftwork.nn.backbones.frozen.frozen_backbone`. A component without ``weights`` is a guide that never learned: its
            norms take the statistics of the batch, since it has none of its own.
        weights: File with the guide's weights; empty takes those that the name brings, or random ones.
        weight: Factor of the term, at least 0.
        layers: Paths of the student's layers in order (as in ``backbone.stages.0``); empty takes all convolutions, linear and
            recurrent layers, norms of layers and poolings of its trunk. A path ``""`` is the representation that the tasks share.
        guide_layers: Likewise of the guide; a path ``""`` is its features.
        steps: Steps after which the guide is taken away; 0 keeps it to the end.
        noise: Whether the guide sees random inputs in place of the batch: a control that must not help.

    Raises:
        ConfigError: If a setting cannot be used.
    """

    def __init__(
        self,
        guide: FrozenSource = "",
        weights: str = "",
        weight: float = 1.0,
        *,
        layers: Sequence[str] = (),
        guide_layers: Sequence[str] = (),
        steps: int = 0,
        noise: bool = False,
    ) -> None:
        self.guide_source, self.weights = guide, weights
        self.weight = at_least_0("weight", weight)
        self.layers, self.guide_layers = tuple(layers), tuple(guide_layers)
        if not isinstance(steps, int) or steps < 0:
            raise ConfigError(f"steps must be a whole number of at least 0; got {steps!r}.")
        self.steps, self.noise = steps, bool(noise)
        self.pairs: list[tuple[str, str]] = []
        """Paths of a layer of the guide and of the student's that is compared with it; known after :meth:`bind`."""
        self.guide: Backbone | None = None
        self._seen: Mapping[str, Tensor] | None = None
        self._seed = 0

    def bind(self, binding: Binding) -> None:
        """Make the guide, and pair the layers.

        Raises:
            ConfigError: If there is no guide, it cannot read the rows, or a network has no layers to compare.
            FileFormatError: If the guide's weights are missing or belong to another network.
        """
        example = binding.example.to(binding.device)
        self._seed = binding.seed
        guide = frozen_backbone(self.guide_source, self.weights, example.inputs).to(binding.device)
        if not isinstance(self.guide_source, str) and not self.weights:
            # Running statistics of a network that never ran say nothing.
            for module in guide.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.train()
        self.guide = guide
        try:
            with torch.no_grad():
                guide(example.inputs)
        except (KeyError, RuntimeError) as error:
            raise ConfigError(f"The guide {type(guide).__name__} cannot read these rows: {str(error)[:200]}") from error
        own = self.layers or tuple(feature_layers(binding.model, lambda: representation_of(binding.model, example), len(example)))
        guiding = self.guide_layers or tuple(feature_layers(guide, lambda: guide(example.inputs), len(example)))
        for name, found in (("student", own), ("guide", guiding)):
            if not found:
                raise ConfigError(
                    f"Guidance found no layers of the {name} to compare. Name modules: `layers` and `guide_layers`."
                )
        self.pairs = evenly_paired(guiding, own)
        # Wrong paths are told now, not at the first step.
        with tapped_modules(binding.model, self._paths(1)), tapped_modules(guide, self._paths(0)):
            pass

    @contextlib.contextmanager
    def watching(self, model: SharedModel) -> Iterator[None]:
        """Tap the student's layers during one forward pass."""
        with tapped_modules(model, self._paths(1)) as found:
            yield
        self._seen = found

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        """Return the sum over pairs times :attr:`weight`; 0 once the guide has been taken away.

        Raises:
            ConfigError: If a layer of the student did not run, or gave something else than one answer a row.
        """
        seen, self._seen = self._seen or {}, None  # its graph ends with this step
        if self.steps and inputs.step >= self.steps:
            return inputs.losses.new_zeros(())
        guiding = self._guiding(inputs.batch, inputs.step)
        total = inputs.losses.new_zeros(())
        for layer, own in self.pairs:
            states = inputs.representation if own == _FEATURES else seen.get(own)
            if states is None or states.shape[0] != len(inputs.batch):
                raise ConfigError(
                    f"The student's layer {own!r} gives nothing that can be compared, one answer a row: name others with `layers`."
                )
            total = total + (1.0 - kernel_alignment(states, guiding[layer]))
        return self.weight * total

    @torch.no_grad()
    def _guiding(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return what the guide's layers give for a batch, by path."""
        assert self.guide is not None, "bind comes first"
        if next(iter(batch.inputs.values())).device != next(self.guide.parameters()).device:
            self.guide.to(next(iter(batch.inputs.values())).device)
        asked: Mapping[str, Any] = batch.inputs
        if self.noise:
            # Of the step, so that a resumed run draws what the whole one drew.
            asked = noise_like(asked, torch.Generator().manual_seed((self._seed + step) % 2**63))
        with tapped_modules(self.guide, self._paths(0)) as found:
            features = self.guide(asked)
        return {**found, _FEATURES: features}

    def _paths(self, side: int) -> list[str]:
        return [pair[side] for pair in self.pairs if pair[side] != _FEATURES]
