"""LoRA: choice of layers, only adapters learn, folding, and what users are told."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.methods.tuning.lora import LoRA, select_layers
from graftwork.nn.lora import fold_layers


class SmallConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise = nn.Conv2d(8, 6, 1)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(6, 6, 1), nn.GELU()) for _ in range(2)])

    def forward(self, pictures: Tensor) -> Tensor:
        state = self.pointwise(self.depthwise(nn.functional.gelu(self.norm(self.stem(pictures)))))
        for block in self.blocks:
            state = block(state)
        return state.mean(dim=(2, 3))


class SmallText(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(5, 7)
        self.inner = nn.ModuleDict({"query": nn.Linear(7, 4, bias=False)})
        self.norm = nn.LayerNorm(4)

    def forward(self, states: Tensor) -> Tensor:
        return self.norm(self.inner["query"](torch.tanh(self.query(states))))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def set_updates(tuner: LoRA, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in tuner.trainable():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("auto", ["pointwise", "blocks.0.0", "blocks.1.0"]),
        (["stem"], ["stem"]),
        (["0"], ["blocks.0.0", "blocks.1.0"]),
        (["blocks.1.0", "pointwise"], ["pointwise", "blocks.1.0"]),
        (r"blocks\.\d\.0", ["blocks.0.0", "blocks.1.0"]),
    ],
)
def test_layers_are_chosen_by_end_of_name_or_expression(target: str | list[str], expected: list[str]) -> None:
    if target == ["0"]:  # a Sequential called "blocks.0" also ends in ".0": it takes no update, and the message says so
        with pytest.raises(ConfigError, match=r"also matches blocks\.0 \(Sequential\)"):
            select_layers(SmallConvNet(), target)
    else:
        assert select_layers(SmallConvNet(), target) == expected


def test_auto_and_all_linear_take_every_linear_layer() -> None:
    assert select_layers(SmallText(), "auto") == ["query", "inner.query"]
    assert select_layers(SmallText(), "all-linear") == ["query", "inner.query"]
    assert select_layers(SmallText(), ["query"]) == ["query", "inner.query"]
    assert select_layers(SmallText(), ["inner.query"]) == ["inner.query"]


def test_messages_name_what_can_be_chosen() -> None:
    with pytest.raises(ConfigError, match=r"'all-linear' matches no layer.*stem, pointwise"):
        select_layers(SmallConvNet(), "all-linear")
    with pytest.raises(ConfigError, match=r"Nearest: pointwise"):
        select_layers(SmallConvNet(), ["pointwize"])
    with pytest.raises(ConfigError, match=r"depthwise \(Conv2d\)"):
        select_layers(SmallConvNet(), ["depthwise"])
    with pytest.raises(ConfigError, match=r"no valid regular expression"):
        select_layers(SmallConvNet(), "blocks[")
    with pytest.raises(ConfigError, match=r"no Linear layer and no Conv2d layer"):
        select_layers(nn.Sequential(nn.ReLU()), "auto")


@pytest.mark.parametrize(
    ("settings", "message"), [({"r": 0}, "`r` must be at least 1; got 0"), ({"lora_dropout": 1.0}, r"in \[0, 1\); got 1.0")]
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoRA(**settings)  # type: ignore[arg-type]


def test_one_tuner_serves_one_model() -> None:
    tuner = LoRA(r=2)
    with pytest.raises(ConfigError, match="attached to no model yet"):
        tuner.fold()
    tuner.attach(SmallText())
    with pytest.raises(ConfigError, match="attached to a model already"):
        tuner.attach(SmallText())


def test_scaling_follows_alpha_and_rank() -> None:
    assert LoRA(r=4, lora_alpha=8).scaling == 2.0
    assert LoRA(r=4, lora_alpha=8, use_rslora=True).scaling == 4.0


def test_update_by_hand() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    model[0].weight.data = torch.eye(2)
    tuner = LoRA(r=1, lora_alpha=3.0)
    tuner.attach(model)
    layer = tuner.layers["0"]
    layer.down.weight.data = torch.tensor([[1.0, 2.0]])  # type: ignore[assignment]
    layer.up.weight.data = torch.tensor([[1.0], [-1.0]])  # type: ignore[assignment]
    # x = (1, 1): A x = 3, B A x = (3, -3), times 3 = (9, -9), plus x
    assert model(torch.ones(1, 2)).tolist() == [[10.0, -8.0]]
    assert layer.weight_delta().tolist() == [[3.0, 6.0], [-3.0, -6.0]]


@pytest.mark.parametrize(("kind", "shape"), [(SmallConvNet, (4, 3, 9, 9)), (SmallText, (4, 5))])
def test_only_updates_learn_and_statistics_stay(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    model = kind()
    tuner = LoRA(r=2)
    tuner.attach(model)
    before = copy.deepcopy(model.state_dict())
    model.train()
    optimiser = torch.optim.SGD(tuner.trainable(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        model(torch.randn(shape)).square().sum().backward()
        optimiser.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{name}.{part}.weight" for name in tuner.layers for part in ("down", "up")}
    assert {id(parameter) for parameter in tuner.trainable()} == {id(p) for p in model.parameters() if p.requires_grad}


def reflecting() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"))


def uneven() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, (3, 1), stride=(1, 2), padding="valid", dilation=(2, 1)))


@pytest.mark.parametrize(
    ("build", "targets", "shape"),
    [
        (SmallConvNet, "auto", (4, 3, 9, 9)),
        (SmallConvNet, ["stem", "pointwise"], (4, 3, 9, 9)),
        (reflecting, ["0"], (2, 3, 6, 6)),
        (uneven, ["0"], (2, 3, 8, 8)),
        (SmallText, "auto", (4, 5)),
    ],
)
def test_fold_computes_the_same_with_the_original_structure(
    build: Callable[[], nn.Module], targets: str | list[str], shape: tuple[int, ...]
) -> None:
    model = build()
    names = list(model.state_dict())
    plain = copy.deepcopy(model.state_dict())
    tuner = LoRA(r=3, target_modules=targets)
    tuner.attach(model)
    set_updates(tuner)
    model.eval()
    inputs = torch.randn(shape)
    tuned = model(inputs)
    tuner.fold()
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(inputs), tuned, rtol=1e-5, atol=1e-5)
    assert any(not torch.equal(tensor, plain[name]) for name, tensor in model.state_dict().items())
    tuner.fold()  # a second fold changes nothing
    torch.testing.assert_close(model(inputs), tuned, rtol=1e-5, atol=1e-5)
    tuner.unfold()
    assert torch.equal(model(inputs), tuned)


def test_dropout_acts_in_training_only() -> None:
    model = SmallText()
    tuner = LoRA(r=2, lora_dropout=0.5)
    tuner.attach(model)
    set_updates(tuner)
    inputs = torch.randn(8, 5)
    model.train()
    assert not torch.equal(model(inputs), model(inputs))
    model.eval()
    assert torch.equal(model(inputs), model(inputs))


def test_copies_are_independent() -> None:
    model = SmallConvNet()
    tuner = LoRA(r=2)
    tuner.attach(model)
    average = copy.deepcopy(model)
    set_updates(tuner)
    inputs = torch.randn(2, 3, 9, 9)
    average.train()
    model.train()
    assert not average.norm.training
    assert not torch.equal(average(inputs), model(inputs))


def test_a_deployed_copy_is_folded_without_its_tuner() -> None:
    model = SmallConvNet()
    names = list(model.state_dict())
    tuner = LoRA(r=2)
    tuner.attach(model)
    set_updates(tuner)
    inputs = torch.randn(2, 3, 9, 9)
    expected = model.eval()(inputs)
    deployed = copy.deepcopy(model)
    assert fold_layers(deployed) == 3
    assert list(deployed.state_dict()) == names
    torch.testing.assert_close(deployed(inputs), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(model(inputs), expected)
    assert fold_layers(deployed) == 0


def test_late_layers_only() -> None:
    tuner = LoRA(depth_share=0.5)
    tuner.attach(SmallConvNet())
    assert list(tuner.layers) == ["blocks.0.0", "blocks.1.0"]  # two of three: the share is rounded up
    with pytest.raises(ConfigError, match=r"`depth_share` must be in \(0, 1\]; got 0"):
        LoRA(depth_share=0)


def test_code_that_reads_the_weight_sees_the_update() -> None:
    """PyTorch's attention never calls its output layer, it reads the weight."""
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    tuner = LoRA(r=2)
    tuner.attach(attention)
    assert list(tuner.layers) == ["out_proj"]
    set_updates(tuner)
    inputs = torch.randn(2, 4, 8)
    output = attention(inputs, inputs, inputs)[0]
    output.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in tuner.trainable())
    tuner.fold()
    torch.testing.assert_close(attention(inputs, inputs, inputs)[0], output, rtol=1e-5, atol=1e-5)


