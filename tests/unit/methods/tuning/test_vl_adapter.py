from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input
from graftwork.core.records import TaskSpec
from graftwork.methods.tuning.vl_adapter import Scheme, VLAdapter
from graftwork.nn.adapter_sources import GeneratedAdapters, KroneckerLinear, SharedAdapters
from graftwork.nn.backbones.catalog import build_backbone
from graftwork.nn.backbones.vit import ViTBackbone
from graftwork.nn.module_delta import load_delta

TASKS = tuple(TaskSpec(name=name, kind="binary", size=1) for name in ("a", "b"))
PICTURES = {"image": torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))}
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
CASES = [*((scheme, kind) for scheme in SCHEMES for kind in ("bottleneck", "compacter")), ("multiple", "hyperformer")]
WIDTH, SLIM, PLACES = 8, 4, 2


def trunk() -> ViTBackbone:
    torch.manual_seed(0)
    return ViTBackbone(16, patch=8, width=WIDTH, depth=PLACES, num_heads=2)


def build(scheme: Any = "single", kind: Any = "bottleneck", **settings: Any) -> VLAdapter:
    settings = {"reduction": 2, "kronecker": 2, "embedding": 4, **settings}
    return VLAdapter(TASKS, trunk, inputs=image_input(16), scheme=scheme, kind=kind, **settings)


def moved(model: VLAdapter) -> VLAdapter:
    generator = torch.Generator().manual_seed(3)
    for parameter in model.source.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def features(model: VLAdapter) -> tuple[Tensor, ...]:
    found = model.encode(PICTURES)
    return found if isinstance(found, tuple) else (found, found)


@pytest.mark.parametrize(("scheme", "kind"), CASES)
def test_adapters_begin_without_effect_and_every_task_is_a_delta_of_plain_adapters(
    scheme: str, kind: str, tmp_path: Path
) -> None:
    model = build(scheme, kind)
    before = trunk().eval()(PICTURES)
    for found in features(model.eval()):
        torch.testing.assert_close(found, before, rtol=1e-5, atol=1e-5)
    moved(model)
    for parameter in model.backbone.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1
    expected = features(model)
    assert torch.equal(expected[0], expected[1]) is (scheme == "single")
    for task, output in zip(model.task_names, expected, strict=True):
        model.delta(task).save(tmp_path / "delta.safetensors")
        base = trunk().eval()
        load_delta(tmp_path / "delta.safetensors").attach(base)
        torch.testing.assert_close(base(PICTURES), output, rtol=1e-4, atol=1e-5)


def test_schemes_lie_between_by_parameters_and_tasks_own_what_is_theirs() -> None:
    models = {scheme: build(scheme) for scheme in SCHEMES}
    counts = {scheme: sum(item.numel() for item in model.source.parameters()) for scheme, model in models.items()}
    down, up = PLACES * (WIDTH * SLIM + SLIM), PLACES * (WIDTH * SLIM + WIDTH)
    assert counts == {"single": down + up, "half-down": down + 2 * up, "half-up": 2 * down + up, "multiple": 2 * (down + up)}
    for scheme, model in models.items():
        own = sum(item.numel() for item in model.own_parameters(0))
        assert own == {"single": 0, "half-down": up, "half-up": down, "multiple": down + up}[scheme]


def test_single_adapters_run_the_backbone_once() -> None:
    for scheme, runs in (("single", 1), ("half-up", 2)):
        model, calls = build(scheme).eval(), list[int]()
        handle = model.backbone.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        model(PICTURES)
        handle.remove()
        assert len(calls) == runs
        assert model.has_shared_representation is (scheme == "single")


def test_a_model_can_be_copied_after_a_pass_with_gradients() -> None:
    for scheme, kind in (("multiple", "hyperformer"), ("single", "compacter")):
        model = build(scheme, kind)
        model(PICTURES)["a"].sum().backward()
        torch.testing.assert_close(copy.deepcopy(model)(PICTURES)["a"], model(PICTURES)["a"])


@pytest.mark.parametrize(("scheme", "kind"), [("half-up", "compacter"), ("multiple", "hyperformer")])
def test_the_graph_holds_the_adapters_of_every_task(scheme: str, kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from graftwork.export.onnx_model import export_onnx

    assert export_onnx(moved(build(scheme, kind)), TASKS, PICTURES, tmp_path / "model.onnx") < 1e-3


def test_kronecker_products_by_hand() -> None:
    torch.manual_seed(0)
    layer, rules = KroneckerLinear(4, 6, 2, starts_at_zero=False), torch.randn(2, 2, 2)
    expected = sum(torch.kron(rules[i], torch.outer(layer.left[i], layer.right[i])) for i in range(2))
    torch.testing.assert_close(layer.matrix(rules), expected)


def test_small_matrices_are_shared_by_all_places_and_tasks() -> None:
    source = SharedAdapters([(8, 4), (8, 4)], 3, share_down=False, share_up=False, kronecker=2)
    rules = sum(item.numel() for item in source.rules or [])
    assert rules == 2 * 2**3
    each = (2 * (4 // 2) + 2 * (8 // 2) + 4) + (2 * (8 // 2) + 2 * (4 // 2) + 8)
    assert sum(item.numel() for item in source.parameters()) == rules + 2 * 3 * each


def test_one_network_makes_all_adapters_of_a_size() -> None:
    source = GeneratedAdapters([(8, 4), (8, 4), (6, 3)], 2, embedding=5)
    assert len(source.downs) == 2
    first, second = source.weights(0, 0), source.weights(1, 0)
    assert first.down.shape == (4, 8)
    assert not torch.equal(first.down, second.down), "places have embeddings of their own"
    assert not torch.equal(first.down, source.weights(0, 1).down), "and tasks"
    assert not bool(first.up.any())
    assert source.weights(2, 1).up.shape == (6, 3)
    assert sum(item.numel() for item in source.own(1)) == 5


def test_norms_learn_unless_asked_not_to() -> None:
    learned = {name for name, item in build().backbone.named_parameters() if item.requires_grad}
    assert learned
    assert all("norm" in name for name in learned)
    assert not any(item.requires_grad for item in build(train_norms=False).backbone.parameters())


def test_the_shipped_convolutional_network_has_adapters_behind_its_pointwise_convolutions() -> None:
    backbone = build_backbone("conv-mini", size=32).eval()
    expected = backbone(PICTURES)
    model = VLAdapter(TASKS, lambda: copy.deepcopy(backbone), inputs=image_input(16), scheme="half-up").eval()
    torch.testing.assert_close(features(model)[1], expected, rtol=1e-4, atol=1e-4)
    moved(model)
    delta = model.delta("b")
    delta.attach(backbone)
    torch.testing.assert_close(backbone(PICTURES), features(model)[1], rtol=1e-2, atol=1e-2)


def test_words_that_do_not_go_together_are_named() -> None:
    for settings, message in (
        ({"scheme": "double"}, "`scheme` must be one of single, half-down, half-up, multiple; got 'double'"),
        ({"kind": "lora"}, "`kind` must be one of bottleneck, compacter, hyperformer; got 'lora'"),
        ({"reduction": 0}, "at least 1; got 0, 2, 4"),
        ({"kind": "hyperformer"}, "scheme='single' does not go with it"),
        ({"kind": "compacter", "kronecker": 3}, "3 does not divide 8"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(**settings)
    with pytest.raises(ConfigError, match="There is no task 'c'"):
        build().delta("c")
