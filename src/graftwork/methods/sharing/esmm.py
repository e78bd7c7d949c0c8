"""ESMM: conversion rates learned on all impressions, through their product with the click probability.

Paper: Ma et al., "Entire Space Multi-Task Model: An Effective Approach for Estimating Post-Click Conversion Rate", SIGIR 2018,
https://arxiv.org/abs/1804.07931.

With ``y`` a click and ``z`` a conversion (``z = 1`` only where ``y = 1``), two towers read the same embedded fields ``x`` and
give the logits ``a`` of ``pCTR = P(y = 1 | x)`` and ``b`` of ``pCVR = P(z = 1 | y = 1, x)``. The losses are cross-entropies of
``y`` under ``pCTR`` and of ``y and z`` under ``pCTCVR = pCTR * pCVR``, both over all impressions; none is put on ``pCVR``.

How it fits: the task called ``purchase`` here holds ``y and z``. Its output is the logit of the product, so that the ordinary
loss of binary tasks is the paper's. With ``p = sigmoid(a) sigmoid(b)`` the odds are ``p / (1 - p) = 1 / (e^-a + e^-b +
e^-(a+b))``, so the logit is minus a log-sum-exp: no probability is formed and nothing needs clamping.

Departures: losses are means over a batch, not sums; GELU in place of ReLU where ``activation`` says so; numeric columns are
fields too (value times a vector plus a vector); fields that are sequences are pooled by their mean; further tasks get a tower of
their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.input_spec import InputSpecs
from graftwork.core.records import TaskSpec
from graftwork.data.names import did_you_mean
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.objective import Objective, ObjectiveInputs
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.fields import FieldLayout, Fields, masked_mean
from graftwork.nn.mlp import mlp

__all__ = ["ESMM", "EntireSpace", "product_logit"]


def product_logit(first: Tensor, second: Tensor) -> Tensor:
    """Return the logit of ``sigmoid(first) * sigmoid(second)``, exact for logits of any size.

    Example:
        >>> round(torch.sigmoid(product_logit(torch.tensor([0.0]), torch.tensor([0.0]))).item(), 6)
        0.25
    """
    return -torch.logsumexp(torch.stack([-first, -second, -first - second]), dim=0)


class ESMM(SharedModel):
    """Two towers on shared embeddings, chained by a product.

    Args:
        tasks: The tasks, two binary ones among them.
        make_backbone: Not called: embeddings are what is shared.
        inputs: The suite's inputs: a table (see :mod:`graftwork.nn.fields`).
        click: Name of the task that must happen first; empty takes the first binary task.
        purchase: Name of the task that is labelled 1 where both have happened, for all rows; empty takes the next binary task.
        conversion: Name of a binary task "second, given first", if there is one. The conversion tower predicts it, and no loss
            of it reaches the model. Empty if there is none (:meth:`conversion_logits` gives the rate all the same).
        embedding: Width of a field's embedding.
        hidden: Hidden widths of each tower.
        share_embeddings: False gives each tower embeddings of its own (the paper's ESMM-NS).
        product: False predicts ``purchase`` by a tower directly, without the chain: plain towers, for comparisons.
        activation: ``"relu"`` as in the paper, or ``"gelu"``.
        dropout: Probability of dropping a hidden unit.

    Raises:
        ConfigError: If the inputs are not those of a table, a task is unknown, not binary or named twice, or there are fewer
            than two binary tasks.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        make_backbone: Callable[[], Backbone] | None = None,
        *,
        inputs: InputSpecs,
        click: str = "",
        purchase: str = "",
        conversion: str = "",
        embedding: int = 18,
        hidden: Sequence[int] = (360, 200, 80),
        share_embeddings: bool = True,
        product: bool = True,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if activation not in ("relu", "gelu"):
            raise ConfigError(f"ESMM: `activation` is relu or gelu; got {activation!r}.")
        self.task_names = tuple(task.name for task in tasks)
        self.click, self.purchase, self.conversion = _chain(tasks, click, purchase, conversion) if product else ("", "", "")
        self.has_shared_representation = share_embeddings
        layout = FieldLayout.from_inputs(inputs, needed_by="ESMM")
        # The conversion tower belongs to `purchase`; `conversion` only reads it.
        self._towered = [task for task in tasks if task.name != self.conversion or not self.conversion]
        self._index = {task.name: index for index, task in enumerate(self._towered)}
        width = (layout.num_fields + len(layout.sequences)) * embedding
        # One set of embeddings for all towers, or one for each.
        self.fields = nn.ModuleList(Fields(layout, embedding) for _ in (self._towered if not share_embeddings else [0]))
        rectifier = nn.ReLU if activation == "relu" else nn.GELU
        self.towers = nn.ModuleList(
            mlp([width, *hidden, task.num_outputs], dropout=dropout, activation=rectifier) for task in self._towered
        )

    def _embed(self, name: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the embedded fields that the tower of ``name`` reads, ``[B, D]``."""
        fields = self.fields[0 if self.has_shared_representation else self._index[name]]
        plain, states, filled = fields(inputs)
        if states is not None and filled is not None:
            plain = torch.cat([plain, masked_mean(states, filled)], dim=1)
        return plain.flatten(1)

    def _needs(self, name: str) -> tuple[str, ...]:
        """Return whose towers an output is made of."""
        if self.purchase and name == self.purchase:
            return (self.click, self.purchase)
        return (self.purchase,) if self.conversion and name == self.conversion else (name,)

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor | tuple[Tensor, ...]:
        """Return the embedded fields, ``[B, D]``; without shared embeddings one per asked task, ``[B, 2 D]`` for the product."""
        if self.has_shared_representation:
            return self._embed(self.task_names[0], inputs)
        asked = self.task_names if tasks is None else tuple(tasks)
        needed = dict.fromkeys(tower for name in asked for tower in self._needs(name))
        embedded = {tower: self._embed(tower, inputs) for tower in needed}
        return tuple(torch.cat([embedded[tower] for tower in self._needs(name)], dim=1) for name in asked)

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the outputs of the asked tasks; the product runs both towers, each once."""
        asked = self.task_names if tasks is None else tuple(tasks)
        shared = isinstance(representation, Tensor)
        parts = (representation,) * len(asked) if isinstance(representation, Tensor) else representation
        done: dict[str, Tensor] = {}
        for name, part in zip(asked, parts, strict=True):
            needs = self._needs(name)
            pieces = (part,) * len(needs) if shared else part.chunk(len(needs), dim=1)
            for tower, piece in zip(needs, pieces, strict=True):
                # The click tower may be asked for twice, by its own task and by the product.
                if tower not in done:
                    done[tower] = self.towers[self._index[tower]](piece)
        return {name: self._output(name, done) for name in asked}

    def _output(self, name: str, logits: Mapping[str, Tensor]) -> Tensor:
        if self.purchase and name == self.purchase:
            return product_logit(logits[self.click], logits[self.purchase])
        if self.conversion and name == self.conversion:
            logit = logits[self.purchase]
            # Labels of conversions exist for clicked rows alone: learning from them is the bias that the product avoids. The
            # product with zero keeps the loss a part of the graph, which balancers rely on.
            return logit.detach() + 0.0 * logit if self.training else logit
        return logits[name]

    def conversion_logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logit of ``pCVR`` for each row, ``[B, 1]``: the rate of conversion if the row were clicked.

        Raises:
            ConfigError: If the model was built without the product.
        """
        if not self.purchase:
            raise ConfigError("This ESMM was built with product=False: it has no conversion tower.")
        return self.towers[self._index[self.purchase]](self._embed(self.purchase, inputs))

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield what only ``task`` uses: its tower (and embeddings, if they are not shared).

        The click tower serves ``purchase`` too and is nobody's own; ``conversion`` owns nothing.
        """
        if (self.purchase and task == self.click) or (self.conversion and task == self.conversion):
            return
        yield from self.towers[self._index[task]].parameters()
        if not self.has_shared_representation:
            yield from self.fields[self._index[task]].parameters()


class EntireSpace(Objective):
    """Makes the purchase loss one over the entire space where the log leaves purchases of rows without a click blank, and checks
    the chain.

    A row without a click has no purchase, whether the log says so or not. The loop's loss leaves blank rows out; this term adds
    the difference to the mean over all rows. It is 0 for logs without blanks.
    """

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        """Return the difference, a scalar.

        Raises:
            ConfigError: If the model is not an :class:`ESMM` with its product.
            DataError: If a purchase happened without a click.
        """
        model = inputs.model
        if not isinstance(model, ESMM) or not model.purchase:
            raise ConfigError(
                "EntireSpace completes the loss of ESMM with product=True; use it with that model, or leave it out of the plan."
            )
        click, purchase = inputs.batch.targets[model.click], inputs.batch.targets[model.purchase]
        impossible = (click == 0) & (purchase == 1)
        if bool(impossible.any()):
            row = int(inputs.batch.rows[impossible][0]) + 1
            raise DataError(
                f"Row {row} has {model.purchase!r} without {model.click!r}, but ESMM needs a second event that never happens "
                "without the first. Name the two events in the plan's settings (click = ..., purchase = ...), correct the "
                "rows, or leave the plan out. (A control with shuffled companions breaks the chain by design and cannot be "
                "run with this plan.)"
            )
        blank = (purchase < 0) & (click == 0)
        known = purchase >= 0
        output = inputs.outputs[model.purchase].squeeze(1)
        # The loop's mean over rows with a label.
        current = inputs.losses[model.task_names.index(model.purchase)]
        # softplus(logit) is the cross-entropy of a label 0.
        added = torch.where(blank, F.softplus(output), torch.zeros_like(output)).sum()
        total = (known.sum() + blank.sum()).clamp(min=1)
        # Added to the loop's loss, this gives the mean over known and blank rows together.
        return (added + current * known.sum()) / total - current


def _chain(tasks: Sequence[TaskSpec], click: str, purchase: str, conversion: str) -> tuple[str, str, str]:
    kinds = {task.name: task.kind for task in tasks}
    problems = []
    named = {"click": click, "purchase": purchase, "conversion": conversion}
    for setting, name in named.items():
        if name and name not in kinds:
            problems.append(
                f"`{setting}` names {name!r}, which is no task.{did_you_mean(name, kinds)} The tasks are {', '.join(kinds)}"
            )
        elif name and kinds[name] != "binary":
            problems.append(f"`{setting}` names {name!r}, which is {kinds[name]}; it must be binary")
    given = [name for name in named.values() if name]
    if len(set(given)) < len(given):
        problems.append(f"`click`, `purchase` and `conversion` must be three tasks; got {given}")
    # Binary tasks that are not named, in the order of the suite: they fill the empty settings.
    free = [name for name, kind in kinds.items() if kind == "binary" and name not in given]
    if not problems and len(free) < (not click) + (not purchase):
        shown = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        problems.append(f"it chains two binary tasks, an event and a second one that needs the first; the tasks are {shown}")
    if problems:
        raise ConfigError("ESMM cannot be built for these tasks.", problems)
    click = click or free.pop(0)
    return click, purchase or free.pop(0), conversion
