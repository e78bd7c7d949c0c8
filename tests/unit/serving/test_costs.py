"""Operations counted on the graph, and models of some tasks alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import run_builder
import torch
from numpy.testing import assert_allclose
from onnx import helper
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from graftwork.core.input_spec import image_input
from graftwork.core.records import TaskSpec
from graftwork.evaluation.probes import flops_per_sample
from graftwork.export.onnx_model import export_onnx
from graftwork.interfaces.shared_model import SharedModel
from graftwork.methods.sharing.m3vit import M3ViT
from graftwork.serving.costs import graph_costs
from graftwork.serving.session import OnnxModel

TASKS = (TaskSpec(name="a", kind="regression", size=2), TaskSpec(name="b", kind="multiclass", size=3))


class Branches(SharedModel):
    """A convolution for both tasks, then a branch each."""

    def __init__(self) -> None:
        super().__init__()
        self.task_names = ("a", "b")
        self.trunk = nn.Conv2d(3, 4, 3, padding=1, stride=2)
        self.a = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 2))
        self.b = nn.Sequential(
            nn.ConvTranspose2d(4, 2, 2, stride=2), nn.Flatten(), nn.Linear(2 * 64, 16), nn.ReLU(), nn.Linear(16, 3)
        )

    def encode(self, inputs, tasks=None):
        return torch.relu(self.trunk(inputs["image"]))

    def decode(self, representation, tasks=None):
        return {name: getattr(self, name)(representation) for name in tasks or self.task_names}

    def task_parameters(self, task):
        return getattr(self, task).parameters()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Branches, Path]:
    torch.manual_seed(0)
    model = Branches().eval()
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    export_onnx(model, TASKS, {"image": torch.rand(4, 3, 8, 8)}, path)
    return model, path


def test_operations_agree_with_the_counter_of_torch(exported: tuple[Branches, Path]) -> None:
    model, path = exported
    costs = graph_costs(path, OnnxModel(path, threads=1).outputs)
    assert costs is not None
    inputs = {"image": torch.rand(1, 3, 8, 8)}
    for tasks in (["a"], ["b"], ["a", "b"]):
        assert costs.flops(tasks) == flops_per_sample(model, inputs, tasks)
    assert costs.total == costs.flops(["a", "b"])
    assert costs.share(["a"]) == costs.flops(["a"]) / costs.total
    assert costs.flops(["a"]) + costs.flops(["b"]) > costs.total, "the trunk counts once"


def test_a_task_of_a_sparse_mixture_costs_its_chosen_experts_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tasks = tuple(TaskSpec(name=name, kind="multiclass", size=3) for name in "abcd")
    model = M3ViT(tasks, None, inputs=image_input(16), num_experts=8, top_k=2, width=64, depth=2).eval()
    inputs = {"image": torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)}
    export_onnx(model, tasks, inputs, tmp_path / "model.onnx")
    costs = graph_costs(tmp_path / "model.onnx", OnnxModel(tmp_path / "model.onnx", threads=1).outputs)
    assert costs is not None
    with sdpa_kernel(SDPBackend.MATH):  # torch does not count its fused attention on a processor
        one, all_tasks = (flops_per_sample(model, inputs, names) for names in (["b"], list("abcd")))
    assert costs.flops(["b"]) == one
    attention = 64 * 2 * 6 * 64 * 64  # of the second block: what of it no router changes, the exporter writes once for all tasks
    assert all_tasks - 3 * attention <= costs.total <= all_tasks
    every_expert = 2 * 64 * 8 * (64 * 64 + 64 * 64)  # of 64 tokens, at two FLOPs a weight
    for layer in model.moe_layers():
        layer.top_k = 8
    with sdpa_kernel(SDPBackend.MATH):
        assert flops_per_sample(model, inputs, ["b"]) - one == 6 / 8 * every_expert


def test_a_model_of_some_tasks_gives_the_same_numbers(exported: tuple[Branches, Path]) -> None:
    whole = OnnxModel(exported[1], threads=1)
    part = whole.only(["b"])
    assert list(part.outputs) == ["b"]
    assert whole.only(["a", "b"]) is whole
    inputs = {"image": np.random.default_rng(0).random((5, 3, 8, 8), dtype=np.float32)}
    assert_allclose(part.run(inputs, ["b"])["b"], whole.run(inputs, ["a", "b"])["b"], rtol=1e-5)
    assert list(whole.outputs) == ["a", "b"]
    assert not whole._sessions, "it is not kept"


def test_einsum_and_gemm_by_hand(tmp_path: Path) -> None:
    float_type = run_builder.FLOAT
    run_builder.graph(
        tmp_path / "model.onnx",
        [
            helper.make_node("Einsum", ["x", "w"], ["mixed"], equation="bij, jk -> bik"),
            helper.make_node("Flatten", ["mixed"], ["flat"]),
            helper.make_node("Gemm", ["flat", "v"], ["y"]),
        ],
        {"x": (float_type, ["batch", 2, 3])},
        {"y": (float_type, ["batch", 7]), "mixed": (float_type, ["batch", 2, 5])},
        {"w": np.ones((3, 5), np.float32), "v": np.ones((10, 7), np.float32)},
    )
    costs = graph_costs(tmp_path / "model.onnx", {"first": "mixed", "second": "y"})
    assert costs is not None
    assert costs.flops(["first"]) == 2 * 2 * 3 * 5
    assert costs.flops(["second"]) == 2 * 2 * 3 * 5 + 2 * 10 * 7


def test_costs_are_a_courtesy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_builder.write_picture_model(tmp_path / "model.onnx")
    monkeypatch.setattr("graftwork.serving.costs.has", lambda _: False)
    assert graph_costs(tmp_path / "model.onnx", {"grey": "grey"}) is None


def test_einsum_with_an_ellipsis_by_hand(tmp_path: Path) -> None:
    float_type = run_builder.FLOAT
    run_builder.graph(
        tmp_path / "model.onnx",
        [
            helper.make_node("Einsum", ["x", "w"], ["y"], equation="...ij, ...jk -> ...ik"),
            helper.make_node("Einsum", ["x"], ["z"], equation="b...j -> b..."),
        ],
        {"x": (float_type, ["batch", 4, 2, 3])},
        {"y": (float_type, ["batch", 4, 2, 5]), "z": (float_type, ["batch", 4, 2])},
        {"w": np.ones((1, 4, 3, 5), np.float32)},
    )
    costs = graph_costs(tmp_path / "model.onnx", {"first": "y", "second": "z"})
    assert costs is not None
    assert costs.flops(["first"]) == 2 * 4 * 2 * 3 * 5
    assert costs.flops(["second"]) == 2 * 4 * 2 * 3
