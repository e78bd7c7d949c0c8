"""What every backbone must do: the Backbone seam. Backbones are found in their folder and through cards; each has to be built
here in small."""

from __future__ import annotations

import copy
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from discovery import found
from torch import Tensor, nn

import graftwork.nn.backbones
from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpec
from graftwork.core.optional import has
from graftwork.interfaces.backbone import Backbone, BlockBackbone
from graftwork.nn.backbones.behaviour import BehaviourBackbone
from graftwork.nn.backbones.cifar_resnet import CifarResNet
from graftwork.nn.backbones.class_token_vit import ClassTokenViT
from graftwork.nn.backbones.cnn import ConvBackbone
from graftwork.nn.backbones.joined import JoinedBackbone
from graftwork.nn.backbones.mini_conv import MiniConv
from graftwork.nn.backbones.mini_vit import MiniViT
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.nn.backbones.osnet import OSNet
from graftwork.nn.backbones.osnet_search import OSNetSearch
from graftwork.nn.backbones.series import SeriesBackbone
from graftwork.nn.backbones.swin import SwinBackbone
from graftwork.nn.backbones.table_net import TableNet
from graftwork.nn.backbones.text import TextBackbone
from graftwork.nn.backbones.timm_blocks import block_class
from graftwork.nn.backbones.timm_bridge import TimmBackbone
from graftwork.nn.backbones.transformers_bridge import BertBlocks, TransformersBackbone
from graftwork.nn.backbones.transformers_vision import VisionBackbone
from graftwork.nn.backbones.ttm import TtmBackbone
from graftwork.nn.backbones.vit import ViTBackbone
from graftwork.nn.taps import blocks_of, tapped

ROWS = 5
SWIN: dict[str, Any] = {"widths": (8, 16), "depths": (2, 2), "num_heads": (2, 2), "window": 2}
OSNET: dict[str, Any] = {"widths": (4, 8, 8, 12), "depths": (1, 1, 1), "stem": "small", "feature_width": 6}
MINI_VIT: dict[str, Any] = {"size": 32, "trained_size": 16, "width": 8, "depth": 2, "num_heads": 2}
MINI_CONV: dict[str, Any] = {"size": 32, "width": 8}
SEQUENCES = {"num_numeric": 4, "cardinalities": [6, 6, 6], "sequences": {"clicked": [1, 2]}, "query": 0}


def timm(layout: str) -> Backbone:
    if not has("timm"):
        pytest.skip("needs timm")
    import timm as library

    return TimmBackbone(library.create_model("resnet10t", num_classes=0), size=32, layout=layout)  # type: ignore[arg-type]


def timm_blocks(name: str, layout: str) -> Backbone:
    if not has("timm"):
        pytest.skip("needs timm")
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.vision_transformer import VisionTransformer

    model: nn.Module
    if name == "vit":
        model = VisionTransformer(img_size=32, patch_size=8, embed_dim=8, depth=3, num_heads=2, num_classes=0)
    else:
        sizes: dict[str, Any] = {"embed_dim": 8, "depths": (1, 2), "num_heads": (2, 2), "window_size": 4}
        model = SwinTransformer(img_size=32, patch_size=4, num_classes=0, drop_path_rate=0.0, **sizes)
    kind = block_class(model)
    assert kind is not None
    return kind(model, size=32, layout=layout)  # type: ignore[arg-type]


def bert(kind: type[TransformersBackbone] = TransformersBackbone) -> Backbone:
    if not has("transformers"):
        pytest.skip("needs transformers")
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12, "vocab_size": 30}
    return kind(BertModel(BertConfig(**sizes), add_pooling_layer=False))


def vision() -> Backbone:
    if not has("transformers"):
        pytest.skip("needs transformers")
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    return VisionBackbone(ViTModel(ViTConfig(image_size=16, patch_size=8, **sizes), add_pooling_layer=False), size=16)


