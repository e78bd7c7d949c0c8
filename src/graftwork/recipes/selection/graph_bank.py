"""Procedural node tasks, and the bank of what every design of a small space reaches on them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.seeds import Seeds
from graftwork.methods.selection.autotransfer import anchor_feature
from graftwork.nn.dense_graph import ACTIVATIONS, LAYERS, DenseGraphBody

__all__ = ["ANCHORS", "DESIGNS", "KINDS", "GraphTask", "build_body", "draw_task", "task_feature", "train_design"]

Floats = NDArray[np.float64]
_DEPTHS, _SKIPS = (1, 2, 3), (False, True)
CHOICES = (LAYERS, _DEPTHS, tuple(ACTIVATIONS), _SKIPS)
DESIGNS: NDArray[np.int64] = np.array(list(itertools.product(*(range(len(choice)) for choice in CHOICES))))
"""Numbers of the choices (layer, depth, activation, skip) of all 48 designs, ``[48, 4]``."""
ANCHORS = (0, 4, 11, 15, 18, 22, 25, 29, 32, 36, 41, 47)
"""Designs whose random networks describe a task; every layer kind, depth and activation is among them."""
_WIDTH, _FEATURES = 16, 8
_CLASSES = 4
_REFERENCE = 200


@dataclass(frozen=True, slots=True)
class GraphTask:
    """A graph whose nodes are to be classified."""

    name: str
    features: Tensor
    """``[n, 8]``."""
    adjacency: Tensor
    """``[n, n]``, symmetric, 0 or 1, no self-loops."""
    labels: Tensor
    """``[n]``, four classes."""
    train: Tensor
    """Numbers of the rows that are learned from; likewise for choosing and judging."""
    val: Tensor
    test: Tensor


def _communities(homophily: float, neighbours: int, noise: float) -> dict[str, float]:
    """Return chances of an edge within and between four groups of equal size.

    Args:
        homophily: 1 has all edges within groups, -1 none; 0 pays no heed to groups.
        neighbours: Mean number of neighbours of a node.
        noise: Of the features.
    """
    share = 1.0 / _CLASSES
    within = share + (1.0 - share) * homophily if homophily > 0 else share * (1.0 + homophily)
    size = _REFERENCE / _CLASSES
    return {
        "within": neighbours * within / size,
        "between": neighbours * (1.0 - within) / (_REFERENCE - size),
        "noise": noise,
    }


_HOMOPHILIES = [round(float(value), 2) for value in np.linspace(-0.95, 0.9, 18)]
KINDS: dict[str, dict[str, float]] = {
    # Neighbours and noise in turns of different length, so that neither goes along with homophily.
    **{
        f"communities {value:+.2f}": _communities(value, (4, 7, 10)[place % 3], (1.0, 1.7, 2.4)[(place + place // 3) % 3])
        for place, value in enumerate(_HOMOPHILIES)
    },
    **{f"degree {noise}": {"degree": 1.0, "noise": noise} for noise in (0.2, 0.35, 0.5, 0.65, 0.8, 1.0)},
    **{f"around {noise}": {"around": 1.0, "noise": noise} for noise in (0.4, 0.6, 0.8, 1.0, 1.2, 1.4)},
}
"""Communities from those that avoid each other to those that hold together; how many neighbours a node has; and what most of its
neighbours are. Chances of an edge are those in a graph of :data:`_REFERENCE` nodes; larger graphs have fewer of them, so that a node
has as many neighbours."""


def draw_task(kind: str, seed: int, *, nodes: int = 400) -> GraphTask:
    """Draw a task; equal arguments give equal bits.

    Args:
        kind: A key of :data:`KINDS`.
        seed: Draws the graph.
        nodes: Nodes, a fifth of them for training, a fifth for choosing, the others for judging.
    """
    random, numbers = Seeds(seed).numpy(f"graph {kind}"), KINDS[kind]
    groups, thin = random.integers(_CLASSES, size=nodes), min(1.0, _REFERENCE / nodes)
    means = random.normal(size=(_CLASSES, _FEATURES))
    if "degree" in numbers:
        # Nodes of unequal pull; the class is the quartile of the degree, and a constant feature lets sums count.
        pull = random.pareto(2.5, size=nodes) + 0.5
        chance = np.minimum(np.outer(pull, pull) / pull.sum() * 4.0, 1.0)
        adjacency = _edges(chance, random)
        ties = adjacency.sum(axis=1) + 0.01 * random.random(nodes)
        labels = np.searchsorted(np.quantile(ties, [0.25, 0.5, 0.75]), ties)
        features = numbers["noise"] * random.normal(size=(nodes, _FEATURES))
        features[:, 0] += 1.0
    elif "around" in numbers:
        adjacency = _edges(np.full((nodes, nodes), 0.03 * thin), random)
        seen = adjacency @ np.eye(_CLASSES)[groups] + 0.01 * random.random((nodes, _CLASSES))
        labels = seen.argmax(axis=1)
        features = means[groups] + numbers["noise"] * random.normal(size=(nodes, _FEATURES))
    else:
        same = groups[:, None] == groups[None]
        adjacency = _edges(thin * np.where(same, numbers["within"], numbers["between"]), random)
        labels, features = groups, means[groups] + numbers["noise"] * random.normal(size=(nodes, _FEATURES))
    order = torch.from_numpy(random.permutation(nodes))
    fifth = nodes // 5
    return GraphTask(
        kind, torch.from_numpy(features).float(), torch.from_numpy(adjacency).float(), torch.from_numpy(labels.astype(np.int64)),
        order[:fifth], order[fifth : 2 * fifth], order[2 * fifth :],
    )  # fmt: skip


def _edges(chance: Floats, random: np.random.Generator) -> Floats:
    upper = np.triu(random.random(chance.shape) < chance, 1)
    return np.asarray(upper + upper.T, dtype=np.float64)


def build_body(design: int, seed: int) -> DenseGraphBody:
    """Return the network below the head of a design, with weights of a seed."""
    layer, depth, activation, skip = (choice[index] for choice, index in zip(CHOICES, DESIGNS[design].tolist(), strict=True))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DenseGraphBody(_FEATURES, _WIDTH, depth, kind=layer, activation=activation, skip=skip)  # type: ignore[arg-type]


def train_design(task: GraphTask, design: int, seed: int, *, steps: int = 60) -> tuple[float, float]:
    """Train a design on a task; return its accuracies on validation and test nodes at the step that is best on validation, in percent.

    Args:
        task: The task.
        design: Number of the design.
        seed: Draws the weights.
        steps: Steps of Adam over all training nodes.
    """
    body = build_body(design, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed + 1)
        head = nn.Linear(_WIDTH, _CLASSES)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-2, weight_decay=5e-4, fused=True)
    best = (-1.0, -1.0)
    for step in range(steps):
        logits = head(body(task.features, task.adjacency))
        if step % 5 == 0 or step == steps - 1:
            right = (logits.detach().argmax(dim=1) == task.labels).float()
            found = 100.0 * float(right[task.val].mean()), 100.0 * float(right[task.test].mean())
            best = found if found[0] > best[0] else best
        loss = F.cross_entropy(logits[task.train], task.labels[task.train])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return best


def task_feature(task: GraphTask, seed: int, *, anchors: int = len(ANCHORS), repeats: int = 3) -> Floats:
    """Return the description of a task, ``[anchors]``: one scalar for each, the mean over initialisations.

    Args:
        task: The task; of its labels, those of training nodes are looked at.
        seed: Draws weights and labels.
        anchors: How many of :data:`ANCHORS`.
        repeats: Initialisations of each.
    """
    found = np.zeros(anchors)
    for place in range(anchors):
        for repeat in range(repeats):
            own = Seeds(seed).child(f"anchor {place} {repeat}")
            body = build_body(ANCHORS[place], own.integer("weights"))
            found[place] += anchor_feature(
                body, lambda body=body: body(task.features, task.adjacency), task.labels, task.train, task.val, _CLASSES,  # type: ignore[misc]
                generator=own.torch("draws"),
            ) / repeats  # fmt: skip
    return found
