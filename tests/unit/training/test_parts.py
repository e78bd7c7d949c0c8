"""A batch in parts and in shares: the same gradients as the whole batch, whatever labels are missing where."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from parts_models import BALANCERS, DROPOUT, PARALLEL, build, parts_of, suite_with_holes, weights_after
from safetensors.torch import load_file

from graftwork.core.errors import ConfigError
from graftwork.data.loader import BatchStream
from graftwork.methods.optimization.sam import SAM
from graftwork.methods.optimization.torchjd_bridge import jacobian_balancer
from graftwork.methods.tuning.lora import LoRA
from graftwork.tasks.losses import label_count, task_loss
from graftwork.training.parallel import DataParallel
from graftwork.training.parts import split_batch


@pytest.mark.parametrize("name", BALANCERS)
@pytest.mark.parametrize("parts", [2, 5])
def test_accumulation_equals_the_whole_batch(name: str, parts: int) -> None:
    suite = suite_with_holes()
    whole = weights_after(build(suite, BALANCERS[name]()))
    split = weights_after(build(suite, BALANCERS[name](), accumulate=parts))
    for key, value in split.items():
        torch.testing.assert_close(value, whole[key], rtol=1e-3, atol=2e-5, msg=lambda text, key=key: f"{key}: {text}")


def test_what_needs_the_whole_batch_says_so() -> None:
    suite = suite_with_holes(0.0)
    for balancer in (jacobian_balancer("UPGrad", "representation"), SAM()):
        with pytest.raises(ConfigError, match="cannot accumulate gradients over 3 parts.*accumulate=1"):
            build(suite, balancer, accumulate=3)


@pytest.mark.parametrize("name", ["sum", "uncertainty", "upgrad"])
def test_bfloat16_autocast_stays_near_float32_and_weights_stay_float32(name: str) -> None:
    suite = suite_with_holes()
    exact, half = build(suite, BALANCERS[name]()), build(suite, BALANCERS[name](), autocast="bfloat16")
    seen: list[torch.dtype] = []
    half.model.backbone.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    exact.train(4)
    half.train(4)
    assert torch.bfloat16 in seen
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.float32}
    moved = 0.0
    for mine, wanted in zip(half.model.parameters(), exact.model.parameters(), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0.05, atol=0.02)
        moved += float((mine - wanted).detach().abs().sum())
    assert moved > 0, "half precision was used"


@pytest.mark.parametrize("name", ["sum", "upgrad", "mgda"])
def test_balancing_on_low_rank_parameters_alone(name: str) -> None:
    suite = suite_with_holes()
    whole = build(suite, BALANCERS[name](), tuner=LoRA())
    frozen = {key: value.clone() for key, value in whole.model.named_parameters() if not value.requires_grad}
    assert frozen
    assert any("backbone" in key for key, value in whole.model.named_parameters() if value.requires_grad)
    after = weights_after(whole)
    for key, value in frozen.items():
        torch.testing.assert_close(after[key].float(), value, rtol=0, atol=0)
    split = weights_after(build(suite, BALANCERS[name](), tuner=LoRA(), accumulate=3))
    changed = 0
    for key, value in split.items():
        torch.testing.assert_close(value, after[key], rtol=1e-3, atol=2e-5)
        changed += key not in frozen
    assert changed


def test_parts_hold_all_rows_in_order_and_counts_are_the_denominators() -> None:
    suite = suite_with_holes()
    stream = BatchStream(suite, suite.splits["train"], 23, 0)
    batch = stream.batch(0)
    parts = split_batch(batch, 4)
    assert torch.equal(torch.cat([part.rows for part in parts]), batch.rows)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert [len(part) for part in split_batch(parts[0], 9)] == [1] * len(parts[0])
    for task in suite.tasks:
        target = batch.targets[task.name]
        output = torch.randn(len(batch), task.num_outputs, generator=torch.Generator().manual_seed(0))
        bounds = np.cumsum([0, *map(len, parts)])
        pieces = [
            float(task_loss(task, output[first:last], target[first:last]) * label_count(task, target[first:last]))
            for first, last in itertools.pairwise(bounds)
        ]
        whole = float(task_loss(task, output, target) * label_count(task, target))
        assert sum(pieces) == pytest.approx(whole, rel=1e-5)


@pytest.mark.slow
def test_two_processes_equal_one_with_the_whole_batch(tmp_path: Path) -> None:
    script = Path(__file__).with_name("parallel_run.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), str(tmp_path)]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "size").read_text() == "2"
    suite = suite_with_holes()
    for name, make in PARALLEL.items():
        whole = weights_after(build(suite, make()))
        for parts in parts_of(make()):
            for key, value in load_file(tmp_path / f"{name}-{parts}-0.0.safetensors").items():
                # Sums of other order in float32; what is near zero is compared with the step that it has made.
                torch.testing.assert_close(
                    value, whole[key], rtol=1e-5, atol=1e-6, msg=lambda text, key=key, name=name: f"{name}, {key}: {text}"
                )
    for name in DROPOUT:
        plain = weights_after(build(suite, PARALLEL[name]()))
        for parts in parts_of(PARALLEL[name]()):
            dropped = weights_after(build(suite, PARALLEL[name](), accumulate=parts, dropout=0.3))
            assert any(float((dropped[key] - plain[key]).abs().max()) > 1e-3 for key in plain), "dropout makes a difference"
            for key, value in load_file(tmp_path / f"{name}-{parts}-0.3.safetensors").items():
                torch.testing.assert_close(
                    value, dropped[key], rtol=1e-3, atol=2e-5, msg=lambda text, key=key, name=name: f"{name}, {key}: {text}"
                )


def test_several_processes_need_a_launcher() -> None:
    with pytest.raises(ConfigError, match="torchrun --nproc-per-node"):
        DataParallel()
