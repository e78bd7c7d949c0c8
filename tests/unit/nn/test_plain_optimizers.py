from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graftwork.nn.plain_optimizers import plain_optimizer

KINDS: dict[type[torch.optim.Optimizer], dict[str, Any]] = {
    torch.optim.AdamW: {"lr": 0.1, "weight_decay": 0.1, "fused": True},
    torch.optim.Adam: {"lr": 0.1},
    torch.optim.SGD: {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    torch.optim.LBFGS: {"max_iter": 3, "line_search_fn": "strong_wolfe"},
}
TRAINING = """
import sys
import torch
from graftwork.data.suites.generated import related_tasks
from graftwork.interfaces.learner import LearnerContext
from graftwork.training.stages import learner_of
from graftwork.workflows.portfolio import portfolio
from pathlib import Path
suite = related_tasks(num_tasks=2, labels_per_task=20, test_rows=20)
plan = next(plan for plan in portfolio(suite.kinds, 2) if plan.name == "shared-trunk")
context = LearnerContext(plan=plan, suite=suite, seed=0, max_steps=4, cache=Path(sys.argv[1]))
learner = learner_of(context)
learner.train(2)
learner.save(Path(sys.argv[1]) / "kept")
again = learner_of(context)
again.load(Path(sys.argv[1]) / "kept")
again.train(4)
again.export(Path(sys.argv[1]) / "model")
again.ledger()
print(sorted(name for name in sys.modules if name.startswith(("torch._dynamo", "torch._inductor"))))
"""


def steps(kind: type[torch.optim.Optimizer], settings: dict[str, Any], *, resumed: bool = False) -> list[Tensor]:
    """The weights after three steps; ``resumed``: the last of them by an optimiser that took over the state."""
    torch.manual_seed(0)
    model, rows = nn.Linear(3, 2), torch.randn(8, 3)

    def loss() -> Tensor:
        model.zero_grad()
        found = model(rows).square().mean()
        found.backward()
        return found

    optimizer = kind(model.parameters(), **settings)
    for step in range(3):
        if resumed and step == 2:
            state = optimizer.state_dict()
            optimizer = kind(model.parameters(), **settings)
            optimizer.load_state_dict(state)
        optimizer.zero_grad()
        loss()
        optimizer.step(loss)
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_numbers_are_those_of_torch(kind: type[torch.optim.Optimizer]) -> None:
    plain = plain_optimizer(kind)
    assert issubclass(plain, kind)
    assert plain is plain_optimizer(kind)
    for resumed in (False, True):
        for found, expected in zip(steps(plain, KINDS[kind], resumed=resumed), steps(kind, KINDS[kind]), strict=True):
            assert torch.equal(found, expected)
            assert found.isfinite().all()


def test_a_training_imports_no_compiler(tmp_path: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, str(tmp_path)], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "[]"
