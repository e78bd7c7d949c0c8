from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from graftwork.core.errors import GraftworkError
from graftwork.core.records import TaskSpec
from graftwork.export import onnx_model as module
from graftwork.export.onnx_model import export_onnx
from graftwork.export.written_graph import output_names
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.moe import MoEAttention, MoELayer, RoutedLayer


class SmallCNN(SharedModel):
    """Pictures in, with a padding that is computed from the size at run time, as TensorFlow-style convolutions do."""

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        super().__init__()
        self.task_names = tuple(task.name for task in tasks)
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.trunk = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5))
        self.heads = nn.ModuleDict({f"head_{i}": nn.Linear(8, task.num_outputs) for i, task in enumerate(tasks)})

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        picture = inputs["image"].permute(0, 3, 1, 2).float() / 255.0
        side = picture.shape[-1]
        total = (-(side // -2) - 1) * 2 + 3 - side
        return self.trunk(self.stem(nn.functional.pad(picture, (total // 2, total - total // 2) * 2)))

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        return {name: self.heads[f"head_{self.task_names.index(name)}"](representation) for name in tasks or self.task_names}

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        return self.heads[f"head_{self.task_names.index(task)}"].parameters()


TASKS = (
    TaskSpec(name="linear", kind="multiclass", size=3),
    TaskSpec(name="image", kind="binary", size=1),
    TaskSpec(name="mean colour (RGB)", kind="regression", size=3, center=(1e5, 0.0, -4.0), scale=(2e4, 1.0, 0.1)),
    TaskSpec(name="how much", kind="ordinal", size=5),
)


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3), dtype=np.uint8)


@pytest.fixture
def model() -> SmallCNN:
    torch.manual_seed(0)
    return SmallCNN(TASKS)


def test_file_agrees_on_any_batch_size(model, pictures, tmp_path) -> None:
    model.train()
    difference = export_onnx(model, TASKS, {"image": pictures}, tmp_path / "model.onnx")
    assert difference <= 1e-4
    assert model.training, "the training mode must come back"
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [item.name for item in session.get_outputs()] == ["linear", "image_output", "mean colour (RGB)", "how much"]
    assert session.get_modelmeta().custom_metadata_map["graftwork.format"] == "graftwork-onnx-1"
    for size in (1, 3, 4, 11):
        batch = np.resize(pictures, (size, 24, 24, 3))
        classes, yes, colour, order = session.run(None, {"image": batch})
        assert classes.shape == (size, 3)
        assert yes.shape == (size,)
        np.testing.assert_allclose(classes.sum(axis=1), 1.0, rtol=1e-5)
        np.testing.assert_allclose(order.sum(axis=1), 1.0, rtol=1e-5)
        assert abs(colour[:, 0] - 1e5).max() < 1e5


def test_paddings_are_constant_and_no_path_is_left(model, pictures, tmp_path) -> None:
    export_onnx(model, TASKS, {"image": pictures}, tmp_path / "model.onnx")
    written = onnx.load(tmp_path / "model.onnx")
    weights = {weight.name for weight in written.graph.initializer}
    (pad,) = (node for node in written.graph.node if node.op_type == "Pad")
    assert pad.input[1] in weights, "the padding must be a constant, so that ONNX Runtime can fuse it into the convolution"
    assert b".py" not in (tmp_path / "model.onnx").read_bytes()


@pytest.mark.slow
def test_the_second_exporter_steps_in(model, pictures, tmp_path, monkeypatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no symbolic form")

    monkeypatch.setattr(module, "_export_traced", fails)
    assert export_onnx(model, TASKS[:2], {"image": pictures}, tmp_path / "model.onnx") <= 1e-4


def test_nan_is_refused(model, pictures, tmp_path) -> None:
    with torch.no_grad():
        model.heads["head_0"].bias.fill_(float("nan"))
    with pytest.raises(GraftworkError, match="predicts NaN or infinity for task 'linear'"):
        export_onnx(model, TASKS, {"image": pictures}, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


class BatchDependent(SmallCNN):
    """Treats one batch size differently, in Python, which no graph can follow."""

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        features = super().encode(inputs, tasks)
        return features + 1.0 if features.shape[0] == 7 else features


@pytest.mark.slow
def test_a_graph_that_disagrees_is_never_left_behind(pictures, tmp_path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"older file")
    with pytest.raises(GraftworkError, match="could not be exported to ONNX within the tolerance 0.0001.*traced: task"):
        export_onnx(BatchDependent(TASKS), TASKS, {"image": pictures}, path)
    assert path.read_bytes() == b"older file"
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]


class Mixtures(SharedModel):
    """Two routed layers over five tokens; the last expert of each gets no token at all."""

    task_names = ("mean",)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([MoEAttention(64, 64, 6, 1), MoELayer(64, 64, 6, 2)])
        for layer in self.layers:
            assert isinstance(layer, RoutedLayer)
            assert layer.exports_sparse
            nn.init.normal_(layer.router.weights[0])
            with torch.no_grad():
                # The first value of every token is 1, and the layers pass it on.
                layer.router.weights[0][0] = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, -1e4])

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        states = inputs["tokens"]
        for layer in self.layers:
            states = torch.cat([states[..., :1], (states + layer(states))[..., 1:]], dim=2)
        return states.mean(dim=1)

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        assert isinstance(representation, Tensor)
        return {"mean": representation}

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        return iter(())


@pytest.mark.parametrize("example", ["one token again and again", "many tokens"])
def test_mixtures_of_experts_are_sparse_for_any_rows(example: str, tmp_path) -> None:
    torch.manual_seed(0)
    model = Mixtures().eval()
    tokens = torch.randn(32, 5, 64)
    tokens[..., 0] = 1.0
    rows = tokens[:1, :1].expand(4, 5, 64) if example.startswith("one") else tokens[:4]
    task = TaskSpec(name="mean", kind="regression", size=64, center=(0.0,) * 64, scale=(1.0,) * 64)
    export_onnx(model, [task], {"tokens": rows}, tmp_path / "model.onnx")
    written = onnx.load(tmp_path / "model.onnx")
    products = [node for node in written.graph.node if node.op_type == "Gemm"]
    assert len(products) == 2 * 2 * 6
    written.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in products)
    session = onnxruntime.InferenceSession(written.SerializeToString())
    for size in (1, 3, 32):
        with torch.no_grad():
            wanted = model({"tokens": tokens[:size]})["mean"].numpy()
        found, *results = session.run(None, {"tokens": tokens[:size].numpy()})
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        lengths = [len(result) for result in results]
        assert sum(lengths) == 2 * (1 + 2) * 5 * size, "each token is computed by its experts alone, in two products each"
        assert lengths.count(0) >= 4, "the last expert of both layers has nothing to do"


def test_output_names_never_clash() -> None:
    names = output_names(["image", "image_output", "a"], ["image"])
    assert names == {"image": "image_output_output", "image_output": "image_output", "a": "a"}
    assert len(set(names.values())) == 3


def test_each_part_keeps_its_mode(model: SmallCNN, pictures: np.ndarray, tmp_path: Path) -> None:
    model.train()
    model.trunk.eval()
    export_onnx(model, TASKS, {"image": pictures}, tmp_path / "model.onnx")
    assert model.training
    assert model.heads.training
    assert not any(part.training for part in model.trunk.modules())
