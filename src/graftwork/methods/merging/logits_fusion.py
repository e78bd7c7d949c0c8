r"""Dynamic logits fusion: a large model that nobody tuned gets the skill of small tuned ones while it answers.

Paper: Fan et al., "On Giant's Shoulders: Effortless Weak to Strong by Dynamic Logits Fusion", NeurIPS 2024,
https://arxiv.org/abs/2406.15480. All models share one vocabulary. With the logits :math:`M_L` of the large model, :math:`M_S` of the
small one and :math:`M_{S_t}` of the small one tuned for task :math:`t`, the answer is

.. math:: \tilde P(\alpha) = \mathrm{softmax}\big(M_L + \sum_t \alpha_t (M_{S_t} - M_S)\big),

and :math:`\alpha` is found anew for every token: the large model is to be moved as far as the small ones were moved by their tuning,
:math:`\min_\alpha \sum_t [\mathrm{KL}(\tilde P(\alpha) \Vert P_L) - \mathrm{KL}(Q_t \Vert Q)]^2` with :math:`Q_t, Q` the softmax of
:math:`M_{S_t}, M_S`. For one task the left divergence grows with :math:`\alpha`, so that bisection finds the value; for several, one
expert at a time is tried, the others at 0, at every value of a grid.

Nothing is trained, and no gradient passes through a model. A choice among fixed answers, as a classifier has it, is a text of one
token. :class:`FusedLogits` is a logits processor as transformers' ``generate`` takes them.

The square and the direction of the divergences are from memory of the paper; there is no released code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from graftwork.core.errors import ConfigError

__all__ = ["FusedLogits", "divergence", "fused_logits", "fusion_coefficients"]

LogitsOf = Callable[[Tensor], Tensor]
"""Token ids ``[B, L]`` to the logits of the next token, ``[B, V]``."""
_HALVINGS = 40


def divergence(one: Tensor, two: Tensor) -> Tensor:
    r"""Return :math:`\mathrm{KL}(p \Vert q)` of the distributions of two sets of logits, float64 ``[...]``, at least 0.

    Args:
        one: Logits of ``p``, ``[..., V]``.
        two: Logits of ``q``, likewise. A token that both rule out (minus infinity) counts nothing.
    """
    p, q = (torch.log_softmax(logits.double(), dim=-1) for logits in (one, two))
    # Minus infinity on both sides is no number: such tokens have the probability 0.
    apart = torch.where(torch.isneginf(p), 0.0, p - q)
    return (p.exp() * apart).sum(dim=-1).clamp(min=0.0)


def fused_logits(large: Tensor, shifts: Tensor, coefficients: Tensor) -> Tensor:
    """Return the large model's logits moved by the small ones' shifts, ``[B, V]``.

    Args:
        large: ``[B, V]``.
        shifts: What tuning changed in the small model's logits, ``[T, B, V]``.
        coefficients: ``[B, T]``.
    """
    # A token that the small models rule out has no shift; infinity minus infinity is no number.
    return large + torch.einsum("bt,tbv->bv", coefficients.to(large.dtype), torch.nan_to_num(shifts, posinf=0.0, neginf=0.0))


def fusion_coefficients(large: Tensor, small: Tensor, experts: Tensor, *, largest: float = 2.0, step: float = 0.1) -> Tensor:
    """Return the coefficient of each expert for each row, ``[B, T]`` in float64, from 0 to ``largest``.

    With one expert it is exact up to rounding: the value at which both divergences are equal, or ``largest`` if there is none below.
    With several, one expert has a multiple of ``step`` and the others 0, whichever comes nearest; of equals the smallest value and
    the first expert.

    Args:
        large: Logits of the large model, ``[B, V]``.
        small: Those of the small one before tuning, ``[B, V]``: the very start of the experts.
        experts: Those of the tuned ones, ``[T, B, V]``.
        largest: Above 0.
        step: Of the grid, above 0.

    Raises:
        ConfigError: If shapes differ, or a number is out of range.
    """
    if large.shape != small.shape or experts.shape[1:] != large.shape or large.ndim != 2:
        raise ConfigError(
            f"Logits must share one vocabulary: large [B, V], small [B, V] and experts [T, B, V]; got {list(large.shape)}, "
            f"{list(small.shape)} and {list(experts.shape)}."
        )
    _check(largest, step)
    shifts = (experts - small).double()
    wanted = torch.stack([divergence(expert, small) for expert in experts])  # [T, B]
    large = large.double()
    if len(experts) == 1:
        return _bisected(large, shifts, wanted[0], largest).unsqueeze(1)
    values = torch.arange(1, round(largest / step) + 1, device=large.device, dtype=torch.float64) * step
    # No shift at all is on the grid as well: then the large model has not moved.
    best, found = wanted.square().sum(dim=0), torch.zeros(len(large), len(experts), dtype=torch.float64, device=large.device)
    for number in range(len(experts)):
        one_hot = torch.zeros_like(found)
        one_hot[:, number] = 1.0
        # One value at a time: all at once would hold as many vocabularies.
        for value in values:
            moved = divergence(fused_logits(large, shifts, value * one_hot), large)
            miss = (moved.unsqueeze(0) - wanted).square().sum(dim=0)
            better = miss < best
            best = torch.where(better, miss, best)
            found = torch.where(better.unsqueeze(1), value * one_hot, found)
    return found


def _bisected(large: Tensor, shifts: Tensor, wanted: Tensor, largest: float) -> Tensor:
    """Return ``[B]``: where the divergence of one expert reaches what is wanted."""
    low, high = torch.zeros_like(wanted), torch.full_like(wanted, largest)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        is_short = divergence(fused_logits(large, shifts, middle.unsqueeze(1)), large) < wanted
        low, high = torch.where(is_short, middle, low), torch.where(is_short, high, middle)
    # An expert that changed nothing moves nothing; rounding must not decide.
    return torch.where(wanted > 1e-12, (low + high) / 2.0, 0.0)


def _check(largest: float, step: float) -> None:
    for name, value in (("largest", largest), ("step", step)):
        if not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"{name} must be a number above 0; got {value!r}.")
    if step > largest:
        raise ConfigError(f"step must not be above largest; got {step!r} and {largest!r}.")


class FusedLogits:
    """Moves the logits of a large model by what tuning changed in small ones, token by token.

    Hand it to ``generate(logits_processor=LogitsProcessorList([...]))`` of the large model, or call it with the tokens so far and the
    large model's logits. :attr:`coefficients` are those of the last token.

    Args:
        small: The small model before tuning: token ids ``[B, L]`` to the next token's logits ``[B, V]``.
        experts: The tuned ones, at least one, likewise.
        fixed: One coefficient for all experts and tokens (proxy tuning); None finds them anew for every token.
        largest: See :func:`fusion_coefficients`.
        step: Likewise.

    Raises:
        ConfigError: If there is no expert, or a number is out of range.
    """

    def __init__(
        self,
        small: LogitsOf,
        experts: Sequence[LogitsOf],
        *,
        fixed: float | None = None,
        largest: float = 2.0,
        step: float = 0.1,
    ) -> None:
        if not experts:
            raise ConfigError("Logits fusion needs at least one tuned model; got none.")
        if fixed is not None and not math.isfinite(fixed):
            raise ConfigError(f"fixed must be a finite number or None; got {fixed!r}.")
        _check(largest, step)
        self.small, self.experts = small, tuple(experts)
        self.fixed, self.largest, self.step = fixed, largest, step
        self.coefficients: Tensor | None = None

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the moved logits ``[B, V]``.

        Args:
            input_ids: Tokens so far, ``[B, L]``.
            scores: Logits of the large model for the next token, ``[B, V]``.

        Raises:
            ConfigError: If a small model has another vocabulary.
        """
        small, experts = self.small(input_ids), torch.stack([expert(input_ids) for expert in self.experts])
        if self.fixed is None:
            self.coefficients = fusion_coefficients(scores, small, experts, largest=self.largest, step=self.step)
        else:
            self.coefficients = torch.full(
                (len(scores), len(self.experts)), self.fixed, dtype=torch.float64, device=scores.device
            )
        return fused_logits(scores, experts - small, self.coefficients)
