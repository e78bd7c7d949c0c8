from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.data.suite import Suite
from graftwork.data.suites.histology import histology
from graftwork.methods.generation.stain_diffuser import DualDiffusionStep, StainDiffuser
from graftwork.training.checkpoints import load_checkpoint, save_checkpoint
from graftwork.training.config import LoopConfig
from graftwork.training.loop import Loop

SMALL: dict[str, Any] = {"widths": (8, 12), "patch": 2, "num_steps": 50, "sampler_steps": 4}


def tissue() -> Suite:
    return histology(num_train=24, num_val=0, num_test=4, size=16)


def first_batch(rows: int = 6) -> Batch:
    suite = tissue()
    return BatchStream(suite, suite.splits["train"], rows, 0).batch(0)


def model(seed: int = 0, **settings: Any) -> StainDiffuser:
    torch.manual_seed(seed)
    built = StainDiffuser(**{**SMALL, **settings})
    with torch.no_grad():  # fresh blocks pass on what comes in; these compute something
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


def sizes_of_gradients(module: nn.Module) -> list[float]:
    return [0.0 if parameter.grad is None else float(parameter.grad.abs().sum()) for parameter in module.parameters()]


def seeded(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def test_stain_and_mask_are_drawn_in_the_units_of_the_targets() -> None:
    batch = first_batch()
    drawn = model().sample(batch.inputs, ("stain", "mask"), generator=seeded(1))
    assert drawn["stain"].shape == batch.targets["stain"].shape
    assert drawn["mask"].shape == batch.targets["mask"].shape
    for value in drawn.values():
        assert 0.0 <= float(value.min()) <= float(value.max()) <= 1.0
        assert not value.requires_grad
    assert set(model().sample(batch.inputs)) == {"stain"}


def test_no_mask_reaches_the_stain_at_inference() -> None:
    """Whatever mask is handed in, and whatever the mask's branch computes, the stain is the same to the last bit."""
    built, batch = model(), first_batch()
    stain = built.sample(batch.inputs, generator=seeded(1))["stain"]
    for mask in (batch.targets["mask"], torch.zeros_like(batch.targets["mask"])):
        inputs = {**batch.inputs, "mask": mask}
        assert torch.equal(built.sample(inputs, ("stain", "mask"), generator=seeded(1))["stain"], stain)
    with torch.no_grad():
        for parameter in built.branches["mask"].parameters():
            parameter.add_(torch.randn_like(parameter))
    assert torch.equal(built.sample(batch.inputs, ("mask", "stain"), generator=seeded(1))["stain"], stain)
    with torch.no_grad():
        for parameter in built.encoder.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert not torch.equal(built.sample(batch.inputs, generator=seeded(1))["stain"], stain), "the shared encoder does reach it"


def test_the_masks_loss_reaches_the_shared_encoder_and_not_the_stains_branch() -> None:
    built, batch = model(), first_batch()
    without = replace(batch, mask={**batch.mask, "stain": torch.zeros(6, dtype=torch.bool)})
    losses = DualDiffusionStep(built).backward(without, 0)
    assert losses.tolist()[0] == 0.0
    assert losses.tolist()[1] > 0.0
    assert min(sizes_of_gradients(built.encoder)) > 0.0
    assert max(sizes_of_gradients(built.branches["stain"])) == 0.0


def test_the_stains_loss_does_not_see_the_mask() -> None:
    batch = first_batch()
    other = replace(batch, targets={**batch.targets, "mask": 1 - batch.targets["mask"]})
    found = []
    for case in (batch, other):
        step = DualDiffusionStep(model())
        torch.manual_seed(7)
        found.append(step.backward(case, 0))
    assert torch.equal(found[0][0], found[1][0])
    assert not torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("predicts", ["clean", "velocity", "noise"])
def test_losses_are_those_written_out(predicts: Any) -> None:
    built, batch = model(predicts=predicts), first_batch()
    torch.manual_seed(11)
    found = DualDiffusionStep(built, weights={"mask": 3.0}).backward(batch, 0)
    gradient = [parameter.grad.clone() for parameter in built.encoder.parameters() if parameter.grad is not None]
    built.zero_grad()
    torch.manual_seed(11)
    features = built.encode(batch.inputs)
    wanted: list[Tensor] = []
    for name, clean in (("stain", batch.targets["stain"]), ("mask", batch.targets["mask"].unsqueeze(1))):
        clean = clean.float() * 2 - 1
        step, noise = torch.randint(50, (6,)), torch.randn_like(clean)
        kept = built.process.kept[step].reshape(-1, 1, 1, 1).float()
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * clean
        target = {"clean": clean, "noise": noise, "velocity": velocity}[predicts]
        wanted.append((built.branches[name](noisy, step, features) - target).square().mean())
    torch.testing.assert_close(found, torch.stack(wanted).detach())
    (wanted[0] + 3.0 * wanted[1]).backward()
    for one, parameter in zip(gradient, built.encoder.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("predicts", ["clean", "velocity", "noise"])
def test_a_branch_that_knows_the_answer_gives_the_clean_picture(predicts: Any) -> None:
    built, generator = model(predicts=predicts), seeded(3)
    clean, noise = torch.rand(2, 3, 8, 8, generator=generator) * 2 - 1, torch.randn(2, 3, 8, 8, generator=generator)
    step = torch.tensor([1, 40])
    noisy = built.process.add_noise(clean, noise, step)
    answer = {"clean": clean, "noise": noise, "velocity": built.process.velocity(clean, noise, step)}[predicts]

    class Knows(nn.Module):
        def forward(self, noisy: Tensor, step: Tensor, features: Any) -> Tensor:
            return answer

    built.branches["stain"] = Knows()
    torch.testing.assert_close(built.clean("stain", noisy, step, []), clean, atol=1e-4, rtol=1e-4)


def test_missing_targets_count_nothing() -> None:
    batch = first_batch()
    stain, mask = batch.targets["stain"].clone(), batch.targets["mask"].clone()
    stain[2], mask[1:4] = float("nan"), -1
    known = {"stain": torch.arange(6) != 2, "mask": (torch.arange(6) < 1) | (torch.arange(6) > 3)}
    missing = replace(batch, targets={"stain": stain, "mask": mask}, mask=known)
    losses = DualDiffusionStep(model()).backward(missing, 0)
    assert bool(losses.isfinite().all())
    assert bool((losses > 0).all())


def test_one_output_is_the_single_task_model() -> None:
    built = model(channels={"stain": 3})
    assert DualDiffusionStep(built).loss_names == ("stain",)
    assert set(built.sample(first_batch().inputs)) == {"stain"}
    with pytest.raises(ConfigError, match="no output 'mask'"):
        built.sample(first_batch().inputs, ("mask",))


def test_training_learns_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    suite = tissue()

    def loop() -> Loop[Batch]:
        torch.manual_seed(0)
        stream = BatchStream(suite, suite.splits["train"], 8, 0)
        config = LoopConfig(max_steps=100, learning_rate=1e-2, ema_decay=0.9)
        return Loop(DualDiffusionStep(StainDiffuser(**SMALL)), stream, config=config, seeds=Seeds(0))

    whole, first, second = loop(), loop(), loop()
    whole.train(24)
    first.train(11)
    save_checkpoint(tmp_path, first.state_dict())
    second.load_state_dict(load_checkpoint(tmp_path))
    second.train(24)
    for one, two in zip(whole.eval_model().parameters(), second.eval_model().parameters(), strict=True):
        assert torch.equal(one, two)
    fresh = loop().eval_model()
    whole.train(100)
    before, after = (mean_loss(built) for built in (fresh, whole.eval_model()))
    assert bool((after < 0.8 * before).all())


def mean_loss(built: Any) -> Tensor:
    """Mean over draws that are the same for every model."""
    torch.manual_seed(5)
    return torch.stack([DualDiffusionStep(built).backward(first_batch(24), 0) for _ in range(10)]).mean(dim=0)


def test_wrong_settings_are_named_together() -> None:
    with pytest.raises(ConfigError) as caught:
        wrong: dict[str, Any] = {"predicts": "x", "schedule": "y", "sampler_steps": 0, "eta": 2.0}
        StainDiffuser({}, widths=(8,), condition_widths=(8, 12), **wrong)
    for part in ("at least one output", "one for each width", "predicts", "schedule", "sampler_steps", "eta"):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="above 0, for stain, mask"):
        DualDiffusionStep(model(), weights={"mask": 0.0, "colour": 1.0})


def test_wrong_conditions_are_refused() -> None:
    with pytest.raises(ConfigError, match="input 'image'; got no input"):
        model().sample({})
    with pytest.raises(ConfigError, match="multiples of 4"):
        model().sample({"image": torch.zeros(1, 18, 18, 3, dtype=torch.uint8)})
