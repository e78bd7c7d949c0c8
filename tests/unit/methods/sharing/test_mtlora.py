from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input, table_input
from graftwork.core.records import TaskSpec
from graftwork.export.onnx_model import export_onnx
from graftwork.methods.sharing.mtlora import MTLoRA
from graftwork.nn.backbones.cnn import ConvBackbone
from graftwork.nn.backbones.swin import SwinBackbone
from graftwork.nn.lora import LowRankLinear, fold_layers
from graftwork.nn.task_lora import TaskLowRankLinear

TASKS = [
    TaskSpec(name="depth", kind="dense_regression", size=1, center=(0.0,), scale=(1.0,)),
    TaskSpec(name="edges", kind="dense_binary", size=1),
    TaskSpec(name="kind", kind="multiclass", size=3),
]
BASE: Mapping[str, Any] = {"widths": (8, 16), "depths": (2, 2), "num_heads": (2, 2), "window": 4}
SMALL: Mapping[str, Any] = {"shared_rank": 2, "task_rank": 2, "channels": 4, "head_hidden": 8, "dropout": 0.0}
MODES = ["matrix", "matrixv2", "addition", "lora_only"]


def base() -> SwinBackbone:
    torch.manual_seed(3)
    return SwinBackbone(16, **BASE)


def build(*, start: bool = False, **settings: Any) -> MTLoRA:
    torch.manual_seed(0)
    model = MTLoRA(TASKS, base, inputs=image_input(16), **{**SMALL, **settings})
    for parameter in [] if start else model.parameters():  # updates start at zero: large enough that every path shows
        nn.init.normal_(parameter, 0.0, 0.2)
    return model.eval()


def inputs(rows: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"image": torch.randint(0, 256, (rows, 16, 16, 3), generator=generator, dtype=torch.uint8)}


@pytest.mark.parametrize("mode", ["matrix", "matrixv2", "lora_only"])
def test_at_the_start_every_stream_is_the_bases_own(mode: str) -> None:
    model, plain = build(start=True, mode=mode), base().eval()
    states = plain.embed(inputs())
    for stage, streams in zip(plain.stages(), model._stream_maps(inputs(), [0, 1, 2]), strict=True):
        states = stage(states)
        torch.testing.assert_close(streams, states.permute(0, 3, 1, 2).expand_as(streams), rtol=1e-4, atol=1e-5)


def test_updates_are_where_the_paper_puts_them() -> None:
    model = build()
    for stage in model.backbone.stages():
        *plain, last = stage.blocks
        for block in plain:
            assert all(isinstance(getattr(block, name), LowRankLinear) for name in ("project", "output", "expand", "contract"))
        assert isinstance(last.project, LowRankLinear), "query, key and value are never task-specific"
        assert all(isinstance(getattr(last, name), TaskLowRankLinear) for name in ("output", "expand", "contract"))
        if stage.merge is not None:
            assert type(stage.merge.reduction) is nn.Linear
    last = model.backbone.stages()[-1].blocks[-1]
    assert last.expand.shared is not None  # type: ignore[union-attr]
    assert last.contract.shared is None, "nothing reads the shared stream behind the last layer"  # type: ignore[union-attr]
    layers = [layer for layer in model.modules() if isinstance(layer, LowRankLinear)]
    assert {layer.scaling for layer in layers} == {4.0}, "not divided by the rank"


