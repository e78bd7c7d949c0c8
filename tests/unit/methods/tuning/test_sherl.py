from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.methods.tuning.sherl import SHERL, RoutedNetwork, merged_depths, redundancy
from graftwork.nn.backbones.mini_conv import MiniConv
from graftwork.nn.backbones.vit import ViTBackbone

INPUTS = {"image": torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))}


def vit(depth: int = 3) -> ViTBackbone:
    torch.manual_seed(0)
    return ViTBackbone(16, patch=4, width=16, depth=depth, num_heads=2)


def test_redundancy_counts_depths_that_say_the_same() -> None:
    states = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    # Two alike, one at a right angle, one opposite, whose cosines count as 0.
    assert redundancy(states).squeeze(-1).tolist() == [2.0, 2.0, 1.0, 1.0]


def test_depths_are_merged_as_numpy_says() -> None:
    random = np.random.default_rng(0)
    shallow, guide = random.normal(size=(2, 3, 4, 5)), random.normal(size=(2, 3, 5))
    score = nn.Linear(5, 1).double()
    weight, bias = score.weight.detach().numpy()[0], float(score.bias.detach())
    raw = np.maximum((shallow * guide[:, :, None]) @ weight + bias, 0.0)
    raw[0, 0] = np.maximum(raw[0, 0], 0.0)
    unit = shallow / np.linalg.norm(shallow, axis=-1, keepdims=True)
    repeated = np.maximum(np.einsum("bnid,bnjd->bnij", unit, unit), 0.0).sum(axis=-1)
    for divides in (True, False):
        scaled = raw / repeated if divides else raw
        sums = scaled.sum(axis=-1, keepdims=True)
        weights = np.divide(scaled, sums, out=np.zeros_like(scaled), where=sums > 0)
        expected = np.einsum("bni,bnid->bnd", weights, shallow) + guide
        found = merged_depths(torch.from_numpy(shallow), torch.from_numpy(guide), score, divides=divides)
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-7)


def test_where_no_depth_is_like_the_guide_the_guide_alone_is_left() -> None:
    score = nn.Linear(5, 1)
    nn.init.zeros_(score.weight)
    nn.init.constant_(score.bias, -1.0)
    guide = torch.randn(2, 3, 5)
    assert torch.equal(merged_depths(torch.randn(2, 3, 4, 5), guide, score), guide)


def test_the_gate_begins_closed_and_lets_the_deepest_state_in() -> None:
    side = RoutedNetwork(vit(), hidden=6).eval()
    states = [torch.randn(2, 5, 16) for _ in range(3)]
    assert len(side.down) == 3, "the embedding and two early blocks"
    without = side.merge(states)
    # A norm without a scale yet: every token has mean 0 and deviation 1.
    torch.testing.assert_close(without.mean(dim=-1), torch.zeros(2, 5), rtol=0, atol=1e-5)
    side.gate.data.fill_(0.05)
    torch.testing.assert_close(side.merge(states) - without, torch.tanh(torch.tensor(0.5)) * states[-1])


def test_gradients_pass_through_the_late_blocks_alone_and_into_none() -> None:
    model = vit(4)
    tuner = SHERL(hidden=6, late=2)
    tuner.attach(model)
    seen: dict[int, bool] = {}
    for number, block in enumerate(model.blocks):
        block.register_forward_hook(lambda _, __, output, number=number: seen.update({number: output.requires_grad}))
    model.train()(INPUTS).square().sum().backward()
    assert seen == {0: False, 1: False, 2: True, 3: True}
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if not name.startswith("side_network."))
    grads = {name: parameter.grad for name, parameter in model.named_parameters() if name.startswith("side_network.")}
    assert all(grad is not None for grad in grads.values())
    assert float(grads["side_network.gate"].abs()) > 0  # type: ignore[union-attr]


def test_the_answer_is_what_the_late_blocks_make_of_what_was_merged() -> None:
    model = vit()
    plain = vit()
    tuner = SHERL(hidden=6)
    tuner.attach(model)
    model.eval()
    side = tuner.side
    assert isinstance(side, RoutedNetwork)
    side.eval()
    states = plain.embed(INPUTS)
    read = [states]
    for block in list(plain.blocks)[:2]:
        states = block(states)
        read.append(states)
    expected = plain.finish(plain.blocks[2](side.merge(read)))
    torch.testing.assert_close(model(INPUTS), expected)
    with pytest.raises(ConfigError, match="call the trunk"):
        side({}, expected)


def test_what_it_cannot_do_is_named() -> None:
    for settings in ({"factor": 0}, {"late": 0}, {"hidden": 0}):
        with pytest.raises(ConfigError, match="must be at least 1"):
            SHERL(**settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`late` must be from 1 to 2 blocks of this trunk; got 3"):
        SHERL(late=3).attach(vit())
    with pytest.raises(ConfigError, match=r"merges tokens of one width; blocks of this MiniConv"):
        SHERL().attach(MiniConv(size=32, width=8))