CASES: dict[str, Callable[[], Backbone]] = {
    "TableBackbone": lambda: TableBackbone(4, [6, 6, 6], width=8, num_blocks=1),
    "TableNet": lambda: TableNet(4, [6, 12, 6], width=8, num_blocks=1),
    "ConvBackbone, vector": lambda: ConvBackbone(16),
    "CifarResNet": lambda: CifarResNet(8, channels=(4, 4, 8)),
    "ConvBackbone, map": lambda: ConvBackbone(16, feature_map=True),
    "TextBackbone": lambda: TextBackbone(30),
    "ViTBackbone, tokens": lambda: ViTBackbone(16, width=8, depth=2, num_heads=2),
    "ViTBackbone, map": lambda: ViTBackbone(16, width=8, depth=2, num_heads=2, feature_map=True),
    "MiniViT, vector": lambda: MiniViT(**MINI_VIT),
    "MiniViT, tokens": lambda: MiniViT(layout="tokens", **MINI_VIT),
    "MiniViT, map": lambda: MiniViT(layout="map", **MINI_VIT),
    "MiniConv, vector": lambda: MiniConv(**MINI_CONV),
    "MiniConv, map": lambda: MiniConv(layout="map", **MINI_CONV),
    "ClassTokenViT": lambda: ClassTokenViT(16, width=8, depth=2, num_heads=2),
    "SwinBackbone, vector": lambda: SwinBackbone(16, **SWIN),
    "SwinBackbone, map": lambda: SwinBackbone(16, feature_map=True, **SWIN),
    "OSNet, vector": lambda: OSNet(**OSNET),
    "OSNet, map": lambda: OSNet(feature_map=True, **OSNET),
    "OSNetSearch": lambda: OSNetSearch(**OSNET),
    "TimmBackbone, vector": lambda: timm("vector"),
    "TimmBackbone, map": lambda: timm("map"),
    "TimmViT, vector": lambda: timm_blocks("vit", "vector"),
    "TimmViT, map": lambda: timm_blocks("vit", "map"),
    "TimmSwin, vector": lambda: timm_blocks("swin", "vector"),
    "TimmSwin, map": lambda: timm_blocks("swin", "map"),
    "TransformersBackbone": bert,
    "BertBlocks": lambda: bert(BertBlocks),
    "VisionBackbone": vision,
    "BehaviourBackbone": lambda: BehaviourBackbone(SEQUENCES, width=8, hidden=12),
    "JoinedBackbone": lambda: joined(),
    "SeriesBackbone, vector": lambda: SeriesBackbone(12, 2, width=8),
    "SeriesBackbone, tokens": lambda: SeriesBackbone(12, 2, width=8, tokens=True),
    "TtmBackbone": lambda: TtmBackbone(12, 2, width=16, patch=4, levels=2, layers=1),
    "TtmBackbone, plain": lambda: TtmBackbone(12, 2, width=8, patch=5, levels=1, prefix=False),
}


def joined() -> Backbone:
    table = InputSpec(kind="table", arrays={"numeric": "numeric", "categorical": "categorical"})
    picture = InputSpec(kind="image", arrays={"image": "image"})
    parts: dict[str, tuple[Backbone, InputSpec]] = {
        "table": (TableBackbone(4, [6, 6, 6], width=8, num_blocks=1), table),
        "image": (ConvBackbone(16), picture),
    }
    return JoinedBackbone(parts, width=8)


def inputs_of(rows: int = ROWS) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    words = torch.randint(1, 30, (rows, 7), generator=random)
    return {
        "numeric": torch.randn(rows, 4, generator=random),
        "categorical": torch.randint(1, 6, (rows, 3), generator=random),
        "image": torch.randint(0, 256, (rows, 16, 16, 3), generator=random, dtype=torch.uint8),
        "tokens": words,
        "token_ids": words,
        "attention_mask": torch.ones_like(words),
        "series": torch.randn(rows, 12, 2, generator=random) * (known := torch.rand(rows, 12, 2, generator=random) > 0.2),
        "series_mask": known,
        "series_times": 3600.0 * torch.arange(12).expand(rows, -1),
    }


@pytest.fixture(params=CASES)
def build(request: pytest.FixtureRequest) -> Callable[[], Backbone]:
    def built() -> Backbone:
        torch.manual_seed(0)
        return CASES[request.param]()

    return built


def test_every_backbone_has_a_case() -> None:
    modules = [
        importlib.import_module(item.name)
        for item in pkgutil.iter_modules(graftwork.nn.backbones.__path__, "graftwork.nn.backbones.")
    ]
    classes = {
        name
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Backbone)
        and not name.startswith("_")
        and value.__module__ == module.__name__
    }
    assert {"TableBackbone", "ConvBackbone", "TextBackbone"} <= classes
    assert classes | set(found(Backbone)) == {name.partition(",")[0] for name in CASES}


def test_features_are_laid_out_as_declared(build: Callable[[], Backbone]) -> None:
    backbone = build().eval()
    shape = backbone.feature_shape
    for rows in (1, ROWS):
        features = backbone(inputs_of(rows))
        assert features.dtype == torch.float32
        assert bool(features.isfinite().all())
        if shape.layout == "tokens":
            assert features.shape == (rows, *(shape.extent or features.shape[1:2]), shape.width)
        else:
            extent = features.shape[2:] if shape.layout == "map" and not shape.extent else shape.extent
            assert features.shape == (rows, shape.width, *extent)
            assert len(extent) == {"vector": 0, "map": 2}[shape.layout]


def test_equal_seeds_give_equal_weights_and_features(build: Callable[[], Backbone]) -> None:
    first, second = build().eval(), build().eval()
    assert first.fingerprint() == second.fingerprint()
    assert torch.equal(first(inputs_of()), second(inputs_of()))
    assert torch.equal(first(inputs_of()), first(inputs_of())), "evaluation draws nothing and remembers nothing"


def test_inputs_are_left_alone(build: Callable[[], Backbone]) -> None:
    inputs = inputs_of()
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    backbone = build()
    backbone(inputs)
    backbone.eval()(inputs)
    assert list(inputs) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in inputs.items())


