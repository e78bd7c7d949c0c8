"""Costs against counts by hand."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from graftwork.evaluation.probes import activation_bytes, count_parameters, flops_per_sample, latency_ms


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(8, 16)
        self.heads = nn.ModuleDict({"a": nn.Linear(16, 1), "b": nn.Linear(16, 4)})

    def forward(self, inputs, tasks=None):
        hidden = self.trunk(inputs["numeric"]).relu()
        return {name: self.heads[name](hidden) for name in tasks or self.heads}


def test_parameters_count_once_and_frozen_ones_are_not_trainable() -> None:
    model = TwoHeads()
    model.trunk.bias.requires_grad_(False)
    model.again = model.trunk
    assert count_parameters(model) == (8 * 16 + 16 + 17 + 68, 8 * 16 + 17 + 68)


def test_flops_by_hand_and_by_task() -> None:
    model = TwoHeads().train()
    inputs = {"numeric": torch.randn(5, 8)}
    assert flops_per_sample(model, inputs) == 2 * (8 * 16 + 16 * 1 + 16 * 4)
    assert flops_per_sample(model, inputs, ["a"]) == 2 * (8 * 16 + 16)
    assert model.training
    with pytest.raises(ValueError, match="at least one row"):
        flops_per_sample(model, {"numeric": torch.randn(0, 8)})


def test_latency_calls_every_batch_size_and_restores_threads() -> None:
    seen = []

    class Spy(TwoHeads):
        def forward(self, inputs, tasks=None):
            seen.append((len(inputs["numeric"]), torch.get_num_threads(), self.training, torch.is_grad_enabled()))
            return super().forward(inputs, tasks)

    model, before = Spy().train(), torch.get_num_threads()
    found = latency_ms(model, {"numeric": torch.randn(3, 8)}, batch_sizes=(1, 7), repeats=2)
    assert set(seen) == {(1, 1, False, False), (7, 1, False, False)}
    assert set(found.milliseconds) == {1, 7}
    assert all(value > 0 for value in found.milliseconds.values())
    assert (found.threads, found.runtime) == (1, "eager")
    assert model.training
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="at least one row"):
        latency_ms(model, {"numeric": torch.randn(0, 8)})


def test_latency_of_an_onnx_session(tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", 2])],
        [helper.make_tensor_value_info("y", kind, ["n", 2])],
    )
    onnx_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 2
    session = runtime.InferenceSession(onnx_model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = latency_ms(session, {"x": np.zeros((3, 2), np.float32)}, repeats=2)
    assert set(found.milliseconds) == {1, 32}
    assert (found.threads, found.runtime) == (2, "onnxruntime")


def test_activation_bytes_by_hand() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.randn(10, 8)
    held = activation_bytes(lambda: model(inputs).sum(), exclude=[*model.parameters()])
    assert held == 4 * (10 * 8 + 10 * 16)  # the input for the first weight; the ReLU's output serves itself and the second weight
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    frozen = activation_bytes(lambda: model(inputs).sum(), exclude=[*model.parameters()])
    assert frozen == 4 * 10 * 16


def test_what_was_held_is_let_go() -> None:
    x, made = torch.ones(4, requires_grad=True), list[Any]()

    def compute() -> torch.Tensor:
        powers = x.exp()  # the node keeps its own result
        made.append(weakref.ref(powers))
        return powers.sum()

    assert activation_bytes(compute) == 16
    assert made[0]() is None


def test_activation_bytes_count_views_of_one_storage_once() -> None:
    values = torch.randn(4, 6, requires_grad=True)
    doubled = values * 1.0

    def product() -> torch.Tensor:
        return (doubled[:2] * doubled[2:]).sum() + doubled.square().sum()

    assert activation_bytes(product) == 4 * 24


def in_a_fresh_process(code: str) -> dict[str, Any]:
    """Run code that prints JSON. A worker of many tests holds idle memory, which the system may take back while a block is measured."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_peak_memory_sees_what_is_freed_again() -> None:
    found = in_a_fresh_process(
        """
        import json
        import numpy as np
        from graftwork.evaluation import memory
        from graftwork.evaluation.memory import PeakMemory

        with PeakMemory() as outer:
            with PeakMemory() as first:
                block = np.ones(64 << 20, np.uint8)
                del block
            with PeakMemory() as second:
                pass
        increases = [block.increase_bytes >> 20 for block in (outer, first, second)]
        print(json.dumps({"increases": increases, "method": first.method, "open": len(memory._ACTIVE)}))
        """
    )
    outer, first, second = found["increases"]
    assert min(outer, first) >= 60 > second
    assert found["method"] in ("kernel", "sampling")
    assert found["open"] == 0


def test_peak_memory_falls_back_to_sampling() -> None:
    found = in_a_fresh_process(
        """
        import json, time
        import numpy as np
        from graftwork.evaluation import memory

        memory._reset_mark = lambda: False
        with memory.PeakMemory() as found:
            block = np.ones(64 << 20, np.uint8)
            deadline = 400
            while found.peak_bytes < found.start_bytes + (60 << 20) and deadline:
                time.sleep(0.005)
                deadline -= 1
            del block
        print(json.dumps({"increase": found.increase_bytes >> 20, "method": found.method, "now": memory.current_rss_bytes()}))
        """
    )
    assert found["method"] == "sampling"
    assert found["increase"] >= 60
    assert found["now"] > 0


def test_attention_is_counted() -> None:
    from graftwork.nn.attention import SelfAttention

    model, length, width = SelfAttention(8, 2), 5, 8

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.inner(inputs["tokens"])

    projections = 2 * length * width * 4 * width
    attention = 2 * 2 * length * length * width  # scores, and their product with the values
    assert flops_per_sample(Named(), {"tokens": torch.randn(3, length, width)}) == projections + attention
