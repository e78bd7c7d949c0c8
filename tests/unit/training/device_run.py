"""Run by a test: trains on a device beside the CPU, goes on from a checkpoint, predicts and exports, with the bits of the CPU."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from fake_device import NAME, Creation
from small_runs import small_learner, small_plan, small_suite

from graftwork.core.records import Component
from graftwork.training import learner as learner_module
from graftwork.training import random_state


def main(folder: Path) -> None:
    # The device has no generators; its dropout draws from that of the CPU, as the CPU does.
    random_state._first_state = lambda device, seed: torch.Generator().manual_seed(seed).get_state()
    # What is held for the backward pass is counted by addresses, which such tensors have not.
    learner_module.held_for_backward = lambda model, batch: 1
    balancing = Component("graftwork.methods.optimization.torchjd_bridge:jacobian_balancer", {"aggregator": "PCGrad"})
    suite, plan = small_suite(), small_plan(optimization=balancing)
    cpu = small_learner(suite, folder, plan)
    cpu.train(8)
    first = small_learner(suite, folder, plan, device=NAME)
    first.train(3)
    first.save(folder / "checkpoint")
    there = small_learner(suite, folder, plan, device=NAME)
    there.load(folder / "checkpoint")
    there.train(8)
    assert {parameter.device.type for parameter in there.model.parameters()} == {NAME}
    wanted, found = cpu.predict(suite.splits["test"]), there.predict(suite.splits["test"])
    assert all(np.array_equal(wanted[name], found[name]) for name in wanted)
    assert there.validation == cpu.validation
    assert there.ledger().latency_ms_batch1 > 0
    for name, learner in (("cpu", cpu), ("there", there)):
        learner.export(folder / name)
    assert (folder / "cpu" / "model.safetensors").read_bytes() == (folder / "there" / "model.safetensors").read_bytes()
    assert (folder / "cpu" / "model.onnx").read_bytes() == (folder / "there" / "model.onnx").read_bytes()


if __name__ == "__main__":
    with Creation():
        main(Path(sys.argv[1]))
