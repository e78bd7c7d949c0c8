r"""Rep-MTL: two regularisers on the gradients of the task losses with respect to the shared representation.

Paper: Wang, Li and Xu, "Rep-MTL: Unleashing the Power of Representation-level Task Saliency for Multi-Task Learning", ICCV 2025,
https://arxiv.org/abs/2507.21049. With the shared features :math:`Z`, ``[B, C, H, W]``, the saliency of task :math:`t` is
:math:`S_t = \partial L_t / \partial Z` (equation 3), kept in the graph so that the terms below can be differentiated.

- **TSR**, task-specific saliency regulation (equations 4 to 6): the mean of :math:`S_t` over channels, its absolute value
  normalised over the tasks
  at each location, and the entropy of that distribution, mean over batch and locations. Minimised: one task dominates each
  location.
- **CSA**, cross-task saliency alignment (equations 7 to 9): the affinity :math:`M_t = S_t S_t^\top` of each sample and task,
  ``[C, C]``, and the anchor
  :math:`A_b A_b^\top` of each sample, where :math:`A_b`, ``[C, T]``, holds the spatial means of the saliencies. By cosine,
  anchors are drawn to the affinities of their own sample (positives, mean over tasks) and pushed from the anchors of the other
  samples (negatives):
  :math:`-\log \exp(\cos(z^a_b, z^t_b)/\tau) / \sum_{k \neq b} \exp(\cos(z^a_b, z^a_k)/\tau)`.

The total is :math:`\sum_t L_t + \lambda_{tsr} L_{tsr} + \lambda_{csa} L_{csa}` (equation 10), both factors 1.

What the paper leaves open, and what is done here: the temperature is not given (0.5); that the anchor keeps the tasks as columns
is read from figure 2; the paper's experiments have every label of every sample, here a task without labels for a sample has no
positive for it and a sample without any is no negative; a batch of one sample has no negatives and its CSA is 0. Cosines of
``[C, C]`` affinities are computed from inner products, :math:`\langle X X^\top, Y Y^\top \rangle = \lVert X^\top Y \rVert^2`, so
that no such matrix is built for wide vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.interfaces.objective import Objective, ObjectiveInputs
from graftwork.methods.optimization.log_losses import floored
from graftwork.methods.optimization.task_graph import gradients_from, loss_roots

__all__ = ["RepMTL", "alignment_loss", "regulation_loss", "task_saliencies"]

TINY = 1e-12


class RepMTL(Objective):
    """Saliency regulation and alignment, added to whatever balances the task losses.

    Heads need smooth activations (GELU, not ReLU): the terms act through second derivatives of the losses.

    Args:
        lambda_tsr: Factor of the regulation term, at least 0; 0 leaves it out.
        lambda_csa: Factor of the alignment term, at least 0; 0 leaves it out.
        temperature: :math:`\\tau` of the alignment, above 0.
        log_losses: Whether saliencies are those of the logarithms of the losses, as the paper's appendix has it: tasks then count
            alike whatever the scale of their loss. The balancer is to sum logarithms too
            (:class:`~graftwork.methods.optimization.log_losses.LogLosses`).
        moves: What the terms move: ``"trunk"``, the shared parameters only, along the path through the representation; or
            ``"all"``, the heads as well, which can then lower the terms by themselves.

    Raises:
        ConfigError: If a setting is out of range.
    """

    def __init__(
        self,
        lambda_tsr: float = 1.0,
        lambda_csa: float = 1.0,
        temperature: float = 0.5,
        moves: Literal["trunk", "all"] = "trunk",
        log_losses: bool = False,
    ) -> None:
        for name, value in (("lambda_tsr", lambda_tsr), ("lambda_csa", lambda_csa)):
            if not value >= 0:
                raise ConfigError(f"`{name}` must be at least 0; got {value!r}.")
        if not temperature > 0:
            raise ConfigError(f"`temperature` must be above 0; got {temperature!r}.")
        if moves not in ("trunk", "all"):
            raise ConfigError(f"`moves` must be 'trunk' or 'all'; got {moves!r}.")
        self.moves, self.log_losses = moves, log_losses
        self.lambda_tsr, self.lambda_csa, self.temperature = float(lambda_tsr), float(lambda_csa), float(temperature)

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        """Return the weighted sum of both terms; it can be differentiated with respect to trunk and heads.

        Raises:
            ConfigError: If the model has no shared representation that learns.
        """
        representation = inputs.representation
        if representation is None or not representation.requires_grad:
            what = "this model has none" if representation is None else "this model's is fixed (a frozen backbone?)"
            raise ConfigError(
                f"Rep-MTL needs a representation that all tasks share and that learns; {what}. Choose another plan."
            )
        saliencies = task_saliencies(inputs.losses, representation)
        if self.log_losses:
            # d log L = dL / L, with the graph of L: the terms see that a falling loss weighs more. Tasks without labels stay 0.
            saliencies = saliencies / floored(inputs.losses).view(-1, 1, 1, 1)
        total = saliencies.new_zeros(())
        if self.lambda_tsr > 0:
            total = total + self.lambda_tsr * regulation_loss(saliencies)
        if self.lambda_csa > 0:
            total = total + self.lambda_csa * alignment_loss(saliencies, self.temperature)
        if self.moves == "all" or not total.requires_grad:
            return total
        # moves = "trunk": heads must not lower the terms themselves, so only the path through the representation counts.
        (slope,) = torch.autograd.grad(total, [representation], retain_graph=True, allow_unused=True)
        if (
            slope is None
        ):  # heads that are linear in the representation up to the loss, and a loss that is linear: nothing to move
            return total.detach()
        # Value of `total`, gradient of `linear`: the slope goes into the trunk and nowhere else.
        linear = (slope.detach() * representation).sum()
        return total.detach() + linear - linear.detach()


def task_saliencies(losses: Tensor, representation: Tensor) -> Tensor:
    """Return the gradients of the losses with respect to the representation, part of the graph.

    Args:
        losses: ``[T]``.
        representation: Vectors ``[B, C]``, tokens ``[B, N, C]`` or maps ``[B, C, H, W]``.

    Returns:
        ``[T, B, C, N]``, with ``N`` locations: 1 for vectors, ``H * W`` for maps. Zero for a task without labels.
    """
    rows: list[Tensor] = []
    for root in loss_roots(losses):
        gradient = None if root is None else gradients_from(root, [representation], losses, create_graph=True)[0]
        rows.append(torch.zeros_like(representation) if gradient is None else gradient)
    return torch.stack([_channels_by_locations(row) for row in rows])


def _channels_by_locations(gradient: Tensor) -> Tensor:
    if gradient.ndim == 2:
        return gradient.unsqueeze(2)
    # Tokens are [B, N, C], maps [B, C, H, W]: both to [B, C, N].
    return gradient.transpose(1, 2) if gradient.ndim == 3 else gradient.flatten(2)


def regulation_loss(saliencies: Tensor) -> Tensor:
    """Return the mean entropy over locations of how saliency is spread over the tasks, in ``[0, log T]``.

    Args:
        saliencies: ``[T, B, C, N]``.
    """
    # [T, B, N]
    spatial = saliencies.mean(dim=2).abs()
    smallest = torch.finfo(spatial.dtype).tiny
    # Saliencies are as small as gradients of means: only the smallest number of the type is a safe floor.
    share = spatial / spatial.sum(dim=0, keepdim=True).clamp(min=smallest)
    return -(share * torch.log(share + TINY)).sum(dim=0).mean()


def alignment_loss(saliencies: Tensor, temperature: float = 0.5) -> Tensor:
    """Return the contrast of anchors with their own sample's affinities against other samples' anchors.

    Args:
        saliencies: ``[T, B, C, N]``.
        temperature: Divides all cosines.

    Returns:
        A scalar, unbounded below because positives are not part of the denominator; 0 for a batch of one.
    """
    num_samples = saliencies.shape[1]
    if num_samples < 2:
        return saliencies.new_zeros(())
    # A positive factor for each task and sample, which cosines of affinities do not see.
    scaled = _unit_scale(saliencies, dims=(2, 3))
    anchors = _unit_scale(saliencies.mean(dim=3).permute(1, 2, 0), dims=(1, 2))  # [B, C, T]
    anchor_norms = _affinity_norm(anchors)
    # Squared norm of S^T A over all columns: the inner product of the two affinities.
    positive = torch.einsum("tbcn,bck->tbnk", scaled, anchors).square().sum(dim=(2, 3))
    positive = positive / (_affinity_norm(scaled) * anchor_norms).clamp(min=TINY)  # cosines, [T, B]
    between = torch.einsum("bct,kcu->bktu", anchors, anchors).square().sum(dim=(2, 3))
    between = between / (anchor_norms.unsqueeze(1) * anchor_norms).clamp(min=TINY)  # cosines, [B, B]
    labelled = saliencies.detach().flatten(2).any(dim=2)  # [T, B]
    counts = labelled.any(dim=0)
    itself = torch.eye(num_samples, dtype=torch.bool, device=saliencies.device)
    usable = counts.unsqueeze(0) & ~itself
    contrasted = counts & usable.any(dim=1)
    # Rows without a negative would be log(0); they are filled before the logarithm and left out after it.
    masked = (between / temperature).masked_fill(~(usable | ~contrasted.unsqueeze(1)), -torch.inf)
    negatives = torch.logsumexp(masked, dim=1)
    mean_positive = (positive * labelled).sum(dim=0) / labelled.sum(dim=0).clamp(min=1)  # [B]
    per_sample = torch.where(contrasted, negatives - mean_positive / temperature, torch.zeros_like(negatives))
    return per_sample.sum() / contrasted.sum().clamp(min=1)


def _unit_scale(tensor: Tensor, dims: Sequence[int]) -> Tensor:
    """Divide by a constant norm: cosines stay the same, and fourth powers of tiny gradients do not underflow."""
    norm = tensor.detach().square().sum(dim=tuple(dims), keepdim=True).sqrt()
    return tensor / torch.where(norm > 0, norm, torch.ones_like(norm))


def _affinity_norm(factor: Tensor) -> Tensor:
    """Return the Frobenius norm of ``X @ X.T`` for ``X`` in ``[..., C, N]``, from whichever of both Gram matrices is smaller."""
    transposed = factor.transpose(-1, -2)
    gram = factor @ transposed if factor.shape[-2] <= factor.shape[-1] else transposed @ factor
    return torch.linalg.vector_norm(gram, dim=(-2, -1))
