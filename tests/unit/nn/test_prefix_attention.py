from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.nn.attention import AttentionBlock
from graftwork.nn.prefix_attention import pre_norm_blocks, prefix_attention, prefixed_block

WIDTH, HEADS = 8, 2


def make_block(**settings: Any) -> AttentionBlock:
    torch.manual_seed(0)
    return AttentionBlock(WIDTH, HEADS, 16, **settings).eval()


def states(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(1))


def test_without_prompts_it_is_the_block_itself_for_any_leading_dimensions() -> None:
    block = make_block()
    (parts,) = pre_norm_blocks([block], "A test")
    given = states(3, 4, 5)
    torch.testing.assert_close(prefixed_block(parts, given).flatten(0, 1), block(given.flatten(0, 1)))


def test_prompts_are_keys_and_values_that_torch_attends_to_likewise() -> None:
    block = make_block()
    (parts,) = pre_norm_blocks([block], "A test")
    tokens, prompts = states(4, 5), states(2, 3)
    weight, bias = block.attention.project.weight, block.attention.project.bias
    peer = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    identity = torch.eye(WIDTH)
    with torch.no_grad():  # queries are projected by the peer; keys and values come projected, prompts in front
        peer.in_proj_weight.copy_(torch.cat([weight[:WIDTH], identity, identity]))
        peer.in_proj_bias.copy_(torch.cat([bias[:WIDTH], torch.zeros(2 * WIDTH)]))
        peer.out_proj.load_state_dict(block.attention.output.state_dict())
        keys, values = (tokens @ part.T + shift for part, shift in zip(weight.chunk(3)[1:], bias.chunk(3)[1:], strict=True))
        front = prompts[:, None].expand(-1, 4, -1, -1)
        theirs, _ = peer(tokens, torch.cat([front[0], keys], dim=1), torch.cat([front[1], values], dim=1))
        torch.testing.assert_close(prefix_attention(parts, tokens, prompts), theirs)


def test_only_the_first_tokens_ask_and_get_what_they_get_anyway() -> None:
    (parts,) = pre_norm_blocks([make_block()], "A test")
    tokens, prompts = states(4, 5), states(2, 3)
    whole = prefix_attention(parts, tokens, prompts)
    torch.testing.assert_close(prefix_attention(parts, tokens, prompts, queries=2), whole[:, :2])


def test_each_row_may_have_prompts_of_its_own() -> None:
    (parts,) = pre_norm_blocks([make_block()], "A test")
    tokens, prompts = states(4, 5), states(4, 2, 3)
    found = prefix_attention(parts, tokens, prompts)
    for row in range(4):
        torch.testing.assert_close(found[row], prefix_attention(parts, tokens[row], prompts[row]))


@pytest.mark.parametrize("settings", [{}, {"qk_norm": True, "init_values": 0.5}, {"qkv_bias": True, "scale_attn_norm": True}])
def test_blocks_of_timm_are_read_with_their_norms_and_scales(settings: dict[str, Any]) -> None:
    timm = pytest.importorskip("timm.models.vision_transformer")
    torch.manual_seed(0)
    block = timm.Block(WIDTH, HEADS, **settings).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    (parts,) = pre_norm_blocks([block], "A test")
    torch.testing.assert_close(prefixed_block(parts, states(3, 5)), block(states(3, 5)))


@pytest.mark.parametrize("settings", [{"rotary": True}, {"blocked": torch.ones(5, 5).triu(1).bool()}])
def test_blocks_that_do_more_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="A test puts keys and values"):
        pre_norm_blocks([make_block(**settings)], "A test")
    with pytest.raises(ConfigError, match="block 1 of this trunk is a Linear"):
        pre_norm_blocks([make_block(), nn.Linear(2, 2)], "A test")
