"""StainDiffuser: a diffusion model draws the second stain of a tissue, and learns to draw the mask of its stained cells as well.

Paper: Kataria et al., "StainDiffuser: MultiTask Dual Diffusion Model for Virtual Staining", https://arxiv.org/abs/2403.11340.

Symbols: ``E(h)`` is ``encoder``; ``eps_y`` and ``eps_m`` are ``branches``; ``lambda`` is the weight of the mask's loss in
:class:`DualDiffusionStep`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.interfaces.generator import Generator
from graftwork.interfaces.train_step import TrainStep
from graftwork.math.diffusion import cosine_schedule, linear_schedule, sample
from graftwork.nn.unet import PictureEncoder, UNet

__all__ = ["DualDiffusionStep", "StainDiffuser"]

Predicts = Literal["clean", "velocity", "noise"]
Schedule = Literal["cosine", "linear"]


class StainDiffuser(nn.Module, Generator):
    """One denoising U-Net for each output, all of them conditioned on the features of one shared encoder.

    A branch reads its own noisy picture, the step and the encoder's features: nothing of another branch. So the mask shapes the
    stain by what it teaches the encoder in training, and no mask is there when the stain is drawn.

    Args:
        channels: Channels of each output by name, the main one first; an output of one channel is a map ``[B, H, W]``, others are
            pictures ``[B, C, H, W]``. One output gives the single-task model.
        widths: Channels of the branches at each scale, finest first.
        condition_widths: Channels of the encoder at each scale; empty takes ``widths``.
        patch: Pixels a side that the finest scale takes together.
        predicts: What the branches predict: the clean picture, the velocity ``sqrt(kept) noise - sqrt(1 - kept) clean``, or the
            noise as in the paper. A narrow network can pass on a picture, but not the noise of all pixels of a patch.
        schedule: Noise levels.
        num_steps: Length of the chain in training.
        sampler_steps: Steps that the sampler takes, at most ``num_steps``.
        eta: Fresh noise of the sampler: 0 is DDIM, 1 with all steps is DDPM; in [0, 1].

    Raises:
        ConfigError: If a setting is out of range; all problems at once.
    """

    condition_names = ("image",)

    def __init__(
        self,
        channels: Mapping[str, int] | None = None,
        *,
        widths: Sequence[int] = (24, 32, 48),
        condition_widths: Sequence[int] = (),
        patch: int = 2,
        predicts: Predicts = "clean",
        schedule: Schedule = "cosine",
        num_steps: int = 1000,
        sampler_steps: int = 20,
        eta: float = 0.0,
    ) -> None:
        super().__init__()
        channels = {"stain": 3, "mask": 1} if channels is None else channels
        condition_widths = tuple(condition_widths) or tuple(widths)
        problems = [f"channels names at least one output, with at least 1 channel each; got {dict(channels)!r}."]
        problems = problems if not channels or min(channels.values()) < 1 else []
        if not widths or min(*widths, *condition_widths, patch) < 1 or len(condition_widths) != len(widths):
            problems.append(
                f"widths, condition_widths (one for each width) and patch are at least 1; got {list(widths)}, "
                f"{list(condition_widths)} and {patch}."
            )
        for name, value, allowed in (("predicts", predicts, get_args(Predicts)), ("schedule", schedule, get_args(Schedule))):
            if value not in allowed:
                problems.append(f"{name} must be one of {', '.join(allowed)}; got {value!r}.")
        if not 1 <= sampler_steps <= num_steps:
            problems.append(f"sampler_steps must be 1 to num_steps ({num_steps}); got {sampler_steps!r}.")
        if not 0 <= eta <= 1:
            problems.append(f"eta must be in [0, 1]; got {eta!r}.")
        if problems:
            raise ConfigError("The dual diffusion model cannot be built.", problems)
        self.outputs, self.channels = tuple(channels), dict(channels)
        self.predicts, self.sampler_steps, self.eta = predicts, sampler_steps, float(eta)
        self.process = cosine_schedule(num_steps) if schedule == "cosine" else linear_schedule(num_steps)
        # Every scale but the first halves the picture; its sides must divide evenly down to the coarsest one.
        self.side = patch * 2 ** (len(widths) - 1)
        self.encoder = PictureEncoder(3, condition_widths, patch=patch)
        self.branches = nn.ModuleDict(
            {name: UNet(n, n, widths, condition_widths=condition_widths, patch=patch) for name, n in channels.items()}
        )

    def encode(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the features of the condition at each scale; computed once for all outputs and steps.

        Args:
            inputs: ``image``, uint8 ``[B, H, W, 3]``.

        Raises:
            ConfigError: If the picture is missing or its sides do not fit the scales.
        """
        if "image" not in inputs:
            raise ConfigError(f"The condition is the input 'image'; got {', '.join(inputs) or 'no input'}.")
        picture = inputs["image"]
        if any(side % self.side for side in picture.shape[1:3]):
            raise ConfigError(
                f"Height and width must be multiples of {self.side} for this many scales; got {tuple(picture.shape[1:3])}. "
                "Change the picture's size, widths or patch."
            )
        # [B, H, W, 3] in 0..255 to [B, 3, H, W] in [-1, 1], the range of the noised pictures.
        features: list[Tensor] = self.encoder(picture.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0)
        return features

    def denoise(self, output: str, noisy: Tensor, step: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Return what the branch of an output predicts (see ``predicts``), like ``noisy``: ``[B, C, H, W]`` at steps ``[B]``."""
        predicted: Tensor = self.branches[output](noisy, step, features)
        return predicted

    def clean(self, output: str, noisy: Tensor, step: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Return what the branch of an output takes for the clean picture behind ``noisy``."""
        predicted = self.denoise(output, noisy, step, features)
        if self.predicts == "clean":
            return predicted
        noise = predicted if self.predicts == "noise" else self.process.noise_from_velocity(noisy, predicted, step)
        return self.process.clean_from_noise(noisy, noise, step)

    @torch.no_grad()
    def sample(
        self,
        inputs: Mapping[str, Tensor],
        outputs: Sequence[str] | None = None,
        *,
        count: int | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Draw outputs in [0, 1] for pictures of the first stain; see :meth:`graftwork.interfaces.generator.Generator.sample`.

        What is drawn for an output does not depend on which others are asked for.
        """
        wanted = self.outputs[:1] if outputs is None else tuple(outputs)
        if unknown := [name for name in wanted if name not in self.outputs]:
            raise ConfigError(f"There is no output {', '.join(map(repr, unknown))}; the outputs are {', '.join(self.outputs)}.")
        features = self.encode(inputs)
        batch, height, width = inputs["image"].shape[:3]
        # A stream for each output, drawn whether it is asked for or not.
        seeds = {name: int(torch.randint(2**62, (), generator=generator)) for name in self.outputs}
        drawn = {}
        for name in wanted:
            own = torch.Generator().manual_seed(seeds[name])
            start = torch.randn((batch, self.channels[name], height, width), generator=own).to(features[0].device)

            # `name` as a default value: a closure would see the last name of the loop.
            def predict(noisy: Tensor, step: Tensor, name: str = name) -> Tensor:
                return self.clean(name, noisy, step, features)

            clean = sample(predict, start, self.process, num_steps=self.sampler_steps, eta=self.eta, generator=own)
            # The chain works in [-1, 1], targets are in [0, 1].
            value = (clean + 1.0) / 2.0
            drawn[name] = value.squeeze(1) if self.channels[name] == 1 else value
        return drawn


class DualDiffusionStep(TrainStep[Batch]):
    """The sum of one denoising loss for each output, each with steps and noise of its own.

    Rows without a target count nothing in the loss of that output. Targets are in [0, 1].

    Args:
        model: What is trained.
        weights: Weight of the loss of each output, above 0 (``lambda`` of the mask); outputs that are not named weigh 1.

    Raises:
        ConfigError: If a weight is of no output or not above 0.
    """

    def __init__(self, model: StainDiffuser, *, weights: Mapping[str, float] | None = None) -> None:
        self.model: StainDiffuser = model
        self.loss_names = model.outputs
        given = dict(weights or {})
        if wrong := [f"{name} = {value!r}" for name, value in given.items() if name not in model.outputs or not value > 0]:
            raise ConfigError(f"Weights of losses are above 0, for {', '.join(model.outputs)}; got {', '.join(wrong)}.")
        self.weights = {name: float(given.get(name, 1.0)) for name in model.outputs}

    def backward(self, batch: Batch, step: int) -> Tensor:
        """Write the gradients of the weighted sum; return the losses without weights."""
        features = self.model.encode(batch.inputs)
        losses = [self.loss(name, batch, features) for name in self.loss_names]
        torch.stack([self.weights[name] * loss for name, loss in zip(self.loss_names, losses)]).sum().backward()
        return torch.stack(losses).detach()

    def loss(self, name: str, batch: Batch, features: Sequence[Tensor]) -> Tensor:
        """Return the denoising loss of one output, given the encoder's features; draws from torch's global generator."""
        target, known = batch.targets[name], batch.mask[name]
        if self.model.channels[name] == 1 and target.ndim == 3:
            target = target.unsqueeze(1)
        # [B] to [B, 1, 1, 1]
        row_known = known.reshape(-1, 1, 1, 1)
        # Missing targets are replaced before anything is computed: NaN times zero would still be NaN.
        clean = torch.where(row_known, target.to(torch.float32), 0.5) * 2.0 - 1.0
        process = self.model.process
        steps = torch.randint(len(process), (len(clean),), device=clean.device)
        # Drawn for rows without a target too: the random stream must not depend on labels.
        noise = torch.randn_like(clean)
        noisy = process.add_noise(clean, noise, steps)
        wanted = {"clean": clean, "noise": noise}.get(self.model.predicts)
        wanted = process.velocity(clean, noise, steps) if wanted is None else wanted
        errors = (self.model.denoise(name, noisy, steps, features) - wanted).square().flatten(1).mean(dim=1)
        return (errors * known).sum() / known.sum().clamp(min=1)
