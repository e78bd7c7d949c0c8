"""Which device and precision are chosen, by what is there: accelerators are pretended."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import assert_equal_weights, small_learner, small_plan, small_suite, weights_of
from torch.utils import backend_registration

from graftwork.core.errors import CheckpointError, ConfigError
from graftwork.training.devices import available_devices, chosen_device, chosen_precision, has_fast_bf16, on_cpu

SUITE = small_suite()


def pretend(monkeypatch: pytest.MonkeyPatch, *devices: str, capability: int = 8) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in devices)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in devices)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (capability, 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: capability >= 8)
    monkeypatch.setattr(torch.version, "hip", None)


def test_auto_takes_the_fastest_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for devices in (("cuda", "mps"), ("cuda",), ("mps",), ()):
        pretend(monkeypatch, *devices)
        assert available_devices() == (*devices, "cpu")
        assert chosen_device("auto") == (*devices, "cpu")[0]
        assert chosen_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_missing_device_is_refused_with_what_is_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    other = {"cuda": "mps", "mps": "cuda"}[name]
    pretend(monkeypatch, other)
    with pytest.raises(
        ConfigError, match=f"{name} is not available on this machine: torch .* sees {other}, cpu\\. .* Or use {other}, or auto"
    ):
        chosen_device(name)
    with pytest.raises(ConfigError, match="device must be one of auto, cpu, cuda, mps; got 'tpu'"):
        chosen_device("tpu")


def test_bfloat16_is_chosen_by_itself_only_where_it_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "cuda", "mps", capability=8)
    assert has_fast_bf16("cuda")
    assert not has_fast_bf16("mps")
    assert not has_fast_bf16("cpu")
    assert chosen_precision("auto", "cuda") == "bf16-pretrained"
    assert chosen_precision("auto", "cpu") == "plan"
    assert [chosen_precision(name, "cpu") for name in ("fp32", "bf16")] == ["fp32", "bf16"]
    pretend(monkeypatch, "cuda", capability=7)
    assert chosen_precision("auto", "cuda") == "plan"
    with pytest.raises(ConfigError, match="'bf16' is not supported by this GPU: choose fp32, or auto"):
        chosen_precision("bf16", "cuda")
    with pytest.raises(ConfigError, match="precision must be one of auto, fp32, bf16; got 'fp16'"):
        chosen_precision("fp16", "cpu")


def test_precision_reaches_the_training_and_the_user_is_stronger(tmp_path: Path) -> None:
    plan = small_plan(training={"autocast": "bfloat16"})
    assert small_learner(SUITE, tmp_path).config.autocast == "none"
    assert small_learner(SUITE, tmp_path, plan).config.autocast == "bfloat16"
    assert small_learner(SUITE, tmp_path, plan, precision="fp32").config.autocast == "none"
    assert small_learner(SUITE, tmp_path, precision="bf16").config.autocast == "bfloat16"
    assert small_learner(SUITE, tmp_path, precision="bf16", overrides={"autocast": "none"}).config.autocast == "none"
    # Nothing pretrained: small networks win nothing by it.
    assert small_learner(SUITE, tmp_path, precision="bf16-pretrained").config.autocast == "none"


def test_a_training_in_bfloat16_differs_a_little_and_predicts_in_float32(tmp_path: Path) -> None:
    full, half = (small_learner(SUITE, tmp_path, precision=precision) for precision in ("plan", "bf16"))
    for learner in (full, half):
        learner.train(20)
    rows = SUITE.splits["test"]
    first, second = full.predict(rows), half.predict(rows)
    for name in first:
        assert second[name].dtype == first[name].dtype == np.float32
        spread = float(first[name].std())
        assert 0 < np.abs(first[name] - second[name]).max() < max(spread, 0.1)
    assert {tensor.dtype for tensor in half.best_model.parameters()} == {torch.float32}


def test_a_checkpoint_of_another_device_or_precision_is_refused(tmp_path: Path) -> None:
    half = small_learner(SUITE, tmp_path, precision="bf16")
    half.train(2)
    half.save(tmp_path / "half")
    with pytest.raises(CheckpointError, match=r"another precision \('bf16', not 'plan'\)"):
        small_learner(SUITE, tmp_path).load(tmp_path / "half")
    plain = small_learner(SUITE, tmp_path)
    plain.save(tmp_path / "plain")
    assert "device" not in plain.context.identity()
    elsewhere = replace(plain.context, device="cuda")
    with pytest.raises(CheckpointError, match=r"another device \('cpu', not 'cuda'\)"):
        elsewhere.check_identity(plain.context.identity(), tmp_path)
    with pytest.raises(CheckpointError, match=r"another device \('cuda', not 'cpu'\)"):
        plain.context.check_identity(elsewhere.identity(), tmp_path)


def test_a_model_on_the_cpu_is_not_copied_to_it(tmp_path: Path) -> None:
    learner = small_learner(SUITE, tmp_path)
    model = learner.best_model
    assert on_cpu(model) is model


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices made of Python",
)
def test_a_training_elsewhere_meets_no_tensor_of_the_cpu_and_has_its_bits(tmp_path: Path) -> None:
    script = Path(__file__).with_name("device_run.py")
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_threads_of_the_process_change_no_bit(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            learner = small_learner(SUITE, tmp_path)
            learner.train(8)
            assert torch.get_num_threads() == learner.context.threads == 1
            found.append(weights_of(learner.model))
        assert_equal_weights(*found)
    finally:
        torch.set_num_threads(before)
