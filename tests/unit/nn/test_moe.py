"""The sparse layer against a reference that goes token by token, and against all experts at once."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from graftwork.core.errors import ConfigError
from graftwork.nn import moe
from graftwork.nn.moe import MoEAttention, MoELayer, recording, routed_layers, set_task
from graftwork.nn.moe_dispatch import Dispatch, GroupedLinear, TracedDispatch
from graftwork.nn.moe_router import Router


def layer(num_experts: int = 5, top_k: int = 2, seed: int = 0, **router: object) -> MoELayer:
    torch.manual_seed(seed)
    return MoELayer(6, 7, num_experts, top_k, router=Router(6, num_experts, **router)).double()  # type: ignore[arg-type]


def token_by_token(module: MoELayer, tokens: Tensor, task: int = 0) -> Tensor:
    """The definition, written out: softmax over all experts, keep the k largest, weigh each chosen expert's output by its
    value."""
    (weight_in, bias_in), (weight_out, bias_out) = module.expand.stacked(), module.contract.stacked()
    results = []
    for token in tokens.reshape(-1, tokens.shape[-1]):
        shares = torch.softmax(token @ module.router.weights[task], dim=0)
        total = torch.zeros_like(token)
        for expert in shares.argsort(descending=True)[: module.top_k].tolist():
            hidden = F.gelu(token @ weight_in[expert] + bias_in[expert])
            total = total + shares[expert] * (hidden @ weight_out[expert] + bias_out[expert])
        results.append(total)
    return torch.stack(results).view(tokens.shape)


@settings(max_examples=25, deadline=None)
@given(num_experts=st.integers(1, 6), top_k=st.integers(1, 6), rows=st.integers(1, 9), seed=st.integers(0, 1000))
def test_the_layer_is_its_definition_for_every_k(num_experts: int, top_k: int, rows: int, seed: int) -> None:
    module = layer(num_experts, min(top_k, num_experts), seed)
    tokens = torch.randn(rows, 2, 6, dtype=torch.float64)
    torch.testing.assert_close(module(tokens), token_by_token(module, tokens))


def test_all_experts_active_is_the_dense_mixture() -> None:
    module = layer(4, 4)
    tokens = torch.randn(9, 6, dtype=torch.float64)
    (weight_in, bias_in), (weight_out, bias_out) = module.expand.stacked(), module.contract.stacked()
    hidden = F.gelu(torch.einsum("nd,edh->neh", tokens, weight_in) + bias_in)
    outputs = torch.einsum("neh,ehd->ned", hidden, weight_out) + bias_out
    shares = torch.softmax(tokens @ module.router.weights[0], dim=1)
    torch.testing.assert_close(module(tokens), torch.einsum("ne,ned->nd", shares, outputs))


def test_gradients_are_those_of_the_definition() -> None:
    module = layer()
    tokens = torch.randn(11, 6, dtype=torch.float64, requires_grad=True)
    parts = [tokens, *module.parameters()]
    weights = torch.randn(11, 6, dtype=torch.float64)
    found = torch.autograd.grad((module(tokens) * weights).sum(), parts)
    wanted = torch.autograd.grad((token_by_token(module, tokens) * weights).sum(), parts)
    torch.testing.assert_close(found, wanted)


def test_second_derivatives_are_there() -> None:
    module = layer()
    tokens = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda values: module(values), (tokens,), atol=1e-6)


def test_batched_gradients_go_through() -> None:
    module, tokens = layer(), torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    output = module(tokens)
    several = torch.eye(30, dtype=torch.float64).view(30, 5, 6)
    (found,) = torch.autograd.grad(output, tokens, several, is_grads_batched=True, retain_graph=True)
    (single,) = torch.autograd.grad(output, tokens, several[7])
    torch.testing.assert_close(found[7], single)


def test_only_chosen_experts_are_computed() -> None:
    module, tokens = layer(5, 2).float(), torch.randn(8, 6)

    def flops(top_k: int) -> int:
        module.top_k = top_k
        with FlopCounterMode(display=False) as counter:
            module(tokens)
        return counter.get_total_flops()

    router = 2 * 8 * 6 * 5
    assert flops(2) == router + 2 * 8 * 2 * (6 * 7 + 7 * 6)
    assert flops(5) == router + 5 * (flops(2) - router) // 2


@pytest.mark.parametrize("new_experts", [0, 3])
@pytest.mark.parametrize("form", ["dense", "sparse"])
@pytest.mark.parametrize("kind", ["feed", "attention"])
def test_the_exported_path_gives_the_same(kind: str, form: str, new_experts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = layer() if kind == "feed" else MoEAttention(6, 3, 5, 2).double()
    module.add_task(new_experts)
    states = torch.randn(3, 4, 6, dtype=torch.float64)
    plain = [module(states), (set_task(module, 1), module(states))[1]]
    monkeypatch.setattr(moe, "_is_exporting", lambda: True)
    monkeypatch.setattr(moe, "_WORTH_GATHERING", 0)
    monkeypatch.setattr(torch.jit, "is_tracing", lambda: form == "sparse")
    for task, wanted in enumerate(plain):
        set_task(module, task)
        with FlopCounterMode(display=False) as counter:
            torch.testing.assert_close(module(states), wanted)
        if kind == "feed":
            experts, seen = (2, 5) if form == "sparse" else (5 + new_experts, 5)
            router = 2 * 12 * 6 * (seen + new_experts * task)
            gates = 0 if form == "sparse" else 2 * 12 * 6 * experts  # the biases are added up by a product
            assert counter.get_total_flops() == router + gates + experts * 12 * 2 * (6 * 7 + 7 * 6)


def test_graphs_are_sparse_where_that_saves_enough() -> None:
    assert MoELayer(64, 64, 8, 2).exports_sparse
    assert MoELayer(64, 32, 4, 1).exports_sparse is False, "3/4 of 4096 weights"
    assert not MoELayer(192, 192, 4, 4).exports_sparse, "nothing is saved"
    assert not MoELayer(192, 192, 4, 6).exports_sparse
    assert not MoEAttention(64, 16, 8, 4).exports_sparse
    assert MoEAttention(192, 48, 8, 4).exports_sparse
    module = MoELayer(64, 64, 8, 2)
    module.keep_experts([1, 2])
    assert not module.exports_sparse


def test_attention_experts_are_the_written_out_formula() -> None:
    torch.manual_seed(0)
    module, states = MoEAttention(6, 3, 4, 2).double(), torch.randn(2, 5, 6, dtype=torch.float64)
    (query, query_bias), (out, out_bias) = module.query.stacked(), module.output.stacked()
    key, value = module.key_value(states).chunk(2, dim=-1)
    wanted = torch.zeros_like(states)
    for row in range(2):
        for place in range(5):
            token = states[row, place]
            shares = torch.softmax(token @ module.router.weights[0], dim=0)
            for expert in shares.argsort(descending=True)[:2].tolist():
                asked = token @ query[expert] + query_bias[expert]
                read = torch.softmax(key[row] @ asked / 3**0.5, dim=0) @ value[row]
                wanted[row, place] += shares[expert] * (read @ out[expert] + out_bias[expert])
    torch.testing.assert_close(module(states), wanted)


def test_no_tokens_are_no_problem() -> None:
    assert layer()(torch.zeros(0, 4, 6, dtype=torch.float64)).shape == (0, 4, 6)
    assert MoEAttention(6, 3, 4, 2)(torch.zeros(0, 4, 6)).shape == (0, 4, 6)


def test_dispatch_sorts_stably_and_comes_back() -> None:
    dispatch = Dispatch.of(torch.tensor([[2, 0], [0, 2], [2, 1]]), 4)
    assert dispatch.counts == [2, 1, 3, 0]
    rows = dispatch.to_experts(torch.tensor([[10.0], [20.0], [30.0]]))
    assert rows.flatten().tolist() == [10, 20, 30, 10, 20, 30]
    assert dispatch.to_tokens(rows).squeeze(2).tolist() == [[10, 10], [20, 20], [30, 30]]


def test_traced_dispatch_finds_the_same_rows_and_comes_back() -> None:
    chosen, rows = torch.tensor([[2, 0], [0, 2], [2, 1]]), torch.tensor([[10.0], [20.0], [30.0]])
    plain, traced = Dispatch.of(chosen, 4), TracedDispatch.of(chosen, 4)
    groups = traced.to_experts(rows)
    assert [group.flatten().tolist() for group in groups] == [[10, 20], [30], [10, 20, 30], []]
    assert torch.equal(torch.cat(groups), plain.to_experts(rows))
    assert torch.equal(traced.to_tokens(groups), plain.to_tokens(torch.cat(groups)))
    pairs = torch.arange(6.0).unsqueeze(1)
    assert [group.flatten().tolist() for group in traced.pairs_to_experts(pairs)] == [[1, 2], [5], [0, 3, 4], []]


def test_the_task_chooses_the_router() -> None:
    module = layer(num_tasks=2)
    tokens = torch.randn(5, 6, dtype=torch.float64)
    set_task(module, 1)
    torch.testing.assert_close(module(tokens), token_by_token(module, tokens, task=1))
    assert not torch.allclose(module(tokens), token_by_token(module, tokens, task=0))


def test_dropping_unused_experts_changes_nothing() -> None:
    module, tokens = layer(6, 2), torch.randn(2, 6, dtype=torch.float64)
    before = module(tokens)
    used = sorted(set(module.router(tokens, 2).experts.flatten().tolist()))
    assert len(used) < 6
    small = copy.deepcopy(module)
    small.keep_experts(used)
    assert small.num_experts == len(used)
    torch.testing.assert_close(small(tokens), before)
    small.keep_experts([0])  # of those that are left
    assert small.num_experts == 1
    share = torch.softmax(tokens @ module.router.weights[0], dim=1)[:, used[0]]
    torch.testing.assert_close(small.route(tokens).gates[:, 0], share)


def test_a_new_task_with_new_experts_leaves_the_older_ones_bit_for_bit() -> None:
    module, tokens = layer(4, 2), torch.randn(9, 6, dtype=torch.float64)
    before = module(tokens)
    module.add_task(new_experts=3)
    assert module.num_experts == 7
    for bank in module.banks():
        torch.nn.init.normal_(bank.weights[1])
    torch.nn.init.normal_(module.router.weights[1])
    assert torch.equal(module(tokens), before)
    set_task(module, 1)
    torch.testing.assert_close(module(tokens), token_by_token(module, tokens, task=1))
    assert int(module.router(tokens, 2, 1).experts.max()) > 3


def test_a_copy_forgets_the_calls_of_training() -> None:
    module = layer().train()
    module(torch.randn(3, 6, dtype=torch.float64))
    assert len(module.journal.records) == 1
    assert copy.deepcopy(module).journal.records == []


def test_recording_works_in_evaluation_and_ends() -> None:
    module = torch.nn.Sequential(layer(), layer(seed=1)).eval()
    with recording(module) as found:
        module(torch.randn(3, 6, dtype=torch.float64))
    assert list(found) == list(routed_layers(module)) == ["0", "1"]
    assert [item.num_tokens for records in found.values() for item in records] == [3, 3]
    module(torch.randn(3, 6, dtype=torch.float64))
    assert not module[0].journal.records  # type: ignore[union-attr]


def test_errors() -> None:
    with pytest.raises(ConfigError, match="`top_k` must be at least 1; got 0"):
        MoELayer(4, 4, 2, 0)
    with pytest.raises(ConfigError, match="experts 0 to 1; got \\[2\\]"):
        GroupedLinear(2, 3, 3).keep_experts([2])
    with pytest.raises(ConfigError, match="experts 0 to 1; got \\[\\]"):
        GroupedLinear(2, 3, 3).keep_experts([])
    module = layer()
    module.keep_experts([0, 1, 2])
    with pytest.raises(ConfigError, match="have all their experts"):
        module.add_task()


@pytest.mark.parametrize(("num_tokens", "top_k"), [(0, 2), (1, 3), (50, 1), (50, 2)])
def test_without_gradients_the_same_numbers_come_without_a_copy(num_tokens: int, top_k: int) -> None:
    torch.manual_seed(0)
    module, tokens = MoELayer(8, 12, 6, top_k).eval(), torch.randn(num_tokens, 8)
    expected = module(tokens).detach()
    for quiet in (torch.no_grad, torch.inference_mode):
        with quiet():
            assert torch.equal(module(tokens), expected)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert module(tokens).shape == expected.shape
