from __future__ import annotations

import pytest
import torch
from small_runs import small_suite, small_trainer

from graftwork.training.callbacks import LossHistory


def test_means_are_over_full_stretches() -> None:
    history = LossHistory(every=2)
    trainer = small_trainer(small_suite())
    batch = trainer.stream.batch(0)
    for step, value in enumerate([1.0, 3.0, 5.0], start=1):
        trainer._step = step
        history.on_step(trainer, batch, torch.full((3,), value))
    assert history.records() == [(2, [2.0, 2.0, 2.0])]


def test_stretches_need_a_length() -> None:
    with pytest.raises(ValueError, match="`every` must be at least 1; got 0"):
        LossHistory(every=0)
