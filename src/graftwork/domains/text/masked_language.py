"""Masked language modelling: some tokens of a text are hidden, and an encoder learns to name them.

Paper: Devlin et al., "BERT", NAACL 2019, https://arxiv.org/abs/1810.04805 (section 3.1). Hidden are 15 % of the tokens; of these, 80 %
become the mask, 10 % another token and 10 % stay. The output layer is not tied to the embeddings, so that a language can be learned
while the output layer stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.train_step import TrainStep

__all__ = ["HiddenTokens", "MaskedLanguageModel", "MaskedLanguageStep", "MaskedTexts", "hide_tokens"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class HiddenTokens:
    """A batch of texts of which some tokens are hidden."""

    tokens: Tensor
    """int64 ``[B, length]``, as the encoder reads them."""
    hidden: Tensor
    """The tokens that are hidden, int64 ``[B, length]``; -1 where none is."""

    def __len__(self) -> int:
        return len(self.tokens)


def hide_tokens(
    texts: Array, draw: np.random.Generator, *, mask: int, first: int, num_tokens: int, share: float = 0.15
) -> HiddenTokens:
    """Hide some tokens of each text.

    Args:
        texts: int64 ``[B, length]``.
        draw: Says which, and what stands in their place.
        mask: Code of the mask.
        first: Codes from this one on can be hidden; those below are padding and the like.
        num_tokens: Number of codes.
        share: Probability of being hidden, in (0, 1]; at least one token of the batch is.
    """
    words = texts >= first
    hidden = words & (draw.random(texts.shape) < share)
    if not hidden.any() and words.any():
        hidden.flat[np.flatnonzero(words)[draw.integers(words.sum())]] = True
    fate = draw.random(texts.shape)
    other = draw.integers(first, num_tokens, size=texts.shape)
    shown = np.where(hidden & (fate < 0.8), mask, np.where(hidden & (fate >= 0.9), other, texts))
    return HiddenTokens(torch.from_numpy(shown), torch.from_numpy(np.where(hidden, texts, -1)))


class MaskedTexts:
    """Batches of texts with hidden tokens, a pure function of the step: a source of a :class:`~graftwork.training.loop.Loop`.

    Args:
        texts: int64 ``[N, length]`` of each language.
        shares: Probability that a text of a batch is of each language; they sum to 1.
        batch_size: Texts a step.
        seed: Draws texts and what is hidden.
        mask: See :func:`hide_tokens`, likewise the next two.
        first: First code that can be hidden.
        num_tokens: Number of codes.
        share: Probability that a token is hidden.

    Raises:
        ConfigError: If there is not one share a language, or they do not sum to 1.
    """

    def __init__(
        self,
        texts: Sequence[Array],
        shares: Sequence[float],
        batch_size: int,
        seed: int,
        *,
        mask: int,
        first: int,
        num_tokens: int,
        share: float = 0.15,
    ) -> None:
        if len(texts) != len(shares) or min(shares, default=-1.0) < 0 or abs(sum(shares) - 1.0) > 1e-6:
            raise ConfigError(
                f"`shares` must be one probability for each of {len(texts)} languages and sum to 1; got {list(shares)}."
            )
        self.texts, self.shares, self.batch_size, self.seed = list(texts), list(shares), batch_size, seed
        self.codes: dict[str, Any] = {"mask": mask, "first": first, "num_tokens": num_tokens, "share": share}

    def batch(self, step: int) -> HiddenTokens:
        """Return the batch of a step."""
        draw = Seeds(self.seed).numpy(f"texts/{step}")
        counts = draw.multinomial(self.batch_size, self.shares)
        rows = [texts[draw.integers(len(texts), size=count)] for texts, count in zip(self.texts, counts, strict=True) if count]
        return hide_tokens(np.concatenate(rows), draw, **self.codes)


class MaskedLanguageModel(nn.Module):
    """An encoder, and what names hidden tokens from its states: a linear layer, GELU, a norm, and the output layer.

    Args:
        encoder: Gives tokens ``[B, length, width]`` from ``tokens``.
        width: Width of its states.
        num_tokens: Number of codes.
    """

    def __init__(self, encoder: Backbone, width: int, num_tokens: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, num_tokens))
        self.unchanged: Callable[[Tensor], Tensor] | None = None
        """Put between encoder and head, where an encoder changes its embeddings by what has an inverse (MAD-X)."""

    def loss(self, batch: HiddenTokens) -> Tensor:
        """Return the mean cross-entropy of the hidden tokens."""
        states = self.encoder({"tokens": batch.tokens})
        known = batch.hidden >= 0
        read = states[known] if self.unchanged is None else self.unchanged(states[known])
        return F.cross_entropy(self.head(read), batch.hidden[known])


class MaskedLanguageStep(TrainStep[HiddenTokens]):
    """One step of masked language modelling; what requires a gradient in the model learns.

    Args:
        model: The model.
        penalty: Added to the loss, if given: a scalar with a graph.
    """

    loss_names = ("hidden tokens",)

    def __init__(self, model: MaskedLanguageModel, penalty: Callable[[], Tensor] | None = None) -> None:
        self.model: MaskedLanguageModel = model
        self.penalty = penalty

    def backward(self, batch: HiddenTokens, step: int) -> Tensor:
        """Write gradients; return the loss without the penalty, ``[1]``."""
        loss = self.model.loss(batch)
        (loss if self.penalty is None else loss + self.penalty()).backward()
        return loss.detach().unsqueeze(0)
