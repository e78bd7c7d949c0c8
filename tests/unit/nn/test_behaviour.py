from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.nn.behaviour import Conditioner, QueryAttention, SequenceEncoder

WIDTH = 8


def encoder(conditioning: Any = "none") -> SequenceEncoder:
    torch.manual_seed(0)
    return SequenceEncoder(WIDTH, num_heads=2, hidden=12, conditioning=conditioning).eval()


def batch() -> tuple[Tensor, Tensor]:
    states = torch.randn(3, 2, 5, WIDTH, generator=torch.Generator().manual_seed(1))
    filled = torch.ones(3, 2, 5, dtype=torch.bool)
    filled[0, 1, 3:] = False
    filled[2, 0] = False
    return states, filled


def test_without_condition_it_is_the_transformer_layer_of_torch() -> None:
    ours, (states, filled) = encoder(), batch()
    theirs = nn.TransformerEncoderLayer(WIDTH, 2, 12, dropout=0.0, activation=F.gelu, batch_first=True, norm_first=True).eval()
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": ours.linears["project0"].weight,
            "self_attn.in_proj_bias": ours.linears["project0"].bias,
            "self_attn.out_proj.weight": ours.linears["output0"].weight,
            "self_attn.out_proj.bias": ours.linears["output0"].bias,
            "linear1.weight": ours.linears["widen0"].weight,
            "linear1.bias": ours.linears["widen0"].bias,
            "linear2.weight": ours.linears["narrow0"].weight,
            "linear2.bias": ours.linears["narrow0"].bias,
            "norm1.weight": ours.norms["before0"].weight,
            "norm1.bias": ours.norms["before0"].bias,
            "norm2.weight": ours.norms["between0"].weight,
            "norm2.bias": ours.norms["between0"].bias,
        }
    )
    expected = ours.norms["last"](theirs(states[:, 1], src_key_padding_mask=~filled[:, 1]))
    found = ours(states, filled)[:, 0, 1]
    torch.testing.assert_close(found[filled[:, 1]], expected[filled[:, 1]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("conditioning", ["none", "film", "lowrank"])
def test_what_stands_in_padded_positions_changes_nothing(conditioning: str) -> None:
    model, attention, (states, filled) = encoder(conditioning), QueryAttention(WIDTH), batch()
    query = torch.randn(3, WIDTH)
    other = torch.where(filled.unsqueeze(-1), states, torch.full_like(states, 50.0))
    pooled = [attention(query, model(item, filled), filled) for item in (states, other)]
    torch.testing.assert_close(pooled[0], pooled[1])
    assert not pooled[0][2, 0, 0].any(), "an empty history is the zero vector, not NaN"
    assert torch.isfinite(pooled[0]).all()


def test_attention_weighs_by_fit_to_the_query() -> None:
    attention, (states, filled) = QueryAttention(WIDTH), batch()
    query = torch.randn(3, WIDTH)
    found = attention(query, states.unsqueeze(1), filled)
    for row, sequence in ((0, 1), (1, 0)):
        kept = states[row, sequence][filled[row, sequence]]
        weights = torch.softmax(attention.key(kept) @ attention.query(query[row]) / WIDTH**0.5, dim=0)
        torch.testing.assert_close(found[row, 0, sequence], weights @ kept)


@pytest.mark.parametrize("conditioning", ["film", "lowrank"])
def test_conditions_start_neutral_and_then_tell_readings_apart(conditioning: str) -> None:
    model, (states, filled) = encoder(conditioning), batch()
    conditioner = Conditioner(6, model.change_sizes)
    pairs = torch.randn(3, 2, 6)
    neutral = model(states, filled, conditioner(pairs))
    plain = model(states, filled)
    assert neutral.shape == (3, 3, 2, 5, WIDTH)
    for reading in range(3):
        torch.testing.assert_close(neutral[:, reading], plain[:, 0])
    nn.init.normal_(conditioner.layers[-1].weight, std=0.2)  # type: ignore[arg-type]
    changed = model(states, filled, conditioner(pairs))
    assert not torch.allclose(changed[:, 0], changed[:, 1], atol=1e-3)


def test_film_is_scale_and_shift_behind_the_norm() -> None:
    model, (states, filled) = encoder("film"), batch()
    change = {name: torch.zeros(1, 2, size) for name, size in model.change_sizes.items()}
    change["last"] = torch.cat([torch.full((1, 2, WIDTH), 1.5), torch.full((1, 2, WIDTH), -2.0)], dim=-1)
    torch.testing.assert_close(model(states, filled, change), 2.5 * model(states, filled) - 2.0)


def test_lowrank_is_another_weight_matrix() -> None:
    model, (states, filled) = encoder("lowrank"), batch()
    change = {name: torch.randn(1, 2, size) for name, size in model.change_sizes.items()}
    found = model(states, filled, change)
    for sequence in range(2):
        twin = encoder("lowrank")
        with torch.no_grad():
            for name, linear in twin.linears.items():
                part = model.factors[f"{name}_in"] @ torch.diag(change[name][0, sequence]) @ model.factors[f"{name}_out"]
                linear.weight += part.T
        torch.testing.assert_close(twin(states, filled)[:, 0, sequence], found[:, 0, sequence], rtol=1e-4, atol=1e-5)


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="width 6 must be divisible by its 4 heads"):
        SequenceEncoder(6, num_heads=4)
    with pytest.raises(ConfigError, match="none, film or lowrank; got 'flim'"):
        SequenceEncoder(8, conditioning="flim")  # type: ignore[arg-type]
