"""Batches whose rows have a delta each: every row is what the model gives with that delta attached alone."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError, GraftworkError
from graftwork.interfaces.delta import Delta
from graftwork.interfaces.tuner import Tuner
from graftwork.methods.tuning.adapter import Adapters
from graftwork.methods.tuning.bias_only import BiasOnly
from graftwork.methods.tuning.cp_lora import CPLoRA
from graftwork.methods.tuning.full import FullTuning
from graftwork.methods.tuning.ladder import LadderTuning
from graftwork.methods.tuning.lora import LoRA
from graftwork.methods.tuning.norm_only import NormOnly
from graftwork.methods.tuning.prompt import PromptTuning
from graftwork.nn.backbones.swin import SwinBackbone
from graftwork.nn.backbones.vit import ViTBackbone
from graftwork.nn.foldable import plain_state
from graftwork.nn.module_delta import ModuleDelta
from graftwork.nn.rowwise.deltas import RowwiseDeltas
from graftwork.nn.rowwise.layer import RowwiseLayer
from graftwork.nn.weight_delta import Dense, LowRank, WeightDelta

Inputs = Tensor | Mapping[str, Tensor]


def random_numbers(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def convnet() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.Conv2d(6, 5, 1, bias=False),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 4),
    ).eval()


def vit() -> nn.Module:
    torch.manual_seed(0)
    return ViTBackbone(16, patch=8, width=8, depth=2, num_heads=2).eval()


def pictures(rows: int, seed: int = 3) -> Tensor:
    return torch.randn(rows, 3, 9, 9, generator=random_numbers(seed))


def bytes_of_pictures(rows: int, seed: int = 3) -> dict[str, Tensor]:
    return {"image": torch.randint(0, 256, (rows, 16, 16, 3), dtype=torch.uint8, generator=random_numbers(seed))}


def tuned(model: nn.Module, tuner: Tuner, seed: int) -> Delta:
    """What a tuner would have learned, drawn at random."""
    other = copy.deepcopy(model)
    torch.manual_seed(seed)
    tuner.attach(other)
    random = random_numbers(seed)
    with torch.no_grad():
        for parameter in tuner.trainable():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
        for name, buffer in other.named_buffers():
            if name.endswith("running_mean") and isinstance(tuner, NormOnly):
                buffer.add_(0.1 * torch.randn(buffer.shape, generator=random))
    return tuner.delta()


def alone(model: nn.Module, delta: Delta | None, inputs: Inputs) -> Tensor:
    other = copy.deepcopy(model)
    if delta is not None:
        delta.attach(other)
    with torch.no_grad():
        answer: Tensor = other(inputs)
    if delta is not None:
        delta.detach()
    return answer


def row(inputs: Inputs, number: int) -> Inputs:
    part = slice(number, number + 1)
    return inputs[part] if isinstance(inputs, Tensor) else {name: tensor[part] for name, tensor in inputs.items()}


def check_rows(model: nn.Module, deltas: Mapping[str, Delta], inputs: Inputs, names: list[str | None], found: Tensor) -> None:
    """Each row against a copy of the model that never saw a row-wise layer."""
    expected = torch.cat([alone(model, deltas[name] if name else None, row(inputs, number)) for number, name in enumerate(names)])
    # Rounding depends on the size of a batch; random changes are large, so that it shows.
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


CONV_TUNERS: dict[str, Any] = {
    "lora": lambda: LoRA(r=2, target_modules=["0", "4", "8"]),
    "wide": lambda: LoRA(r=5, target_modules=["8"]),
    "cp": lambda: CPLoRA(r=2, form="cp"),
    "conv": lambda: CPLoRA(r=2, form="conv-lora"),
    "dora": lambda: CPLoRA(r=2, form="lora-c", decompose=True),
    "bias": BiasOnly,
    "norm": NormOnly,
    "adapter": lambda: Adapters(bottleneck=2),
    "full": FullTuning,
}
VIT_TUNERS: dict[str, Any] = {
    "lora": lambda: LoRA(r=2),
    "bias": BiasOnly,
    "norm": NormOnly,
    "adapter": lambda: Adapters(bottleneck=3),
    "prompt": lambda: PromptTuning(num_tokens=2),
    "longer": lambda: PromptTuning(num_tokens=3, depth_share=0.5),
    "side": lambda: LadderTuning(hidden=4, num_heads=2),
    "full": FullTuning,
}


@pytest.fixture(scope="module")
def conv() -> tuple[nn.Module, dict[str, Delta], RowwiseDeltas]:
    model = convnet()
    deltas = {name: tuned(model, make(), number) for number, (name, make) in enumerate(CONV_TUNERS.items())}
    many = RowwiseDeltas(copy.deepcopy(model), pictures(2, 9))
    for name, delta in deltas.items():
        many.add(name, delta)
    return model, deltas, many


@pytest.fixture(scope="module")
def transformer() -> tuple[nn.Module, dict[str, Delta], RowwiseDeltas]:
    model = vit()
    deltas = {name: tuned(model, make(), number) for number, (name, make) in enumerate(VIT_TUNERS.items())}
    many = RowwiseDeltas(copy.deepcopy(model), bytes_of_pictures(2, 9))
    for name, delta in deltas.items():
        many.add(name, delta)
    return model, deltas, many


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_each_row_of_a_mixed_batch_is_that_row_alone(data: st.DataObject, conv: Any) -> None:
    model, deltas, many = conv
    names = data.draw(st.lists(st.sampled_from([None, *deltas]), min_size=1, max_size=8))
    inputs = pictures(len(names), data.draw(st.integers(0, 5)))
    check_rows(model, deltas, inputs, names, many(inputs, names))


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_so_it_is_for_prompts_adapters_and_side_networks_of_a_transformer(data: st.DataObject, transformer: Any) -> None:
    model, deltas, many = transformer
    names = data.draw(st.lists(st.sampled_from([None, *deltas]), min_size=1, max_size=7))
    inputs = bytes_of_pictures(len(names), data.draw(st.integers(0, 5)))
    check_rows(model, deltas, inputs, names, many(inputs, names))


def test_only_what_answers_for_the_whole_model_has_passes_of_its_own(conv: Any, transformer: Any) -> None:
    assert [name for name in conv[2].names if conv[2].own_pass(name)] == []
    many = transformer[2]
    assert {name: many.own_pass(name) for name in many.names if many.own_pass(name)} == {
        "side": "its LadderNetwork answers for the whole model",
        "full": many.own_pass("full"),
    }
    assert "belongs to the model as a whole" in many.own_pass("full"), "positions and class token of the whole model"


def swin() -> SwinBackbone:
    torch.manual_seed(0)
    return SwinBackbone(16, window=4, widths=(8, 8), depths=(2, 1), num_heads=(2, 2)).eval()


def test_layers_that_see_windows_in_place_of_rows() -> None:
    model = swin()
    deltas = {"a": tuned(model, LoRA(r=2), 1), "b": tuned(model, LoRA(r=3), 2), "c": tuned(model, NormOnly(), 3)}
    many = RowwiseDeltas(copy.deepcopy(model), bytes_of_pictures(2, 9))
    for name, delta in deltas.items():
        many.add(name, delta)
    assert not any(many.own_pass(name) for name in deltas)
    names = ["b", None, "a", "c", "b"]
    inputs = bytes_of_pictures(5)
    check_rows(model, deltas, inputs, names, many(inputs, names))


class Reader(nn.Module):
    """Has weights that another module reads, some that two modules share, and one that mixes the rows of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.mixing = nn.Linear(8, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        states = inputs + self.attention(inputs, inputs, inputs)[0]
        states = self.encoder(self.second(torch.tanh(self.first(states))))
        # The rows backwards: what the layer sees is no longer in the order of the batch.
        return states + self.mixing(states.flip(0)).flip(0)


@pytest.mark.parametrize(
    ("parameter", "reason"),
    [
        ("attention.out_proj.weight", "is never called"),
        ("attention.in_proj_weight", ""),
        ("first.weight", "which several modules share"),
        ("mixing.weight", "returns something else than one tensor with the rows of the batch in order"),
        ("encoder.linear1.weight", None),
    ],
)
def test_what_no_module_reads_row_by_row_is_computed_in_a_pass_of_its_own(parameter: str, reason: str | None) -> None:
    torch.manual_seed(0)
    model = Reader().eval()
    shape = plain_state(model)[parameter].shape
    delta = WeightDelta({parameter: LowRank(torch.randn(1, shape[1]), torch.randn(shape[0], 1))}, {parameter: shape})
    if parameter == "first.weight":
        delta = WeightDelta(
            dict.fromkeys(("first.weight", "second.weight"), delta.parts[parameter]),
            dict.fromkeys(("first.weight", "second.weight"), shape),
        )
    many = RowwiseDeltas(copy.deepcopy(model), torch.randn(2, 3, 8))
    many.add("it", delta)
    if reason is not None:
        assert reason in many.own_pass("it")
        assert bool(reason) == bool(many.own_pass("it"))
    inputs, names = torch.randn(4, 3, 8), ["it", None, "it", None]
    check_rows(model, {"it": delta}, inputs, names, many(inputs, names))


def test_the_base_stays_what_it_is_and_deltas_come_and_go(conv: Any) -> None:
    model, deltas, _ = conv
    many = RowwiseDeltas(copy.deepcopy(model), pictures(2))
    inputs = pictures(4)
    with torch.no_grad():
        plain = model(inputs)
    many.add("lora", deltas["lora"])
    many.add("full", deltas["full"])
    assert torch.equal(many(inputs, [None] * 4), plain)
    assert plain_state(many.model).keys() == plain_state(model).keys()
    assert all(torch.equal(tensor, plain_state(model)[name]) for name, tensor in plain_state(many.model).items())
    mixed = many(inputs, ["lora", None, "full", "lora"])
    torch.testing.assert_close(mixed[1:2], plain[1:2])
    assert many.remove("lora") is deltas["lora"]
    assert many.names == ("full",)
    assert not any("lora" in layer.parts for layer in many.model.modules() if isinstance(layer, RowwiseLayer))
    with pytest.raises(ConfigError, match=r"There is no delta called 'lora'\. Loaded are: full\."):
        many(inputs, ["lora"] * 4)
    many.add("lora", deltas["lora"])
    torch.testing.assert_close(many(inputs, ["lora", None, "full", "lora"]), mixed)


def test_rows_that_wait_while_their_delta_is_taken_out_are_refused(conv: Any) -> None:
    model, deltas, _ = conv
    many = RowwiseDeltas(copy.deepcopy(model), pictures(2))
    many.add("lora", deltas["lora"])
    answers: list[Tensor | ConfigError] = []

    def ask() -> None:
        try:
            answers.append(many(pictures(2), ["lora", "lora"]))
        except ConfigError as error:
            answers.append(error)

    waiting = threading.Thread(target=ask)

    def take_out(*_: Any) -> None:
        waiting.start()
        waiting.join(0.2)  # it cannot end: this pass holds the model
        many.remove("lora")

    handle = many.model.register_forward_pre_hook(take_out)
    # The hook runs in the pass of this thread alone: it is gone when the other one goes on.
    handle_of_end = many.model.register_forward_hook(lambda *_: handle.remove())
    many(pictures(2), [None, None])
    waiting.join()
    handle_of_end.remove()
    assert isinstance(answers[0], ConfigError), "computed with the base alone, without a word"
    assert "no delta called 'lora'" in str(answers[0])


def test_what_is_refused(conv: Any) -> None:
    _, deltas, many = conv
    with pytest.raises(ConfigError, match="There is a delta called 'lora' already"):
        many.add("lora", deltas["lora"])
    with pytest.raises(ConfigError, match=r"needs the name of a delta for each, and one row at least; got 1"):
        many(pictures(2), ["lora"])
    with pytest.raises(ConfigError, match="got 0"):
        many(pictures(0), [])
    with pytest.raises(ConfigError, match="Did you mean 'lora'"):
        many(pictures(1), ["lorra"])
    other = convnet()
    with torch.no_grad():
        other[8].bias += 1.0  # type: ignore[index, operator]
    fresh = RowwiseDeltas(other, pictures(2))
    with pytest.raises(ConfigError, match=r"1 of \d+ tensors have other values: '8\.bias'"):
        fresh.add("lora", deltas["lora"])
    assert "lora" not in fresh
    assert fresh(pictures(1), [None]).shape == (1, 4)


def test_a_step_touches_the_deltas_of_its_rows_and_no_others(conv: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is loaded: the work of a batch is counted in calls, which do not grow with the number of deltas."""
    model, _, _ = conv
    many = RowwiseDeltas(copy.deepcopy(model), pictures(2))
    many.add("0", tuned(model, LoRA(r=2, target_modules=["8"]), 0))
    counts: list[int] = []
    plain = torch.mm

    def counted(*arguments: Any, **keywords: Any) -> Tensor:
        counts.append(1)
        return plain(*arguments, **keywords)

    monkeypatch.setattr(torch, "mm", counted)
    many(pictures(3), ["0", None, "0"])
    before, layers = len(counts), len(list(many.model.modules()))
    for number in range(1, 30):
        many.add(str(number), tuned(model, LoRA(r=2, target_modules=["8"]), number))
    counts.clear()
    many(pictures(3), ["0", None, "0"])
    assert len(counts) == before == 1, "two rows of one delta become neighbours"
    assert len(list(many.model.modules())) == layers


def test_a_low_rank_update_by_hand() -> None:
    model = nn.Sequential(nn.Linear(3, 2)).eval()
    many = RowwiseDeltas(copy.deepcopy(model), torch.randn(2, 3))
    down, up, bias = torch.randn(1, 3), torch.randn(2, 1), torch.randn(2)
    shapes = {"0.weight": torch.Size([2, 3]), "0.bias": torch.Size([2])}
    many.add("a", WeightDelta({"0.weight": LowRank(down, up, 0.5), "0.bias": Dense(bias)}, shapes))
    inputs = torch.randn(2, 3)
    weight, shift = plain_state(model)["0.weight"], plain_state(model)["0.bias"]
    expected = torch.stack([F.linear(inputs[0], weight, shift), F.linear(inputs[1], weight + 0.5 * up @ down, shift + bias)])
    torch.testing.assert_close(many(inputs, [None, "a"]), expected)


def test_adapters_around_a_module_with_other_weights_stand_outside(transformer: Any) -> None:
    model, deltas, _ = transformer
    adapter = deltas["adapter"]
    assert isinstance(adapter, ModuleDelta)
    both = adapter.compose(deltas["lora"])
    many = RowwiseDeltas(copy.deepcopy(model), bytes_of_pictures(2, 9))
    many.add("adapter", adapter)
    many.add("both", both)
    names, inputs = ["both", "adapter", None], bytes_of_pictures(3)
    check_rows(model, {"both": both, "adapter": adapter}, inputs, names, many(inputs, names))


class Gain(nn.Module):
    """A layer with an argument that is not always there."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, states: Tensor, factor: Tensor | None = None) -> Tensor:
        return states * self.weight * (1.0 if factor is None else factor[: len(states)])


class Gained(nn.Module):
    def __init__(self, cut: bool = False) -> None:
        super().__init__()
        self.gain, self.cut = Gain(), cut

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        factor = inputs.get("factor")
        return self.gain(inputs["states"], None if factor is None else torch.cat([factor] * 2)[:-1] if self.cut else factor)


def test_arguments_that_were_not_there_when_a_place_was_tried_go_by_their_size() -> None:
    delta = WeightDelta({"gain.weight": Dense(torch.tensor([1.0, 2.0, 3.0]))}, {"gain.weight": torch.Size([3])})
    states, factor = torch.randn(3, 3), torch.tensor([[1.0], [2.0], [3.0]])
    many = RowwiseDeltas(Gained(), {"states": torch.randn(2, 3)})
    many.add("a", delta)
    assert many.own_pass("a") == ""
    found = many({"states": states, "factor": factor}, ["a", None, "a"])
    weights = torch.tensor([[2.0, 3.0, 4.0], [1.0, 1.0, 1.0], [2.0, 3.0, 4.0]])
    torch.testing.assert_close(found, states * weights * factor)
    odd = RowwiseDeltas(Gained(cut=True), {"states": torch.randn(2, 3)})
    odd.add("a", delta)
    with pytest.raises(GraftworkError, match="The argument 1 of a Gain has 5 entries in a batch of 3 rows"):
        odd({"states": states, "factor": factor}, ["a", None, "a"])
