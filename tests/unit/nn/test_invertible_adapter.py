from __future__ import annotations

import pytest
import torch
from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.domains.text.token_encoder import TokenEncoder
from graftwork.methods.tuning.language_adapters import LanguageAdapters
from graftwork.nn.invertible_adapter import InvertibleAdapter
from graftwork.nn.module_delta import ModuleDelta


def test_the_inverse_undoes_what_the_coupling_does() -> None:
    torch.manual_seed(0)
    adapter = InvertibleAdapter(nn.Identity(), width=6, bottleneck=3)
    states = torch.randn(4, 5, 6)
    torch.testing.assert_close(adapter(states), states, rtol=0, atol=0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn_like(parameter))
    changed = adapter(states)
    assert not torch.allclose(changed, states, atol=0.1)
    torch.testing.assert_close(adapter.inverse(changed), states, rtol=1e-4, atol=1e-4)
    # By hand: o1 = e1 + F(e2), o2 = e2 + G(o1).
    one, two = states[..., :3], states[..., 3:]
    first = one + adapter.first(two)
    torch.testing.assert_close(changed, torch.cat([first, two + adapter.second(first)], dim=-1))
    with pytest.raises(ConfigError, match="even width"):
        InvertibleAdapter(nn.Identity(), width=5, bottleneck=3)


def test_adapters_of_a_language_stand_behind_blocks_and_the_embedding_and_come_back_from_their_delta() -> None:
    torch.manual_seed(0)
    model, base = TokenEncoder(9, 4, width=8, num_heads=2, hidden=8), TokenEncoder(9, 4, width=8, num_heads=2, hidden=8)
    base.load_state_dict(model.state_dict())
    inputs = {"tokens": torch.randint(9, (3, 4))}
    before = model(inputs)
    tuner = LanguageAdapters(bottleneck=2, invertible=3)
    tuner.attach(model)
    torch.testing.assert_close(model(inputs), before)
    assert set(tuner.grafts) == {"tokens", "blocks.0", "blocks.1"}
    with torch.no_grad():
        for parameter in tuner.trainable():
            parameter.add_(0.1)
    delta = tuner.delta()
    assert isinstance(delta, ModuleDelta)
    delta.attach(base)
    torch.testing.assert_close(base(inputs), model(inputs))
    with pytest.raises(ConfigError, match="no embedding 'tokens'"):
        LanguageAdapters().attach(nn.Sequential(nn.Linear(2, 2)))