def test_the_forked_block_is_the_written_out_formula() -> None:
    model = build()
    stage = model.backbone.stages()[0]
    states = model.backbone.embed(inputs())
    block: Any = stage.blocks[1]
    states = stage.blocks[0](states)
    gathered = block.mix(block.attention_norm(states))
    frozen, update = block.output.base(gathered), block.output.updates
    shared = states + frozen + block.output.shared(gathered)
    stream = states + frozen + update[2](gathered)  # the shortcut of the task's own stream
    normed, task_normed = block.feed_norm(shared), block.feed_norm(stream)
    hidden = F.gelu(block.expand.base(normed) + block.expand.shared(normed))
    task_hidden = F.gelu(block.expand.base(normed) + block.expand.updates[2](task_normed))
    stream = stream + block.contract.base(hidden) + block.contract.updates[2](task_hidden)
    assert stage.merge is not None
    found = model._stream_maps(inputs(), [0, 2])[0]
    torch.testing.assert_close(found[1], stage.merge(stream).permute(0, 3, 1, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["matrix", "matrixv2", "addition"])
def test_a_tasks_update_moves_its_own_stream_alone_unless_streams_are_added(mode: str) -> None:
    model = build(mode=mode)
    before = model(inputs())
    layer: Any = model.backbone.stages()[0].blocks[-1].output
    with torch.no_grad():
        layer.updates[0].up.weight.add_(0.5 * torch.randn_like(layer.updates[0].up.weight))
    after = model(inputs())
    assert not torch.allclose(before["depth"], after["depth"])
    assert torch.equal(before["edges"], after["edges"]) == (mode != "addition")


@pytest.mark.parametrize("mode", MODES)
def test_asked_tasks_alone_give_the_same(mode: str) -> None:
    model = build(mode=mode)
    full = model(inputs())
    assert {name: tuple(output.shape) for name, output in full.items()} == {
        "depth": (4, 1, 16, 16),
        "edges": (4, 1, 16, 16),
        "kind": (4, 3),
    }
    some = model(inputs(), ["kind", "depth"])
    assert list(some) == ["kind", "depth"]
    for name, output in some.items():
        torch.testing.assert_close(output, full[name], rtol=1e-5, atol=1e-5)


def test_streams_that_are_not_asked_are_not_computed() -> None:
    model, ran = build(), []
    for index, update in enumerate(model.backbone.stages()[0].blocks[-1].output.updates):  # type: ignore[union-attr, arg-type]
        update.register_forward_hook(lambda *_, index=index: ran.append(index))
    model.encode(inputs(), ["edges"])
    assert ran == [1]


def trained(model: MTLoRA) -> set[str]:
    return {name.removeprefix("backbone.") for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_flags_say_what_else_is_trained() -> None:
    everything = trained(build())
    assert {"patches.weight", "patch_norm.weight", "_stages.0.merge.reduction.weight"} <= everything
    assert "_stages.1.blocks.0.position_bias" in everything
    assert not any("base" in name for name in everything)
    off = dict.fromkeys(("train_patches", "train_norms", "train_position_bias", "train_merging"), False)
    assert all(".down." in name or ".up." in name or "_decoders" in name for name in trained(build(**off)))
    plus = trained(build(merging_lora=True))
    assert {"_stages.0.merge.reduction.down.weight"} <= plus
    assert "_stages.0.merge.reduction.base.weight" not in plus


def test_ranks_per_task() -> None:
    model = build(task_rank={"depth": 1, "edges": 2, "kind": 3})
    layer: Any = model.backbone.stages()[0].blocks[-1].expand
    assert [update.rank for update in layer.updates] == [1, 2, 3]


def test_the_shared_updates_fold_for_deployment() -> None:
    model = build()
    before = model(inputs())
    assert fold_layers(model) == 10  # 4 of each plain block and the query-key-value layer of each forked one
    for name, output in model(inputs()).items():
        torch.testing.assert_close(output, before[name], rtol=1e-4, atol=1e-4)


def test_whoever_has_no_pretrained_swin_is_told() -> None:
    with pytest.raises(ConfigError, match="pretrained hierarchical transformer"):
        MTLoRA(TASKS, lambda: ConvBackbone(16), inputs=image_input(16))
    own = MTLoRA(TASKS, lambda: ConvBackbone(16), inputs=image_input(16), **SMALL, new_base=BASE)
    assert own.backbone.size == 16
    with pytest.raises(ConfigError, match="reads one input of the kind 'image'"):
        MTLoRA(TASKS, base, inputs=table_input(2), new_base={})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "sum"}, "'sum'"),
        ({"shared_rank": 0}, "`shared_rank` must be at least 1"),
        ({"task_rank": {"depth": 2}}, "'edges': 0"),
        ({"channels": [4]}, "number of channels"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(**settings)


@pytest.mark.parametrize("mode", ["matrix", "addition"])
def test_exports_for_any_number_of_rows(mode: str, tmp_path: Path) -> None:
    assert export_onnx(build(mode=mode), TASKS, inputs(), tmp_path / "m.onnx") < 1e-3


def test_a_swin_of_timm_serves_as_base() -> None:
    timm_swin = pytest.importorskip("timm.models.swin_transformer")
    from graftwork.nn.backbones.timm_bridge import TimmBackbone

    torch.manual_seed(0)
    model = timm_swin.SwinTransformer(
        img_size=32, patch_size=4, embed_dim=8, depths=(1, 2), num_heads=(2, 2), window_size=4, num_classes=0
    )
    bridge = TimmBackbone(model, size=32).eval()  # no stochastic depth
    adapted = MTLoRA(TASKS, lambda: bridge, inputs=image_input(16), **SMALL).eval()
    streams = adapted._stream_maps(inputs(), [0])
    states = bridge.model.patch_embed(_as_timm_sees(inputs()))
    torch.testing.assert_close(streams[-1][0], bridge.model.layers(states).permute(0, 3, 1, 2), rtol=1e-4, atol=1e-5)
    assert adapted(inputs())["depth"].shape == (4, 1, 16, 16)


def _as_timm_sees(given: Mapping[str, torch.Tensor]) -> torch.Tensor:
    pictures = given["image"].permute(0, 3, 1, 2).float() / 255.0
    return (F.interpolate(pictures, size=(32, 32), mode="bilinear", align_corners=False) - 0.5) / 0.5
