"""Layers that stand at several places of a model, and weights that several layers share, stay what they are through tuning."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from graftwork.math.fingerprint import state_fingerprint
from graftwork.methods.tuning.cp_lora import CPLoRA
from graftwork.methods.tuning.ia3 import IA3
from graftwork.methods.tuning.layer_tuner import LayerTuner
from graftwork.methods.tuning.lora import LoRA
from graftwork.nn.foldable import fold_layers, plain_state, put_module
from graftwork.nn.lora import wrap_layer


class Twice(nn.Module):
    """One linear layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.middle = nn.Sequential(nn.Tanh(), self.first)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.middle(self.first(inputs))  # type: ignore[no-any-return]


class Tied(nn.Module):
    """Words in and words out with one weight, as in language models."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.answer = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.answer.weight = self.words.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.answer(self.words(words))  # type: ignore[no-any-return]


def _changed(tuner: LayerTuner[nn.Module]) -> None:
    for parameter in tuner.trainable():
        parameter.data.copy_(torch.randn_like(parameter))


TUNERS: list[Callable[[], LayerTuner[nn.Module]]] = [
    lambda: LoRA(r=2, target_modules="all-linear"),
    lambda: CPLoRA(r=2),
    lambda: IA3(target_modules=".*first|.*answer"),
]


def test_a_module_is_replaced_at_all_its_places() -> None:
    model, new = Twice(), nn.Linear(3, 3)
    put_module(model, "first", new)
    assert model.first is new
    assert model.middle[1] is new


def test_a_layer_at_two_places_is_folded_once() -> None:
    torch.manual_seed(0)
    model, inputs = Twice(), torch.randn(4, 3)
    layer = wrap_layer(model.first, 2, 1.0)
    layer.up.weight.data.normal_()  # type: ignore[operator, union-attr]
    model.first = model.middle[1] = layer  # type: ignore[assignment]
    before = model(inputs)
    assert fold_layers(model) == 1
    assert type(model.first) is nn.Linear
    assert model.middle[1] is model.first
    torch.testing.assert_close(model(inputs), before)


@pytest.mark.parametrize("make", TUNERS)
def test_a_tuned_layer_at_two_places_computes_the_same_folded_unfolded_and_as_a_delta(
    make: Callable[[], LayerTuner[nn.Module]],
) -> None:
    torch.manual_seed(0)
    model, inputs = Twice(), torch.randn(4, 3)
    plain = Twice()
    plain.load_state_dict(model.state_dict())
    base, tuner = state_fingerprint(plain_state(model)), make()
    tuner.attach(model)
    _changed(tuner)
    tuned, delta = model(inputs), tuner.delta()
    assert not torch.allclose(tuned, plain(inputs))
    assert delta.base_fingerprint == base
    tuner.fold()
    assert type(model.first) is type(model.middle[1]) is nn.Linear
    torch.testing.assert_close(model(inputs), tuned)
    tuner.unfold()
    assert torch.equal(model(inputs), tuned)
    delta.attach(plain)
    torch.testing.assert_close(plain(inputs), tuned)


@pytest.mark.parametrize("make", TUNERS)
def test_folding_leaves_what_a_layer_shares_its_weight_with(make: Callable[[], LayerTuner[nn.Module]]) -> None:
    torch.manual_seed(0)
    model, words = Tied(), torch.tensor([0, 3, 4])
    tuner = make()
    tuner.attach(model)
    _changed(tuner)
    tuned, embedded = model(words), model.words(words)
    tuner.fold()
    assert torch.equal(model.words(words), embedded)
    torch.testing.assert_close(model(words), tuned)
    tuner.unfold()
    assert torch.equal(model(words), tuned)
    assert plain_state(model)["answer.weight"] is plain_state(model)["words.weight"]


def test_a_deployed_copy_leaves_what_a_layer_shares_its_weight_with() -> None:
    torch.manual_seed(0)
    model, words = Tied(), torch.tensor([0, 3, 4])
    tuner = LoRA(r=2, target_modules="all-linear")
    tuner.attach(model)
    _changed(tuner)
    tuned = model(words)
    assert fold_layers(model) == 1
    torch.testing.assert_close(model(words), tuned)
