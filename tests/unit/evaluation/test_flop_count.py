from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from graftwork.evaluation.flop_count import FlopCount


class Attention(nn.Module):
    """Heads of width 4 over tokens ``[B, L, 8]``."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 24)

    def forward(self, tokens: Tensor) -> Tensor:
        parts = self.inner(tokens).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return nn.functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])


MODELS = {
    "linear": (lambda: nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 2)), (5, 6)),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3, groups=1), nn.ConvTranspose2d(4, 2, 2), nn.BatchNorm2d(2)),
        (2, 3, 8, 8),
    ),
    "grouped": (lambda: nn.Conv2d(4, 8, 3, groups=2, padding=1, stride=2), (2, 4, 8, 8)),
    "recurrent": (lambda: nn.Sequential(nn.GRU(3, 4, num_layers=2, batch_first=True)), (2, 7, 3)),
    "attention": (Attention, (2, 5, 8)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_number_is_that_of_torchs_counter(name: str) -> None:
    make, shape = MODELS[name]
    torch.manual_seed(0)
    model, rows = make().eval(), torch.randn(*shape)
    expected, found = FlopCounterMode(display=False), FlopCount()
    for counter in (expected, found):
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            model(rows)
    assert found.total == expected.get_total_flops() > 0


def test_answers_are_left_as_they_are_and_counts_add_up() -> None:
    model, rows = nn.Linear(3, 2), torch.randn(4, 3)
    counter = FlopCount()
    for times in (1, 2):
        with counter:
            answer = model(rows)
        torch.testing.assert_close(answer, model(rows), rtol=0, atol=0)
        assert counter.total == times * 2 * 4 * 3 * 2
