"""Diagonal Fisher information: written-out loops, the closed form of linear softmax models, bounded memory, what is left alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.records import TaskSpec
from graftwork.nn.fisher import diagonal_fisher, squared_gradients

DIGIT = TaskSpec(name="digit", kind="multiclass", size=3)
FLAGS = TaskSpec(name="flags", kind="multilabel", size=2)


class Network(nn.Module):
    """A trunk with dropout and batch norm, and two heads."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.trunk = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.drop = nn.Dropout(0.5)
        self.heads = nn.ModuleDict({"digit": nn.Linear(5, 3), "flags": nn.Linear(5, 2)})
        with torch.no_grad():
            for tensor in self.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(0.5 * torch.randn(tensor.shape, generator=generator).abs())
        self.double()

    def forward(self, inputs: Mapping[str, Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:
        features = self.drop(torch.tanh(self.norm(self.trunk(inputs["x"]))))
        return {task: self.heads[task](features) for task in tasks}


def rows(count: int, seed: int = 1) -> dict[str, Tensor]:
    return {"x": torch.randn(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)}


def written_out(network: Network, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Loop over rows, answers and parameters: for ``flags`` over all four answers of both flags, mean over flags as in the loss."""
    network.eval()
    total = {name: torch.zeros_like(value) for name, value in network.named_parameters()}
    for x in inputs["x"]:
        log_shares = network({"x": x[None]}, ["digit"])["digit"][0].log_softmax(0)
        answers = [(log_shares[index].exp().item(), log_shares[index]) for index in range(3)]
        logits = network({"x": x[None]}, ["flags"])["flags"][0]
        for first in (0, 1):
            for second in (0, 1):
                signs = torch.tensor([2.0 * first - 1, 2.0 * second - 1])
                log_share = nn.functional.logsigmoid(signs * logits).sum()
                answers.append((log_share.exp().item() / 2.0, log_share))
        for share, log_share in answers:
            gradients = torch.autograd.grad(log_share, list(network.parameters()), retain_graph=True, allow_unused=True)
            for value, gradient in zip(total.values(), gradients, strict=True):
                if gradient is not None:
                    value += share * gradient.square()
    return {name: value / len(inputs["x"]) for name, value in total.items()}


@pytest.mark.parametrize("vectorised", [True, False])
def test_it_is_what_a_written_out_loop_gives(vectorised: bool) -> None:
    network, inputs = Network(), rows(6)
    found = diagonal_fisher(network, [inputs], [DIGIT, FLAGS], vectorised=vectorised)
    expected = written_out(network, inputs)
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_a_linear_softmax_model_has_a_closed_form() -> None:
    """The gradient of log p_c by W[k, j] is (1[c = k] - p_k) x_j, so its mean square over answers is p_k (1 - p_k) x_j^2."""

    class Linear(nn.Linear):
        def forward(self, inputs: Mapping[str, Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:  # type: ignore[override]
            return {task: super(Linear, self).forward(inputs["x"]) for task in tasks}

    network, inputs = Linear(4, 3, dtype=torch.float64), rows(50)
    shares = network(inputs, ["digit"])["digit"].softmax(1).detach()
    spread = shares * (1.0 - shares)
    found = diagonal_fisher(network, [inputs], [DIGIT])
    torch.testing.assert_close(found["weight"], spread.T @ inputs["x"].square() / 50)
    torch.testing.assert_close(found["bias"], spread.mean(0))
    drawn = diagonal_fisher(network, [inputs], [DIGIT], num_samples=4000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn["weight"], found["weight"], rtol=0.05, atol=0.01)


def test_it_is_not_the_square_of_the_mean_gradient() -> None:
    network, inputs = Network().eval(), rows(2)
    opposite = {"x": torch.cat([inputs["x"], inputs["x"]])}
    scores = torch.randn(1, 2, 3, dtype=torch.float64)
    parameters = dict(network.named_parameters())
    found = squared_gradients(network, parameters, opposite, "digit", torch.cat([scores, -scores], dim=1))
    assert float(found["trunk.weight"].sum()) > 0.0, "gradients of rows that cancel do not cancel once they are squared"
    once = squared_gradients(network, parameters, inputs, "digit", scores)
    torch.testing.assert_close(found["trunk.weight"], 2.0 * once["trunk.weight"])


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 9), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 1 << 14))
def test_chunks_and_batches_do_not_matter(seed: int, sizes: list[int], working_bytes: int) -> None:
    network, inputs = Network(seed), rows(sum(sizes), seed)
    parts = [{"x": part} for part in inputs["x"].split(sizes)]
    whole = diagonal_fisher(network, [inputs], [DIGIT])
    for name, value in diagonal_fisher(network, parts, [DIGIT], working_bytes=working_bytes).items():
        torch.testing.assert_close(value, whole[name])
        assert bool((value >= 0.0).all())


def test_little_memory_means_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    together = squared_gradients.__globals__["_together"]

    def watched(network: nn.Module, parameters: object, inputs: object, task: str, scores: Tensor) -> dict[str, Tensor]:
        seen.append(tuple(scores.shape[:2]))
        found: dict[str, Tensor] = together(network, parameters, inputs, task, scores)
        return found

    monkeypatch.setitem(squared_gradients.__globals__, "_together", watched)
    network = Network()
    size = sum(value.numel() * 8 for value in network.parameters())
    diagonal_fisher(network, [rows(5)], [DIGIT], working_bytes=2 * size * 6)
    assert seen == [(3, 2), (3, 2), (3, 1)]
    seen.clear()
    diagonal_fisher(network, [rows(2)], [DIGIT], working_bytes=2 * size * 2)
    assert seen == [(2, 1), (1, 1)] * 2, "answers are split, too, where those of one row do not fit"


def test_the_network_stays_as_it_was() -> None:
    network = Network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first = diagonal_fisher(network, [rows(3)], [DIGIT])
    second = diagonal_fisher(network, [rows(3)], [DIGIT])
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), "no running statistic moves"
    for name, value in first.items():
        assert torch.equal(value, second[name]), "dropout is off"
    assert not first["heads.flags.weight"].any(), "a head that the task does not use tells nothing"


def test_chosen_parameters_only_and_frozen_ones_too() -> None:
    network = Network()
    network.trunk.requires_grad_(False)
    whole = diagonal_fisher(network, [rows(3)], [DIGIT])
    some = diagonal_fisher(network, [rows(3)], [DIGIT], parameters=["trunk.weight"])
    assert list(some) == ["trunk.weight"]
    assert not some["trunk.weight"].requires_grad, "nothing is kept of the way there, although the heads learn"
    torch.testing.assert_close(some["trunk.weight"], whole["trunk.weight"])
    assert float(some["trunk.weight"].sum()) > 0.0


class Routed(Network):
    def forward(self, inputs: Mapping[str, Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:
        if bool((inputs["x"].sum() > 0.0).item()):
            return super().forward(inputs, tasks)
        return {task: 2.0 * value for task, value in super().forward(inputs, tasks).items()}


def test_a_network_that_decides_by_values_is_named_and_taken_row_by_row() -> None:
    with pytest.raises(ConfigError, match=r"Routed cannot work on several rows.*Set `vectorised` to false"):
        diagonal_fisher(Routed(), [rows(3)], [DIGIT])
    found = diagonal_fisher(Routed(), [rows(1)], [DIGIT], vectorised=False)
    assert float(found["trunk.weight"].sum()) > 0.0


def test_what_is_missing_is_named() -> None:
    with pytest.raises(DataError, match="no rows"):
        diagonal_fisher(Network(), [], [DIGIT])
    with pytest.raises(ConfigError, match="no parameters nothing"):
        diagonal_fisher(Network(), [rows(1)], [DIGIT], parameters=["nothing"])

    class Mute(Network):
        def forward(self, inputs: Mapping[str, Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:
            return {"other": inputs["x"]}

    with pytest.raises(ConfigError, match="no output for the task 'digit'; it gives other"):
        diagonal_fisher(Mute(), [rows(1)], [DIGIT])


def test_each_part_keeps_its_mode() -> None:
    network = Network().train()
    network.norm.eval()
    diagonal_fisher(network, [rows(3)], [DIGIT])
    assert network.training
    assert network.drop.training
    assert not network.norm.training
