"""Reproduction of MobileTL.

The paper reports activation memory of inverted residual blocks lower by 46.3 % (MobileNetV2) and 53.3 % (MobileNetV3), accuracies
above TinyTL's on six of eight data sets, and 36 % fewer operations at 0.6 points less on CIFAR-10 when five blocks of MobileNetV3 are
tuned.

Our setting: EfficientNet-Lite0 with its ImageNet weights (blocks of MobileNetV2's kind with ReLU6) at 64 pixels, and two targets with
600 labelled pictures each: striped letters of a new alphabet, and digits on textures. Every arm is a plan that tunes the backbone with
a head, AdamW, 200 steps of 16 pictures; the weights of the best validation loss count. Arms: MobileTL on the last three blocks (the
plan on the card) and on one and five, exact tuning of the same three blocks, full tuning, biases alone, BatchNorm alone, and the head
alone. Accuracies in percent, means over the targets.

``block`` is what a tuned block holds for the backward pass, ``held`` what a whole step of 16 pictures does, in megabytes, counted by
hooks on the trained model, every storage once and without weights. ``masked_block`` is a block of exact tuning whose ReLU6 holds a bit
a value, which is exact: PyTorch's holds its input, and MobileTL is to be ahead of the leaner of the two. ``v3_block`` is ``block`` for
the last three blocks of timm's ``mobilenetv3_large_100``, which has hard-swish and squeeze-and-excitation; its weights are random, so
that its accuracy is not measured: with ReLU6 the step is the exact derivative. ``lead`` is how far MobileTL is ahead of the most
accurate other method that holds no more.

The pilot chooses each arm's rate from four on seeds 100 and 101 by validation accuracy; other numbers of blocks follow three.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from graftwork.claims.experiment import (
    Access,
    Arm,
    ArmContext,
    EqualBudget,
    Headroom,
    Inequality,
    Measurements,
    Pilot,
    Recipe,
    SeedMeasurements,
)
from graftwork.evaluation.held_by_modules import held_by_modules
from graftwork.methods.tuning.mobiletl import MobileTL, inverted_residuals
from graftwork.nn.lean_backward import make_lean
from graftwork.recipes.tuning.small_target_arms import BATCH, TunedTarget, tune_for_target, tuned_plan

__all__ = ["ARMS", "RECIPE", "TARGETS", "derive", "hard_swish_bytes", "run_arm"]

BACKBONE = "efficientnet_lite0@64"
TARGETS = ("striped", "digits")
LABELS = Access(source_labels=True)


def hard_swish_bytes(exact: bool, blocks: int, batch: int) -> float:
    """Return the bytes that a tuned block of MobileNetV3 holds for the backward pass on average."""
    import timm

    model = timm.create_model("mobilenetv3_large_100", pretrained=False, num_classes=0)
    names = inverted_residuals(model)[-blocks:]
    MobileTL(blocks=blocks, exact=exact).attach(model)
    return float(np.mean(list(held_by_modules(model, names, torch.randn(batch, 3, 64, 64)).values())))


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Tune for each target; measure accuracies in percent, their means, and megabytes held for the backward pass."""
    keywords = arm.settings["keywords"]
    tuned: list[TunedTarget] = []
    blocks: list[int] = []
    masked: list[int] = []
    targets = context.choose(full=TARGETS, smoke=TARGETS[:1])
    plan, rate = tuned_plan("mobiletl", arm.settings), float(arm.settings["rate"])
    for number, target in enumerate(targets):
        one = tune_for_target(plan, target, rate, BACKBONE, seed, context)
        tuned.append(one)
        if "blocks" in keywords:
            model, pictures = one.learner.best_model, one.pictures()
            names = inverted_residuals(model)[-int(keywords["blocks"]) :]
            blocks += held_by_modules(model, names, pictures).values()
            if keywords.get("exact"):
                lean = copy.deepcopy(model)
                make_lean(lean, "masks")
                masked += held_by_modules(lean, names, pictures).values()
        context.progress((number + 1) / len(targets), target)
    found: dict[str, Any] = {
        "accuracy": {target: one.test for target, one in zip(targets, tuned, strict=True)},
        "mean": float(np.mean([one.test for one in tuned])),
        "validation": float(np.mean([one.validation for one in tuned])),
        "held": float(np.mean([one.held for one in tuned])),
    }
    if blocks:
        batch = context.choose(full=BATCH, smoke=2)
        is_exact = bool(keywords.get("exact"))
        found |= {
            "block": float(np.mean(blocks)) / 1e6,
            "v3_block": hard_swish_bytes(is_exact, int(keywords["blocks"]), batch) / 1e6,
        }
    if masked:
        found["masked_block"] = float(np.mean(masked)) / 1e6
    return found


