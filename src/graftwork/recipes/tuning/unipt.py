"""Reproduction of UniPT.

The paper (abstract read) reports, for five kinds of vision-language tasks and ten data sets, results above other tuning that saves
memory, LST among them, with much less training memory than full tuning and than methods whose gradients enter the trunk.

Our setting: MiniLM (22.7 million numbers, six layers of width 384) and two short text tasks with 300 labelled texts each: which
language a name is in (8 classes), and what kind of thing a German name means (9 classes). The model learned from English, and its last
layer is about meaning, so that there is something to find in earlier ones. Every arm is a plan that tunes the backbone with a head on
its text vector, AdamW, 250 steps of 16 texts; the weights of the best validation loss count. Arms: UniPT with half of the trunk's width
(the plan on the card), the same with all depths weighed alike, and with all tokens mixed alike; ladder side tuning of as many numbers;
the head alone on the last layer; LoRA of rank 8 on every linear layer; full tuning. The bound is LoRA with all labels. Accuracies in
percent, means over the two tasks. ``held`` are the bytes that a step of 16 texts holds for the backward pass, counted by hooks on the
model that is trained, every storage once and without weights.

The pilot chooses each arm's rate from four on seeds 100 and 101 by validation accuracy; the two variants follow UniPT, the bound LoRA.
"""

from __future__ import annotations

from graftwork.claims.experiment import Arm, ArmContext, EqualBudget, Headroom, Inequality, Measurements, Pilot, Recipe
from graftwork.recipes.tuning.side_texts import side_arm, tune_texts

__all__ = ["ARMS", "RECIPE", "run_arm"]


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Tune and measure an arm; see :func:`.tune_texts`."""
    return tune_texts("unipt", arm, seed, context)


ARMS = (
    side_arm("unipt", "UniPT: the plan on the card", "", 1e-3),
    side_arm("uniform-depths", "UniPT with all depths weighed alike", "", 1e-3, confidence="uniform"),
    side_arm("uniform-tokens", "UniPT with all tokens mixed alike", "", 1e-3, mixing="uniform"),
    # 656,346 numbers; UniPT has 631,873.
    side_arm("lst", "ladder side tuning of as many numbers", "", 1e-3, plan="lst", hidden=76),
    side_arm("probe", "the head alone", "frozen:Frozen", 3e-3),
    side_arm("lora", "LoRA, rank 8", "lora:LoRA", 1e-3, r=8),
    side_arm("full", "full tuning", "full:FullTuning", 3e-4),
    side_arm("bound", "LoRA with all labels", "lora:LoRA", 1e-3, r=8, all_labels=True),
)
_LADDER, _PROBE = "beats ladder side tuning", "beats the head alone"
_RATES = (3e-4, 1e-3, 3e-3, 1e-2)

RECIPE = Recipe(
    slug="unipt",
    arms=ARMS,
    smoke_seeds=(0,),
    run_arm=run_arm,
    inequalities=(
        Inequality(_LADDER, "unipt.mean", "lst.mean", margin=1.0, unit="points"),
        # How many numbers learn follows from the settings: it is reported, and decides nothing.
        Inequality(
            "of at most 10 % fewer numbers", "lst.learned", "unipt.learned", demand="at least", left_factor=1.1, primary=False
        ),
        Inequality("and at most 10 % more", "unipt.learned", "lst.learned", demand="at least", left_factor=1.1, primary=False),
        Inequality(_PROBE, "unipt.mean", "probe.mean", margin=3.0, unit="points"),
        # 35 % of LoRA's bytes must still be at least those of UniPT.
        Inequality(
            "holds at most 35 % of LoRA's bytes", "lora.held", "unipt.held", demand="at least", left_factor=0.35, unit="MB"
        ),
        Inequality("weighing depths helps", "unipt.mean", "uniform-depths.mean", primary=False, unit="points"),
        Inequality("attention helps", "unipt.mean", "uniform-tokens.mean", primary=False, unit="points"),
        Inequality("reaches LoRA", "unipt.mean", "lora.mean", margin=1.0, demand="not worse", primary=False, unit="points"),
        Inequality(
            "reaches full tuning", "unipt.mean", "full.mean", margin=1.0, demand="not worse", primary=False, unit="points"
        ),
    ),
    headroom=(
        Headroom("bound.mean", "lst.mean", margin=1.0, inequalities=(_LADDER,), unit="points"),
        Headroom("bound.mean", "probe.mean", margin=3.0, inequalities=(_PROBE,), unit="points"),
    ),
    pilot=Pilot(
        grids={
            "unipt": {"rate": _RATES},
            "lst": {"rate": _RATES},
            "probe": {"rate": (1e-3, 3e-3, 1e-2, 3e-2)},
            "lora": {"rate": _RATES},
            "full": {"rate": (1e-4, 3e-4, 1e-3, 3e-3)},
        },
        score=("validation",),
        follows={"uniform-depths": "unipt", "uniform-tokens": "unipt", "bound": "lora"},
    ),
    equal_budget=(
        EqualBudget(("steps", "samples", "labels"), arms=tuple(arm.name for arm in ARMS if arm.name != "bound")),
        EqualBudget(("steps",)),
    ),
    minutes=25,
    notes=(
        "MiniLM and two short text tasks of 300 labels in place of vision-language models and ten data sets.",
        "Ladder side tuning begins at random, not from weights pruned out of the trunk.",
    ),
)
