r"""AutoTransfer: which designs to try first on a new task, from the best designs of similar tasks.

Paper: Cao, You, Liu and Leskovec, "AutoTransfer: AutoML with Knowledge Transfer - An Application to Graph Neural Networks", ICLR 2023,
https://arxiv.org/abs/2303.07669. A bank holds the scores of the same designs on many tasks. Two tasks are truly similar as far as they
rank designs alike (Kendall's tau). A cheap feature stands in for a task that has no scores: for each of a few anchor designs with random
weights, only the last layer is fitted, and the squared gradients :math:`g^2` of the body for labels drawn from the network's own answers
give the scalar :math:`\overline{(g^2)^2} / (\overline{g^2})^2`, which does not depend on the scale of the gradients; it is averaged over
initialisations. A small network maps features to embeddings whose cosines are ordered as the true similarities (margin ranking loss on
triples). The prior of a new task is, for each choice of a design apart, the mean frequency among the best designs of the nearest tasks,
weighted by the inverse of their distances.

Departures from the released script: gradients are cleared in every step of the projection, and distances are taken of the bank's own
tasks; distances are bounded from below, so that no task decides alone. The held-out task must be left out by whoever hands in the bank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.seeds import Seeds

__all__ = ["DesignPrior", "TaskProjection", "anchor_feature", "design_prior", "fisher_scalar", "rank_similarities"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_LEAST_DISTANCE = 1e-3


def rank_similarities(scores: Floats) -> Floats:
    """Return Kendall's tau of all pairs of tasks, ``[N, N]``.

    Args:
        scores: Of the same designs on all tasks, ``[N, designs]``, higher is better.
    """
    from scipy.stats import kendalltau

    count = len(scores)
    found = np.eye(count)
    for one in range(count):
        for two in range(one):
            tau = float(kendalltau(scores[one], scores[two]).statistic)
            # A task on which all designs are equal orders nothing.
            found[one, two] = found[two, one] = 0.0 if np.isnan(tau) else tau
    return found


def fisher_scalar(squares: Sequence[Tensor]) -> float:
    """Return the mean square over the squared mean of all squared gradients: at least 1, and 1 if all are equal.

    Args:
        squares: Accumulated squared gradients of the weights of the body.

    Raises:
        DataError: If all are 0.
    """
    flat = torch.cat([part.reshape(-1).double() for part in squares])
    mean = float(flat.mean())
    if not mean > 0:
        raise DataError("No gradient reaches the body of an anchor: its task cannot be described.")
    # Scaled first: squares of squares of small gradients would vanish.
    return float(((flat / mean) ** 2).mean())


def anchor_feature(
    body: nn.Module,
    states: Callable[[], Tensor],
    labels: Tensor,
    train: Tensor,
    held_out: Tensor,
    classes: int,
    *,
    draws: int = 32,
    steps: int = 100,
    generator: torch.Generator,
) -> float:
    """Return the scalar of a task for one anchor with the weights that it has.

    Args:
        body: Everything below the last layer; it is not changed.
        states: Returns the inputs of the last layer for all rows, ``[n, width]``.
        labels: ``[n]``, of which those of the training rows are looked at.
        train: Numbers of the rows that the last layer is fitted on.
        held_out: Numbers of the rows whose gradients count.
        classes: Number of classes.
        draws: Times that labels are drawn; few of them make the scalar noisy.
        steps: Most steps of the last layer; it stops once ten of them did not lower the loss.
        generator: Draws the last layer and the labels.
    """
    with torch.no_grad():
        cached = states()
    width = cached.shape[1]
    weight = torch.randn(classes, width, generator=generator).mul_(width**-0.5).requires_grad_()
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=1e-2, weight_decay=1e-4, fused=True)
    best, waited = float("inf"), 0
    for _ in range(steps):
        loss = F.cross_entropy(F.linear(cached[train], weight, bias), labels[train])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        value = float(loss.detach())
        best, waited = (value, 0) if value < best * (1 - 1e-4) else (best, waited + 1)
        if waited > 10:
            break
    # Matrices alone, as in the authors' code; biases have gradients of another size.
    parameters = [parameter for parameter in body.parameters() if parameter.ndim > 1]
    # The body stands still: one pass forward and one batched pass backward serve all draws.
    logits = F.linear(states()[held_out], weight.detach(), bias.detach())
    answers = logits.detach().softmax(dim=1)
    drawn = torch.multinomial(answers, draws, replacement=True, generator=generator)
    # Of the mean cross-entropy, with respect to the logits: [draws, rows, classes].
    slopes = (answers - F.one_hot(drawn.T, classes)) / len(answers)
    gradients = torch.autograd.grad(logits, parameters, slopes, is_grads_batched=True)
    squares = [(gradient**2).sum(dim=0) for gradient in gradients]
    return fisher_scalar(squares)


class TaskProjection:
    """Maps features of tasks to embeddings whose cosines are ordered like the true similarities.

    Args:
        features: Of the bank's tasks, ``[N, M]``; each is brought to unit length.
        similarities: True ones, ``[N, N]``.
        steps: Steps of 128 triples.
        rate: Learning rate of Adam.
        margin: Of the ranking loss.
        seed: Draws weights and triples.

    Raises:
        DataError: If there are fewer than three tasks, or shapes do not fit.
    """

    def __init__(
        self, features: Floats, similarities: Floats, *, steps: int = 1000, rate: float = 1e-4, margin: float = 0.1, seed: int = 0
    ) -> None:
        count = len(features)
        if count < 3 or similarities.shape != (count, count):
            raise DataError(f"Triples need three tasks with their similarities; got {features.shape} and {similarities.shape}.")
        seeds = Seeds(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seeds.integer("weights"))
            self._network = nn.Sequential(nn.Linear(features.shape[1], 16), nn.ReLU(), nn.Linear(16, 16))
        self._bank = _unit_rows(features)
        optimizer = torch.optim.Adam(self._network.parameters(), lr=rate, weight_decay=5e-3)
        random = seeds.numpy("triples")
        for _ in range(steps):
            triples = np.argsort(random.random((128, count)), axis=1)[:, :3]
            one, two, three = triples.T
            closer = similarities[one, two] - similarities[one, three]
            near, far = torch.from_numpy(np.where(closer >= 0, two, three)), torch.from_numpy(np.where(closer >= 0, three, two))
            own = self._embed(self._bank)
            anchor = own[torch.from_numpy(one)]
            gap = (anchor * own[near]).sum(dim=1) - (anchor * own[far]).sum(dim=1)
            # Equal similarities order nothing.
            loss = (F.relu(margin - gap) * torch.from_numpy(closer != 0)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def _embed(self, rows: Tensor) -> Tensor:
        return F.normalize(self._network(rows), dim=1)

    @torch.no_grad()
    def distances(self, features: Floats) -> Floats:
        """Return one minus the cosine with each task of the bank, ``[N]``, of a task's features ``[M]``."""
        found = self._embed(_unit_rows(features[None])) @ self._embed(self._bank).T
        return (1.0 - found[0]).double().numpy()