def derive(seed: SeedMeasurements) -> Mapping[str, Measurements]:
    """Add how far MobileTL is ahead of the best other method that holds no more, and what its blocks hold as shares, in percent."""
    own, exact = seed["mobiletl"], seed["exact"]
    rivals = [seed[name]["mean"] for name in OTHERS if seed[name]["held"] <= own["held"]]
    # The head alone holds nothing of the backbone, so that there is always one.
    lead = own["mean"] - max(rivals)
    shares = {f"percent_of_exact_{name}": 100.0 * own[name] / exact[name] for name in ("block", "v3_block")}
    shares["percent_of_masked_block"] = 100.0 * own["block"] / exact["masked_block"]
    return {"mobiletl": {"lead": lead, **shares}}


def _arm(name: str, title: str, tuner: str, rate: float, **keywords: Any) -> Arm:
    return Arm(name, title, LABELS, {"tuner": tuner, "keywords": keywords, "rate": rate})


ARMS = (
    _arm("mobiletl", "MobileTL on three blocks: the plan on the card", "", 3e-3, blocks=3),
    _arm("mobiletl-1", "MobileTL on one block", "", 3e-3, blocks=1),
    _arm("mobiletl-5", "MobileTL on five blocks", "", 3e-3, blocks=5),
    _arm("exact", "exact tuning of three blocks", "", 3e-3, blocks=3, exact=True),
    _arm("full", "full tuning", "full:FullTuning", 1e-3),
    _arm("bias-only", "biases alone (TinyTL without side branches)", "bias_only:BiasOnly", 1e-2),
    _arm("bn-only", "BatchNorm alone", "bn_only:BatchNormOnly", 1e-2),
    _arm("probe", "the head alone", "frozen:Frozen", 3e-3),
)
OTHERS = ("exact", "full", "bias-only", "bn-only", "probe")
"""Methods that MobileTL is compared with in memory and accuracy at once."""
_EXACT, _PROBE, _LEAD = (
    "reaches exact tuning of the same blocks",
    "beats the head alone",
    "no method holds less and is more accurate",
)
_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
_HIGH_RATES = (1e-3, 3e-3, 1e-2, 3e-2)

RECIPE = Recipe(
    slug="mobiletl",
    arms=ARMS,
    smoke_seeds=(0,),
    run_arm=run_arm,
    derive=derive,
    inequalities=(
        # 60 % of exact tuning's bytes must still be at least those of MobileTL.
        Inequality(
            "a tuned block holds at most 60 % of exact tuning",
            "exact.block",
            "mobiletl.block",
            demand="at least",
            left_factor=0.6,
            unit="MB",
        ),
        Inequality(
            "also of exact tuning whose ReLU6 holds a bit a value",
            "exact.masked_block",
            "mobiletl.block",
            demand="at least",
            left_factor=0.6,
            unit="MB",
        ),
        Inequality(_EXACT, "mobiletl.mean", "exact.mean", margin=1.0, demand="not worse", unit="points"),
        Inequality(_PROBE, "mobiletl.mean", "probe.mean", margin=2.0, unit="points"),
        Inequality(_LEAD, "mobiletl.lead", 0.0, demand="at least", unit="points"),
        Inequality(
            "a block with hard-swish holds at most 60 % of exact tuning",
            "exact.v3_block",
            "mobiletl.v3_block",
            demand="at least",
            left_factor=0.6,
            unit="MB",
            primary=False,
        ),
        Inequality("five blocks beat three", "mobiletl-5.mean", "mobiletl.mean", primary=False, unit="points"),
        Inequality("three blocks beat one", "mobiletl.mean", "mobiletl-1.mean", primary=False, unit="points"),
        Inequality("beats biases alone", "mobiletl.mean", "bias-only.mean", primary=False, unit="points"),
    ),
    headroom=(
        Headroom("exact.mean", "probe.mean", margin=1.0, inequalities=(_EXACT,), unit="points"),
        Headroom("full.mean", "probe.mean", margin=2.0, inequalities=(_PROBE, _LEAD), unit="points"),
    ),
    pilot=Pilot(
        grids={
            "mobiletl": {"rate": _RATES},
            "exact": {"rate": _RATES},
            "full": {"rate": _RATES},
            "bias-only": {"rate": _HIGH_RATES},
            "bn-only": {"rate": _HIGH_RATES},
            "probe": {"rate": _HIGH_RATES},
        },
        score=("validation",),
        follows={"mobiletl-1": "mobiletl", "mobiletl-5": "mobiletl"},
    ),
    equal_budget=(EqualBudget(("steps", "samples", "labels")),),
    minutes=30,
    notes=(
        "EfficientNet-Lite0 at 64 pixels and two small targets of 600 pictures in place of MobileNets on eight data sets.",
        "Memory of blocks with hard-swish is measured on random weights; their accuracy is not.",
    ),
)
