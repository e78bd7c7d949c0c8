"""Operators that work on blocks take every trunk that has some, and train and export with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input, text_input
from graftwork.core.records import TaskSpec
from graftwork.export.onnx_model import export_onnx
from graftwork.interfaces.backbone import BlockBackbone
from graftwork.interfaces.shared_model import SharedModel
from graftwork.methods.sharing.m3vit import M3ViT
from graftwork.methods.sharing.mod_moe import ModMoE
from graftwork.methods.sharing.taskexpert import TaskExpert
from graftwork.nn.backbones.swin import SwinBackbone
from graftwork.nn.backbones.timm_blocks import block_class
from graftwork.nn.backbones.transformers_bridge import BertBlocks
from graftwork.nn.moe import routed_layers

TASKS = (TaskSpec(name="kind", kind="multiclass", size=3), TaskSpec(name="big", kind="binary", size=1))
SIDE, WORDS = 32, 6


def timm_vit() -> BlockBackbone:
    timm = pytest.importorskip("timm")
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=SIDE, patch_size=8, embed_dim=16, depth=4, num_heads=2, num_classes=0
    )
    made = block_class(model)
    assert made is not None
    return made(model, size=SIDE)


def timm_swin() -> BlockBackbone:
    timm = pytest.importorskip("timm")
    model = timm.models.swin_transformer.SwinTransformer(
        img_size=SIDE, patch_size=4, embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=4, num_classes=0
    )
    made = block_class(model)
    assert made is not None
    return made(model, size=SIDE)


def own_swin() -> BlockBackbone:
    return SwinBackbone(SIDE, patch=4, widths=(8, 16), depths=(2, 2), num_heads=(2, 2))


def bert() -> BlockBackbone:
    library = pytest.importorskip("transformers")
    config = library.BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=WORDS,
    )
    return BertBlocks(library.BertModel(config, add_pooling_layer=False).eval())


def rows(trunk: Callable[[], BlockBackbone], number: int = 5) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    if trunk is bert:
        mask = torch.ones(number, WORDS, dtype=torch.int64)
        mask[0, 3:] = 0
        return {"token_ids": torch.randint(0, 20, (number, WORDS), generator=draw), "attention_mask": mask}
    return {"image": torch.randint(0, 256, (number, SIDE, SIDE, 3), dtype=torch.uint8, generator=draw)}


OPERATORS = {
    "M3ViT": lambda make, inputs: M3ViT(TASKS, make, inputs=inputs, num_experts=3, top_k=1),
    "ModMoE": lambda make, inputs: ModMoE(
        TASKS, make, inputs=inputs, num_experts=3, top_k=2, attention_experts=3, attention_top_k=2
    ),
    "ModMoE, feed only": lambda make, inputs: ModMoE(TASKS, make, inputs=inputs, num_experts=3, top_k=2, attention_experts=0),
    "TaskExpert": lambda make, inputs: TaskExpert(
        TASKS, make, inputs=inputs, num_taps=2, num_experts=2, expert_width=4, channels=4
    ),
}
PAIRS = [
    ("M3ViT", timm_vit),
    ("M3ViT", timm_swin),
    ("M3ViT", own_swin),
    ("M3ViT", bert),
    ("ModMoE", timm_vit),
    ("ModMoE, feed only", bert),
    ("TaskExpert", timm_vit),
]


def build(name: str, trunk: Callable[[], BlockBackbone]) -> SharedModel:
    torch.manual_seed(0)
    inputs = text_input(20, WORDS) if trunk is bert else image_input(SIDE)
    return OPERATORS[name](trunk, inputs)


@pytest.mark.parametrize(("name", "trunk"), PAIRS)
def test_the_trunk_is_kept_and_everything_of_it_learns(name: str, trunk: Callable[[], BlockBackbone]) -> None:
    model = build(name, trunk)
    assert type(model.backbone) is type(trunk()), "no trunk is replaced"
    outputs = model(rows(trunk))
    assert {task: tuple(output.shape) for task, output in outputs.items()} == {"kind": (5, 3), "big": (5, 1)}
    loss = torch.stack([output.square().mean() for output in outputs.values()]).sum()
    auxiliary = model.pop_auxiliary_loss()
    (loss if auxiliary is None else loss + auxiliary).backward()
    missing = [key for key, parameter in model.backbone.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert not [key for key in missing if "experts" not in key and "expand" not in key and "contract" not in key], missing


@pytest.mark.parametrize(("name", "trunk"), [pair for pair in PAIRS if pair[0] != "TaskExpert"])
def test_tasks_have_routes_of_their_own(name: str, trunk: Callable[[], BlockBackbone]) -> None:
    model = build(name, trunk).eval()
    layers = routed_layers(model.backbone)
    assert len(layers) >= 2
    for layer in layers.values():
        for parameter in layer.router.parameters():
            torch.nn.init.normal_(parameter)
    first, second = model.encode(rows(trunk))
    assert not torch.allclose(first, second)
    alone = model.encode(rows(trunk), ["big"])[0]
    torch.testing.assert_close(alone, second)


@pytest.mark.parametrize(("name", "trunk"), PAIRS)
def test_it_exports(name: str, trunk: Callable[[], BlockBackbone], tmp_path: Path) -> None:
    assert export_onnx(build(name, trunk).eval(), TASKS, rows(trunk), tmp_path / "m.onnx") < 1e-4


def test_padding_does_not_reach_the_words() -> None:
    model = build("M3ViT", bert).eval()
    inputs = rows(bert)
    other = {**inputs, "token_ids": torch.where(inputs["attention_mask"] == 0, 7, inputs["token_ids"])}
    torch.testing.assert_close(model(other)["kind"], model(inputs)["kind"])


def test_what_a_trunk_cannot_do_is_said() -> None:
    with pytest.raises(ConfigError, match=r"all blocks need one width; SwinBackbone has \[8, 16\]"):
        build("ModMoE, feed only", own_swin)
    with pytest.raises(ConfigError, match="BertLayer attends in windows or under a mask. Leave the attention experts out"):
        build("ModMoE", bert)
    with pytest.raises(ConfigError, match="must have one width and size; SwinBackbone has"):
        build("TaskExpert", own_swin)