@given(
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 2),
    rank=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_any_convolution_folds_exactly(
    channels: tuple[int, int], kernel: tuple[int, int], stride: int, dilation: int, padding: int, rank: int, seed: int
) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(*channels, kernel, stride=stride, padding=padding, dilation=dilation)).double()
    tuner = LoRA(r=rank, target_modules=["0"])
    tuner.attach(model)
    set_updates(tuner, seed)
    inputs = torch.randn(2, channels[0], 8, 7, dtype=torch.float64)
    tuned = model(inputs)
    tuner.fold()
    torch.testing.assert_close(model(inputs), tuned, rtol=1e-10, atol=1e-10)


def test_a_delta_is_taken_from_copies_of_the_attached_model_only() -> None:
    model, tuner = nn.Sequential(nn.Linear(4, 3)), LoRA(r=2)
    tuner.attach(model)
    with pytest.raises(ConfigError, match=r"no copy of the one .* no LowRankLayer '0'"):
        tuner.delta(nn.Sequential(nn.Linear(4, 3)))
    tuner.fold()
    with pytest.raises(ConfigError, match=r"folded, so its base is gone; call unfold"):
        tuner.delta()


def test_convolutions_that_standardise_their_kernels_take_no_update() -> None:
    """Of them a sum of kernels does not give a sum of outputs: folded weights would answer otherwise than those that were tuned."""
    layers = pytest.importorskip("timm.layers")
    model = nn.Sequential(layers.StdConv2d(4, 4, 1), layers.ScaledStdConv2d(4, 4, 1), layers.Conv2dSame(4, 4, 1))
    assert select_layers(model, "auto") == ["2"]
    with pytest.raises(ConfigError, match=r"standardised kernels.*0 \(StdConv2d\), 1 \(ScaledStdConv2d\)"):
        select_layers(model, ["0", "1", "2"])
