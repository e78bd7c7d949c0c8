from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.seeds import Seeds
from graftwork.domains.text.masked_language import MaskedLanguageModel, MaskedLanguageStep, MaskedTexts, hide_tokens
from graftwork.domains.text.token_encoder import TokenEncoder
from graftwork.methods.tuning.adapter import Adapters
from graftwork.training.config import LoopConfig
from graftwork.training.loop import Loop

CODES = {"mask": 2, "first": 3, "num_tokens": 20}


def encoder(**options: object) -> TokenEncoder:
    torch.manual_seed(0)
    return TokenEncoder(20, 6, width=8, depth=2, num_heads=2, hidden=12, **options)  # type: ignore[arg-type]


def test_hidden_tokens_are_a_share_and_most_become_the_mask() -> None:
    texts = np.random.default_rng(0).integers(3, 20, size=(4000, 6))
    texts[:, 0], texts[:, 5] = 1, 0
    batch = hide_tokens(texts, np.random.default_rng(1), **CODES)
    hidden = batch.hidden.numpy() >= 0
    assert not hidden[:, [0, 5]].any()
    assert hidden[:, 1:5].mean() == pytest.approx(0.15, abs=0.01)
    np.testing.assert_array_equal(batch.hidden.numpy()[hidden], texts[hidden])
    np.testing.assert_array_equal(batch.tokens.numpy()[~hidden], texts[~hidden])
    shown = batch.tokens.numpy()[hidden]
    assert (shown == 2).mean() == pytest.approx(0.8, abs=0.03)
    # A tenth stays, and one in seventeen of another tenth is the same by chance.
    assert (shown == texts[hidden]).mean() == pytest.approx(0.106, abs=0.02)
    assert len(batch) == 4000


def test_a_batch_has_something_to_learn_from() -> None:
    texts = np.array([[1, 5, 0, 0]])
    for seed in range(20):
        assert (hide_tokens(texts, np.random.default_rng(seed), **CODES, share=1e-6).hidden >= 0).sum() == 1


def test_languages_come_in_their_shares_and_batches_follow_the_step_alone() -> None:
    texts = [np.full((50, 4), 4 + language) for language in range(3)]
    source = MaskedTexts(texts, (0.7, 0.28, 0.02), 100, 1, **CODES)
    read = [np.where(batch.hidden >= 0, batch.hidden, batch.tokens).max(axis=1) for batch in map(source.batch, range(60))]
    shares = np.bincount(np.concatenate(read), minlength=7)[4:] / 6000
    np.testing.assert_allclose(shares, (0.7, 0.28, 0.02), atol=0.02)
    assert torch.equal(source.batch(5).tokens, MaskedTexts(texts, (0.7, 0.28, 0.02), 100, 1, **CODES).batch(5).tokens)
    assert not torch.equal(source.batch(5).tokens, source.batch(6).tokens)
    with pytest.raises(ConfigError, match="sum to 1"):
        MaskedTexts(texts, (0.7, 0.2, 0.2), 10, 1, **CODES)


def test_an_encoder_learns_what_stands_together() -> None:
    # The second token follows from the first: only context tells.
    first = np.random.default_rng(0).integers(3, 11, size=500)
    texts = np.stack([np.ones_like(first), first, first + 8], axis=1)
    model = MaskedLanguageModel(encoder(), 8, 20)
    source = MaskedTexts([texts], (1.0,), 64, 0, **CODES)
    seen: list[float] = []

    def penalty() -> torch.Tensor:
        seen.append(1.0)
        return torch.zeros(())

    step = MaskedLanguageStep(model, penalty)
    before = float(model.loss(source.batch(10_000)).detach())
    Loop(step, source, config=LoopConfig(max_steps=150, learning_rate=1e-2), seeds=Seeds(0)).train(150)
    assert float(model.loss(source.batch(10_000)).detach()) < before - 1.0
    assert len(seen) == 150


def test_the_encoder_begins_from_a_file_and_with_deltas(tmp_path: Path) -> None:
    base = encoder()
    save_file(base.state_dict(), tmp_path / "base.safetensors")
    inputs = {"tokens": torch.randint(20, (3, 6))}
    torch.testing.assert_close(encoder(weights=tmp_path / "base.safetensors").eval()(inputs), base.eval()(inputs))
    states = base.embed(inputs)
    for number, shape in enumerate(base.block_shapes()):
        states = base.run_block(number, states, inputs)
        assert states.shape[2] == shape.width
    torch.testing.assert_close(base.finish(states), base(inputs))
    tuned = encoder()
    adapters = Adapters(bottleneck=2)
    adapters.attach(tuned)
    with torch.no_grad():
        for parameter in adapters.trainable():
            parameter.add_(0.1)
    adapters.delta().save(tmp_path / "delta.safetensors")
    again = encoder(weights=str(tmp_path / "base.safetensors"), deltas=str(tmp_path / "delta.safetensors"))
    torch.testing.assert_close(again.eval()(inputs), tuned.eval()(inputs))
    with pytest.raises(FileFormatError, match="no weights of this encoder"):
        encoder(weights=tmp_path / "delta.safetensors")
