"""A loss that is not finite ends training with the error that says so and names the task, whatever balances the tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from small_runs import small_suite, small_trainer

from graftwork.core.errors import TrainingDivergedError
from graftwork.interfaces.balancer import Balancer
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.optimization.flat_mtl import FlatMTL
from graftwork.methods.optimization.sam import SAM
from graftwork.methods.optimization.torchjd_bridge import AGGREGATORS, jacobian_balancer

pytest.importorskip("torchjd")

SETTINGS: dict[str, dict[str, Any]] = {
    "Constant": {"weights": [0.5, 1.0, 2.0]},
    "Krum": {"n_byzantine": 0, "n_selected": 1},
    "TrimmedMean": {"trim_number": 1},
}
BUILDERS: dict[str, Callable[[], Balancer]] = {
    "equal": EqualWeights,
    **{
        f"{name}-{mode}": lambda name=name, mode=mode: jacobian_balancer(name, mode, **SETTINGS.get(name, {}))
        for name in AGGREGATORS
        for mode in ("parameters", "representation")
    },
    "whole matrix": lambda: jacobian_balancer("AlignedMTL", factored=False),
    "torchjd's NashMTL": lambda: jacobian_balancer("NashMTL", solver="torchjd"),
    "torchjd's FairGrad": lambda: jacobian_balancer("FairGrad", solver="torchjd"),
    "flat": lambda: FlatMTL("CAGrad"),
    "sam": lambda: SAM(balancer=jacobian_balancer("UPGrad")),
}


@pytest.mark.parametrize("balancer", sorted(BUILDERS))
def test_the_error_names_the_task(balancer: str) -> None:
    suite = small_suite()
    amount = suite.targets["amount"].copy()
    amount[suite.splits["train"][0]] = np.inf
    trainer = small_trainer(suite.with_targets({"amount": amount}), balancer=BUILDERS[balancer](), evaluations=0)
    with pytest.raises(
        TrainingDivergedError, match=r"the loss of amount became NaN or infinite by step \d+\. Lower learning_rate"
    ):
        trainer.train(40)