def _unit_rows(features: Floats) -> Tensor:
    rows = torch.from_numpy(np.asarray(features, dtype=np.float32))
    return F.normalize(rows, dim=1)


@dataclass(frozen=True, slots=True)
class DesignPrior:
    """Probabilities of the choices of a design, each choice apart.

    Raises:
        ConfigError: On building, if one is no distribution.
    """

    chances: tuple[Floats, ...]
    """One array for each choice, with the sum 1."""

    def __post_init__(self) -> None:
        for place, part in enumerate(self.chances):
            if not (part >= 0).all() or not np.isclose(part.sum(), 1.0):
                raise ConfigError(f"The chances of choice {place} must be at least 0 with the sum 1; got {part.tolist()}.")

    def of(self, designs: Ints) -> Floats:
        """Return the probability of each design of a list, ``[n]`` for ``[n, choices]``."""
        found = np.ones(len(designs))
        for place, part in enumerate(self.chances):
            found *= part[designs[:, place]]
        return found

    def order(self, designs: Ints, random: np.random.Generator) -> Ints:
        """Return an order in which to try the designs of a list: drawn by the prior without repetition; what it excludes comes last."""
        chances = self.of(designs)
        # The exponential trick: the smallest of arrival times with these rates is a draw without repetition.
        times = random.exponential(size=len(chances))
        arrival = np.divide(times, chances, out=np.full(len(chances), np.inf), where=chances > 0)
        return np.lexsort((times, arrival)).astype(np.int64)


def design_prior(designs: Ints, scores: Floats, distances: Floats, *, nearest: int = 3, best: int = 16) -> DesignPrior:
    """Return the prior of a new task.

    Args:
        designs: Numbers of the choices, ``[n, choices]``, each from 0.
        scores: Of the bank's tasks, ``[N, n]``, higher is better; the new task is not among them.
        distances: From the new task to each of the bank, ``[N]``.
        nearest: Tasks that count, at least 1.
        best: Designs of each that count, at least 1.

    Raises:
        ConfigError: If a number is out of range or shapes do not fit.
    """
    if nearest < 1 or best < 1 or scores.shape != (len(distances), len(designs)) or not len(distances):
        raise ConfigError(
            f"A prior needs scores [tasks, designs] with distances [tasks], and at least one near task and best design; got "
            f"{scores.shape}, {distances.shape}, {designs.shape}, {nearest!r} and {best!r}."
        )
    near = np.argsort(distances, kind="stable")[:nearest]
    weights = 1.0 / np.maximum(distances[near], _LEAST_DISTANCE)
    chances = []
    for place in range(designs.shape[1]):
        total = np.zeros(int(designs[:, place].max()) + 1)
        for task, weight in zip(near.tolist(), weights.tolist(), strict=True):
            top = np.argsort(-scores[task], kind="stable")[:best]
            total += weight * np.bincount(designs[top, place], minlength=len(total)) / len(top)
        chances.append(total / total.sum())
    return DesignPrior(tuple(chances))
