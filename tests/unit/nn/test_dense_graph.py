"""Graph layers against sums over neighbours written out."""

from __future__ import annotations

import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.nn.dense_graph import LAYERS, DenseGraphBody, GraphLayer

ADJACENCY = torch.tensor([[0.0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize("kind", LAYERS)
def test_nodes_read_their_neighbours(kind: str) -> None:
    torch.manual_seed(0)
    layer, states = GraphLayer(2, 3, kind), torch.randn(4, 2)  # type: ignore[arg-type]
    around = torch.stack([states[1] + states[2], states[0], states[0], torch.zeros(2)])
    degree = torch.tensor([[2.0], [1.0], [1.0], [0.0]])
    read = {
        "self": states,
        "sum": states + around,
        "mean": (states + around) / (degree + 1),
        "concat": torch.cat([states, around / degree.clamp(min=1)], dim=1),
    }[kind]
    torch.testing.assert_close(layer(states, ADJACENCY), layer.linear(read))


def test_skips_keep_earlier_states_and_order_of_nodes_does_not_matter() -> None:
    torch.manual_seed(0)
    body = DenseGraphBody(2, 4, 2, kind="sum", activation="tanh", skip=True)
    rows, order = torch.randn(4, 2), torch.tensor([2, 0, 3, 1])
    found = body(rows, ADJACENCY)
    torch.testing.assert_close(body(rows[order], ADJACENCY[order][:, order]), found[order])
    first = torch.tanh(body.entry(rows))
    second = first + torch.tanh(body.rounds[0](first, ADJACENCY))
    torch.testing.assert_close(found, second + torch.tanh(body.rounds[1](second, ADJACENCY)))


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(ConfigError, match="no graph layer"):
        GraphLayer(2, 2, "odd")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="depth"):
        DenseGraphBody(2, 2, 0, kind="sum")
