from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.nn.token_projector import AttentionProjector, ConvProjector, as_map, as_tokens


def test_states_of_all_layouts_become_maps() -> None:
    tokens = torch.randn(2, 9, 5)
    grid = as_map(tokens)
    assert grid.shape == (2, 5, 3, 3)
    assert torch.equal(as_tokens(grid), tokens)
    assert torch.equal(as_map(torch.cat([torch.zeros(2, 1, 5), tokens], dim=1)), grid), "a class token is no place"
    assert as_map(torch.randn(2, 7, 5)).shape == (2, 5, 1, 7)
    assert as_map(torch.randn(2, 5)).shape == (2, 5, 1, 1)
    with pytest.raises(ConfigError, match=r"got \[2\]"):
        as_map(torch.zeros(2))


def test_the_projector_is_the_formula_of_the_paper() -> None:
    torch.manual_seed(0)
    projector = AttentionProjector((3, 4, 4), 9, 8, num_heads=2, sharpness=5.0).eval()
    states = torch.randn(2, 3, 4, 4)
    found = projector(states)
    keys = (projector.read(states) + projector.positions).flatten(2).transpose(1, 2)
    assert projector.queries is not None
    asked = projector.ask(projector.queries)
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        q, k, v = (layer(values)[..., part] for layer, values in zip(
            (projector.query, projector.key, projector.value), (asked, keys, keys), strict=True
        ))  # fmt: skip
        heads.append((5.0 * q @ k.transpose(1, 2) / 2.0).softmax(dim=-1) @ v)
    mixed = F.layer_norm(projector.output(torch.cat(heads, dim=-1)), (8,), projector.norm.weight, projector.norm.bias)
    torch.testing.assert_close(found, mixed + projector.feed(mixed), rtol=1e-4, atol=1e-5)


def test_queries_can_be_handed_in() -> None:
    projector = AttentionProjector((3, 2, 2), 4, 8, own_queries=False)
    assert projector.queries is None
    queries = torch.randn(5, 4, 8, requires_grad=True)
    projector(torch.randn(5, 3, 2, 2), queries).sum().backward()
    assert queries.grad is not None
    assert bool((queries.grad != 0).any())


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_heads must divide the teacher's width 10; got 4"):
        AttentionProjector((3, 2, 2), 4, 10)


@pytest.mark.parametrize("tokens", [9, 10, 7])
def test_the_convolution_gives_as_many_tokens(tokens: int) -> None:
    found = ConvProjector((3, 5, 5), tokens, 6)(torch.randn(2, 3, 5, 5))
    assert found.shape == (2, tokens, 6)
