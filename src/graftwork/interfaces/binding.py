"""Binding: what objectives, balancers and gradient transforms are handed once, before the first step.

A plan is plain data, and its parts are built before anything is known of model and data: constructors take settings,
:class:`Binding` brings the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from graftwork.core.batch import Batch
from graftwork.core.records import TaskSpec
from graftwork.interfaces.shared_model import SharedModel

__all__ = ["Binding", "SuiteFacts"]


@dataclass(frozen=True, slots=True)
class SuiteFacts:
    """What is known of the training rows before training."""

    domains: tuple[str, ...]
    """Names of the data sets or domains, in the order of :attr:`~graftwork.core.batch.Batch.domain`; one if the suite has no
    domains."""
    labelled: tuple[int, ...]
    """Labelled rows that the training draws from, per domain."""
    unlabelled: tuple[int, ...]
    """Rows without any label that it draws from, per domain; all 0 unless the plan's ``quotas`` ask for them."""
    batch_size: int
    """Rows a step, over all processes."""
    steps_per_epoch: int
    """Steps in which every labelled row is met once."""
    horizon: int
    """Step at which the schedules end; the training may stop earlier."""


@dataclass(frozen=True, slots=True)
class Binding:
    """What a part of a plan is bound to."""

    model: SharedModel
    """The model, on :attr:`device`, with its first weights; nothing may change them."""
    tasks: Sequence[TaskSpec]
    """The tasks, in the order of the losses."""
    facts: SuiteFacts
    example: Batch
    """The batch of the first step, for shapes (:func:`graftwork.nn.representation.representation_of` gives that of the
    features)."""
    device: torch.device
    """Where batches and losses live."""
    seed: int
    """Seed of the part's own random numbers, in ``[0, 2**63)``: another one for each part. During ``bind`` torch's global
    generator is seeded with it, so that modules made there start alike in every run."""
