from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.methods.merging.logits_fusion import FusedLogits, divergence, fused_logits, fusion_coefficients

RANDOM = torch.Generator().manual_seed(0)
LARGE, SMALL = (torch.randn(6, 9, generator=RANDOM) for _ in range(2))
EXPERTS = SMALL + 0.7 * torch.randn(3, 6, 9, generator=RANDOM)


def test_the_divergence_is_that_of_scipy() -> None:
    expected = entropy(softmax(LARGE.numpy(), axis=1), softmax(SMALL.numpy(), axis=1), axis=1)
    np.testing.assert_allclose(divergence(LARGE, SMALL).numpy(), expected, rtol=1e-5)
    ruled_out = torch.tensor([[0.0, 1.0, float("-inf")]])
    np.testing.assert_allclose(divergence(ruled_out, torch.tensor([[1.0, 1.0, float("-inf")]])).numpy(), 0.1109, atol=1e-4)


def test_with_one_expert_the_large_model_moves_as_far_as_the_small_one() -> None:
    found = fusion_coefficients(LARGE, SMALL, EXPERTS[:1], largest=20.0)
    assert found.shape == (6, 1)
    moved = divergence(fused_logits(LARGE, EXPERTS[:1] - SMALL, found), LARGE)
    np.testing.assert_allclose(moved.numpy(), divergence(EXPERTS[0], SMALL).numpy(), rtol=1e-4)
    for row in range(6):
        # An independent root finder on an independent formula.
        large, shift = LARGE[row].double().numpy(), (EXPERTS[0, row] - SMALL[row]).double().numpy()
        wanted = float(divergence(EXPERTS[0, row], SMALL[row]))

        def short(alpha: float, large: np.ndarray = large, shift: np.ndarray = shift, wanted: float = wanted) -> float:
            p, q = log_softmax(large + alpha * shift), log_softmax(large)
            return float((np.exp(p) * (p - q)).sum()) - wanted

        assert float(found[row, 0]) == pytest.approx(brentq(short, 0.0, 20.0, xtol=1e-12), rel=1e-5)


def test_the_divergence_grows_with_the_coefficient() -> None:
    moved = torch.stack(
        [divergence(fused_logits(LARGE, EXPERTS[:1] - SMALL, torch.full((6, 1), a / 10)), LARGE) for a in range(21)]
    )
    assert bool((moved.diff(dim=0) > 0).all())


def test_a_small_model_beside_itself_needs_a_coefficient_of_one() -> None:
    """Where the large model is the small one, the fused answer is the expert's."""
    found = fusion_coefficients(SMALL, SMALL, EXPERTS[:1])
    np.testing.assert_allclose(found.numpy(), 1.0, atol=1e-6)
    torch.testing.assert_close(fused_logits(SMALL, EXPERTS[:1] - SMALL, found), EXPERTS[0], rtol=1e-5, atol=1e-5)


def test_coefficients_stay_within_their_bounds_and_no_change_moves_nothing() -> None:
    found = fusion_coefficients(LARGE, SMALL, torch.stack([8.0 * SMALL]))
    assert float(found.max()) <= 2.0
    assert bool((fusion_coefficients(LARGE, SMALL, SMALL.unsqueeze(0)) == 0).all())
    flat = torch.zeros_like(LARGE)
    far = fusion_coefficients(torch.tensor([[40.0, 0.0]]), torch.zeros(1, 2), torch.tensor([[[0.0, 5.0]]]))
    assert float(far) == pytest.approx(2.0)
    assert bool((fusion_coefficients(LARGE, flat, flat.unsqueeze(0)) == 0).all())


def test_with_several_experts_the_best_single_one_on_the_grid_is_taken() -> None:
    found = fusion_coefficients(LARGE, SMALL, EXPERTS)
    wanted = torch.stack([divergence(expert, SMALL) for expert in EXPERTS])
    for row in range(6):
        best, place = float(wanted[:, row].square().sum()), (0.0, 0)
        for number in range(3):
            for value in range(1, 21):
                shift = 0.1 * value * (EXPERTS[number, row] - SMALL[row])
                moved = divergence(LARGE[row] + shift, LARGE[row])
                miss = float((moved - wanted[:, row]).square().sum())
                if miss < best - 1e-12:
                    best, place = miss, (0.1 * value, number)
        assert int((found[row] > 0).sum()) == (place[0] > 0)
        assert float(found[row, place[1]]) == pytest.approx(place[0], abs=1e-6)


def test_a_fixed_coefficient_is_proxy_tuning() -> None:
    fused = FusedLogits(lambda ids: SMALL, [lambda ids: EXPERTS[0]], fixed=1.0)
    torch.testing.assert_close(fused(torch.zeros(6, 1, dtype=torch.int64), LARGE), LARGE + EXPERTS[0] - SMALL)


def test_it_fuses_token_by_token_inside_generate() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)

    def model(width: int) -> torch.nn.Module:
        config = transformers.GPT2Config(
            vocab_size=17, n_positions=32, n_embd=width, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=None, pad_token_id=0
        )
        made: torch.nn.Module = transformers.GPT2LMHeadModel(config).eval()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.mul_(3.0)
        return made

    large, small, one, two = model(32), model(8), model(8), model(8)
    steps: list[Tensor] = []

    def last(network: torch.nn.Module) -> object:
        return lambda ids: network(ids).logits[:, -1]

    class Watched(FusedLogits):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            found = super().__call__(input_ids, scores)
            assert self.coefficients is not None
            steps.append(self.coefficients)
            return found

    processor = Watched(last(small), [last(one), last(two)])  # type: ignore[arg-type, list-item]
    prompt = torch.tensor([[1, 5, 2], [3, 3, 9]])
    made = large.generate(  # type: ignore[operator]
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=5, do_sample=False,
        logits_processor=transformers.LogitsProcessorList([processor]),
    )  # fmt: skip
    by_hand = prompt
    with torch.no_grad():
        for _ in range(5):
            scores = [network(by_hand).logits[:, -1] for network in (large, small, one, two)]
            experts = torch.stack(scores[2:])
            alpha = fusion_coefficients(scores[0], scores[1], experts)
            token = fused_logits(scores[0], experts - scores[1], alpha).argmax(dim=1, keepdim=True)
            by_hand = torch.cat([by_hand, token], dim=1)
    assert torch.equal(made, by_hand)
    assert len(steps) == 5
    assert any(not torch.equal(steps[0], step) for step in steps[1:]), "coefficients are found anew for every token"


def test_what_cannot_be_fused_is_refused() -> None:
    with pytest.raises(ConfigError, match="Logits must share one vocabulary"):
        fusion_coefficients(LARGE, SMALL[:, :8], EXPERTS)
    with pytest.raises(ConfigError, match="largest must be a number above 0"):
        fusion_coefficients(LARGE, SMALL, EXPERTS, largest=0.0)
    with pytest.raises(ConfigError, match="step must not be above largest"):
        fusion_coefficients(LARGE, SMALL, EXPERTS, step=3.0)
    with pytest.raises(ConfigError, match="needs at least one tuned model"):
        FusedLogits(lambda ids: SMALL, [])
    with pytest.raises(ConfigError, match="fixed must be a finite number or None"):
        FusedLogits(lambda ids: SMALL, [lambda ids: SMALL], fixed=float("inf"))
