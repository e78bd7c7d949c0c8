from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input, table_input
from graftwork.core.records import TaskSpec
from graftwork.export.onnx_model import export_onnx
from graftwork.methods.sharing.taskexpert import TaskExpert, even_taps, tapped_maps
from graftwork.nn.backbones.cnn import ConvBackbone
from graftwork.nn.backbones.vit import ViTBackbone

TASKS = [
    TaskSpec(name="depth", kind="dense_regression", size=1, center=(0.0,), scale=(1.0,)),
    TaskSpec(name="edges", kind="dense_binary", size=1),
    TaskSpec(name="kind", kind="multiclass", size=3),
]
SMALL: Mapping[str, Any] = {
    "num_experts": 3,
    "expert_width": 4,
    "num_taps": 2,
    "channels": 4,
    "head_hidden": 8,
    "width": 8,
    "depth": 4,
    "num_heads": 2,
}


def build(**settings: Any) -> TaskExpert:
    torch.manual_seed(0)
    model = TaskExpert(TASKS, lambda: ConvBackbone(16), inputs=image_input(16), **{**SMALL, **settings})
    for parameter in model.parameters():  # gates start at zero: large enough that every path shows
        torch.nn.init.normal_(parameter, 0.0, 0.2)
    return model.eval()


def inputs(rows: int = 5, size: int = 16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"image": torch.randint(0, 256, (rows, size, size, 3), generator=generator, dtype=torch.uint8)}


def test_taps_are_even_and_end_with_the_last_block() -> None:
    assert even_taps(8, 4) == (1, 3, 5, 7)
    assert even_taps(3, 1) == (2,)
    for taps in (0, 4):
        with pytest.raises(ConfigError, match=f"got {taps}"):
            even_taps(3, taps)


def test_tapped_maps_are_what_the_trunk_passes_on() -> None:
    torch.manual_seed(0)
    trunk = ViTBackbone(16, width=8, depth=3, num_heads=2, feature_map=True).eval()
    first, last = tapped_maps(trunk, inputs(), (0, 2))
    torch.testing.assert_close(last, trunk(inputs()))
    torch.testing.assert_close(first, trunk.to_map(trunk.blocks[0](trunk.embed(inputs()))))


def test_a_given_transformer_is_used_and_another_trunk_replaced() -> None:
    trunk = ViTBackbone(16, width=8, depth=4, num_heads=2, feature_map=True)
    assert TaskExpert(TASKS, lambda: trunk, inputs=image_input(16), **SMALL).backbone is trunk
    assert isinstance(build().backbone, ViTBackbone)


def test_outputs_of_dense_and_whole_picture_tasks() -> None:
    shapes = {name: tuple(output.shape) for name, output in build()(inputs()).items()}
    assert shapes == {"depth": (5, 1, 16, 16), "edges": (5, 1, 16, 16), "kind": (5, 3)}


@pytest.mark.parametrize("settings", [{}, {"gate": "spatial"}, {"fusion": "last"}, {"residual": False}])
def test_memory_belongs_to_the_sample_and_to_one_pass(settings: dict[str, Any]) -> None:
    model = build(**settings)
    together, again = model(inputs()), model(inputs())
    alone = model({"image": inputs()["image"][2:3]})
    for name, output in together.items():
        assert torch.equal(output, again[name]), "nothing is left over from the pass before"
        torch.testing.assert_close(output[2:3], alone[name], rtol=1e-4, atol=1e-5)
    assert not list(model.buffers())


@pytest.mark.parametrize(("gate", "varies"), [("sample", True), ("spatial", True), ("static", False)])
def test_gates_depend_on_the_sample_unless_static(gate: str, varies: bool) -> None:
    gates = build(gate=gate).gates(inputs())
    assert set(gates) == {"depth", "edges", "kind"}
    for weights in gates.values():
        assert weights.shape == (2, 5, 4)
        torch.testing.assert_close(weights.sum(dim=2), torch.ones(2, 5))
        assert torch.equal(weights, weights[:, :1].expand_as(weights)) != varies
    assert not torch.allclose(gates["depth"], gates["edges"]), "each task has a gate of its own"


def test_memory_carries_the_first_layer_to_the_last_and_gates_read_it() -> None:
    for memory, carried in ((True, True), (False, False)):
        model = build(memory=memory)
        before = model.gates(inputs(), ["depth"])["depth"]
        with torch.no_grad():
            model.mixtures[0][0].refine[0].weight.mul_(-2.0)  # type: ignore[index, union-attr, operator]
        after = model.gates(inputs(), ["depth"])["depth"]
        assert torch.equal(before[0], after[0])
        assert torch.allclose(before[1], after[1]) != carried
    assert build(memory=False).gates(inputs())["kind"].shape == (2, 5, 3)


def test_one_tasks_memory_is_nothing_to_another() -> None:
    model = build()
    before = model(inputs())
    with torch.no_grad():
        model.first_memories[0].add_(torch.linspace(-1, 2, 4))
    after = model(inputs())
    assert not torch.allclose(before["depth"], after["depth"])
    assert torch.equal(before["edges"], after["edges"])


def test_larger_pictures_are_averaged_down() -> None:
    model = TaskExpert(TASKS, lambda: ConvBackbone(100), inputs=image_input(100), **SMALL)
    assert model(inputs(2, 100))["depth"].shape == (2, 1, 100, 100)


def test_wrong_settings() -> None:
    with pytest.raises(ConfigError, match="'first'"):
        build(fusion="first")
    with pytest.raises(ConfigError, match="needs `memory`"):
        build(fusion="last", memory=False)
    with pytest.raises(ConfigError, match="reads one input of the kind 'image'"):
        TaskExpert(TASKS, lambda: ConvBackbone(16), inputs=table_input(3))


def test_exports_for_any_number_of_rows(tmp_path: Path) -> None:
    assert export_onnx(build(), TASKS, inputs(), tmp_path / "m.onnx") < 1e-4
