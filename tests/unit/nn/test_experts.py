from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from graftwork.interfaces.backbone import FeatureShape
from graftwork.nn.experts import ExpertBank, Gate, from_positions, mix_experts, to_positions


def test_the_bank_equals_a_loop_over_experts() -> None:
    bank = ExpertBank(3, 4, 5, hidden=6)
    with torch.no_grad():
        bank.bias_in.normal_()
        bank.bias_out.normal_()
    inputs = torch.randn(2, 7, 4)
    slow = [
        F.gelu(inputs @ bank.weight_in[expert] + bank.bias_in[expert]) @ bank.weight_out[expert] + bank.bias_out[expert]
        for expert in range(3)
    ]
    torch.testing.assert_close(bank(inputs), torch.stack(slow, dim=2))


def test_experts_differ_from_the_start() -> None:
    outputs = ExpertBank(2, 4, 4)(torch.randn(3, 1, 4))
    assert not torch.allclose(outputs[:, :, 0], outputs[:, :, 1])


def test_dropout_only_in_training() -> None:
    bank = ExpertBank(2, 4, 4, dropout=0.5)
    inputs = torch.randn(8, 1, 4)
    assert not torch.equal(bank(inputs), bank(inputs))
    bank.eval()
    assert torch.equal(bank(inputs), bank(inputs))


def test_a_bank_without_experts_is_refused() -> None:
    with pytest.raises(ValueError, match="`num_experts` must be at least 1; got 0"):
        ExpertBank(0, 4, 4)


def test_gates_start_with_equal_weights_that_sum_to_one() -> None:
    gate = Gate(4, 5)
    torch.testing.assert_close(gate(torch.randn(2, 3, 4)), torch.full((2, 5), 0.2))
    torch.nn.init.normal_(gate.scores.weight)
    torch.testing.assert_close(gate(torch.randn(2, 3, 4)).sum(dim=1), torch.ones(2))


def test_mixing_by_hand() -> None:
    first = torch.tensor([[[[1.0], [3.0]]]])  # one row, one position, two experts
    second = torch.tensor([[[[5.0]]]])
    mixed = mix_experts(torch.tensor([[0.5, 0.25, 0.25]]), [first, second])
    torch.testing.assert_close(mixed, torch.tensor([[[0.5 + 0.75 + 1.25]]]))


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        (FeatureShape("vector", 4), (2, 4)),
        (FeatureShape("tokens", 4, (3,)), (2, 3, 4)),
        (FeatureShape("map", 4, (3, 5)), (2, 4, 3, 5)),
    ],
)
def test_positions_and_back(shape: FeatureShape, size: tuple[int, ...]) -> None:
    features = torch.randn(size)
    positions = to_positions(features, shape)
    assert positions.shape[0] == 2
    assert positions.shape[2] == 4
    torch.testing.assert_close(from_positions(positions, shape, features.shape[2:]), features)
