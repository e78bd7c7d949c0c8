"""Continual learning on the one training loop: a loop for each experience of a stream, with an optimiser of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.interfaces.callback import Callback
from graftwork.interfaces.continual_method import ContinualMethod
from graftwork.interfaces.stream import Experience, Stream
from graftwork.training.config import LoopConfig
from graftwork.training.loop import Loop

__all__ = ["learn_stream"]


def learn_stream(
    method: ContinualMethod,
    stream: Stream,
    *,
    batch_size: int,
    config: LoopConfig,
    seeds: Seeds,
    callbacks: Sequence[Callback] = (),
    device: torch.device | str = "cpu",
    after: Callable[[Experience], None] | None = None,
) -> None:
    """Learn all experiences in order; equal arguments give equal weights.

    Optimiser, schedule and the loop's random stream begin anew with each experience. Averaged weights (``ema_decay``) would have
    to go back into the model between experiences, and are refused.

    Args:
        method: What learns; its model is trained in place.
        stream: What it learns from.
        batch_size: Rows a step.
        config: Settings of each loop; ``max_steps`` is the number of steps of one experience.
        seeds: Root of the random streams; those of experience ``n`` lie below ``experience/n``.
        callbacks: Called after each step of every experience.
        device: Where the model lives.
        after: Called when an experience was learned, with the model in evaluation mode: time to measure. Whatever it draws from
            torch's global generator changes nothing of what follows.

    Raises:
        ConfigError: If the settings average weights, the method refuses, or nothing learns.
        TrainingDivergedError: If a loss, a gradient or a weight became NaN or infinite.
    """
    if config.ema_decay > 0:
        raise ConfigError(f"Streams are learned without averaged weights: set ema_decay to 0; got {config.ema_decay:g}.")
    cuda = [torch.device(device)] if torch.device(device).type == "cuda" else []
    for experience in stream:
        own = seeds.child(f"experience/{experience.number}")
        # New heads draw their first weights from the global generator.
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(own.integer("begin"))
            step = method.begin(experience)
        suite = experience.suite
        batches = BatchStream(suite, suite.splits["train"], batch_size, own.integer("batches"), device=device)
        loop = Loop(step, method.source(experience, batches), config=config, seeds=own, callbacks=callbacks, device=device)
        loop.train(config.max_steps)
        # Called for its side effect, evaluation mode: `end` may measure the model.
        loop.eval_model()
        method.end(experience)
        method.model.eval()  # `end` may have run the model in another mode
        if after is not None:
            with torch.random.fork_rng(devices=cuda):
                after(experience)