def test_rows_do_not_see_each_other_in_evaluation(build: Callable[[], Backbone]) -> None:
    backbone, inputs = build().eval(), inputs_of()
    alone = torch.cat([backbone({name: tensor[row : row + 1] for name, tensor in inputs.items()}) for row in range(ROWS)])
    torch.testing.assert_close(backbone(inputs), alone, rtol=1e-4, atol=1e-5)


def test_the_state_goes_through_tensors(build: Callable[[], Backbone]) -> None:
    backbone, other = build().eval(), build().eval()
    for parameter in other.parameters():
        nn.init.normal_(parameter, std=0.1)
    assert other.fingerprint() != backbone.fingerprint()
    other.load_state_dict({name: tensor.clone() for name, tensor in backbone.state_dict().items()})
    assert other.fingerprint() == backbone.fingerprint()
    assert torch.equal(other(inputs_of()), backbone(inputs_of()))
    twin = copy.deepcopy(backbone)
    assert torch.equal(twin(inputs_of()), backbone(inputs_of()))


def test_every_parameter_is_reached(build: Callable[[], Backbone]) -> None:
    backbone = build()
    for parameter in backbone.parameters():  # layers that start at zero would hide those before them
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    features = backbone(inputs_of())
    (features * torch.randn(features.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
    idle = [name for name, parameter in backbone.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert not idle


def test_all_tensors_move_along(build: Callable[[], Backbone]) -> None:
    """A constant that is neither parameter nor buffer stays on the CPU and meets tensors of the meta device."""
    backbone = build().eval()
    shape = backbone(inputs_of()).shape
    try:
        moved = backbone.to("meta")({name: tensor.to("meta") for name, tensor in inputs_of().items()})
    except RuntimeError as error:
        if "item() cannot be called on meta tensors" in str(error):
            pytest.skip("the library looks at values")
        raise
    assert moved.device.type == "meta"
    assert moved.shape == shape


def test_double_precision_goes_through(build: Callable[[], Backbone]) -> None:
    backbone = build().eval()
    single = backbone(inputs_of())
    inputs = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in inputs_of().items()}
    torch.testing.assert_close(backbone.double()(inputs).float(), single, rtol=1e-3, atol=1e-4)


def chain_of(build: Callable[[], Backbone]) -> BlockBackbone:
    backbone = build().eval()
    if not isinstance(backbone, BlockBackbone):
        with pytest.raises(
            ConfigError, match=f"side tuning works on the blocks of a trunk, and {type(backbone).__name__} has none"
        ):
            blocks_of(backbone, "side tuning")
        pytest.skip("has no blocks, and says so")
    assert blocks_of(backbone, "side tuning") is backbone
    return backbone


def test_the_forward_pass_is_its_blocks(build: Callable[[], Backbone]) -> None:
    backbone, inputs = chain_of(build), inputs_of()
    inputs["attention_mask"][1, 4:] = 0
    states = backbone.embed(inputs)
    for number in range(len(backbone.block_list())):
        states = backbone.run_block(number, states, inputs)
    torch.testing.assert_close(backbone.finish(states, inputs), backbone(inputs), rtol=1e-5, atol=1e-6)


def test_taps_read_every_depth_as_declared(build: Callable[[], Backbone]) -> None:
    backbone, inputs = chain_of(build), inputs_of()
    plain, shapes = backbone(inputs), backbone.block_shapes()
    assert len(shapes) == len(backbone.block_list())
    with tapped(backbone, range(len(shapes))) as found:
        assert torch.equal(backbone(inputs), plain), "a tap changes nothing"
    for number, shape in enumerate(shapes):
        features = found[number]
        if shape.layout == "tokens":
            assert features.shape == (ROWS, *(shape.extent or features.shape[1:2]), shape.width)
        else:
            assert features.shape == (ROWS, shape.width, *(shape.extent or features.shape[2:]))
            assert features.ndim == 4 if shape.layout == "map" else features.ndim == 2
    assert not any(block._forward_hooks for block in backbone.block_list()), "no hooks stay"
    backbone.zero_grad(set_to_none=True)
    found[0].square().mean().backward()
    reached = [parameter for parameter in backbone.block_list()[0].parameters() if parameter.grad is not None]
    assert reached
    assert all(parameter.grad is None for parameter in backbone.block_list()[-1].parameters())


def test_taps_count_from_the_end_and_refuse_what_is_not_there(build: Callable[[], Backbone]) -> None:
    backbone, inputs = chain_of(build), inputs_of()
    last = len(backbone.block_list()) - 1
    with tapped(backbone, [-1, last]) as found:
        backbone(inputs)
    assert torch.equal(found[-1], found[last])
    with (
        pytest.raises(ConfigError, match=f"There is no block {last + 1}; this trunk has {last + 1}, from 0 to {last}"),
        tapped(backbone, [last + 1]),
    ):
        pass
    with pytest.raises(RuntimeError, match="stop"), tapped(backbone, [0]):
        raise RuntimeError("stop")
    assert not any(block._forward_hooks for block in backbone.block_list())
