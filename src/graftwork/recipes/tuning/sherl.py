"""Reproduction of SHERL.

The paper (abstract read) reports, for retrieval, question answering, grounding and GLUE, results on par with or above adapters and LoRA,
and above other tuning that saves memory, with clearly less training memory than the former.

Our setting is that of the reproduction of UniPT: MiniLM and two short text tasks with 300 labelled texts each, AdamW, 250 steps of 16
texts. Arms: SHERL with the last of six layers behind it and half of the trunk's width (the plan on the card), the same without the
division by redundancy, UniPT and ladder side tuning of as many numbers (within 6 %), LoRA of rank 8 on every linear layer, full tuning,
and the head alone. The bound is LoRA with all labels. Accuracies in percent, means over the two tasks. ``held`` are the bytes that a
step of 16 texts holds for the backward pass, counted by hooks on the model that is trained, every storage once and without weights.

The pilot chooses each arm's rate from four on seeds 100 and 101 by validation accuracy; the variant follows SHERL, the bound LoRA.
"""

from __future__ import annotations

from graftwork.claims.experiment import Arm, ArmContext, EqualBudget, Headroom, Inequality, Measurements, Pilot, Recipe
from graftwork.recipes.tuning.side_texts import side_arm, tune_texts

__all__ = ["ARMS", "RECIPE", "run_arm"]


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Tune and measure an arm; see :func:`.tune_texts`."""
    return tune_texts("sherl", arm, seed, context)


ARMS = (
    side_arm("sherl", "SHERL: the plan on the card", "", 1e-3),
    side_arm("undivided", "SHERL without the division by redundancy", "", 1e-3, divides=False),
    # SHERL has 520,898 numbers, UniPT 521,505, the ladder 548,130.
    side_arm("unipt", "UniPT of as many numbers", "unipt:UniPT", 1e-3, hidden=160),
    side_arm("lst", "ladder side tuning of as many numbers", "ladder:LadderTuning", 1e-3, hidden=68),
    side_arm("lora", "LoRA, rank 8", "lora:LoRA", 1e-3, r=8),
    side_arm("full", "full tuning", "full:FullTuning", 3e-4),
    side_arm("probe", "the head alone", "frozen:Frozen", 3e-3),
    side_arm("bound", "LoRA with all labels", "lora:LoRA", 1e-3, r=8, all_labels=True),
)
_UNIPT, _LADDER, _LORA = "beats UniPT", "beats ladder side tuning", "reaches LoRA"
_RATES = (3e-4, 1e-3, 3e-3, 1e-2)

RECIPE = Recipe(
    slug="sherl",
    arms=ARMS,
    smoke_seeds=(0,),
    run_arm=run_arm,
    inequalities=(
        Inequality(_UNIPT, "sherl.mean", "unipt.mean", unit="points"),
        Inequality(_LADDER, "sherl.mean", "lst.mean", unit="points"),
        # How many numbers learn follows from the settings: it is reported, and decides nothing.
        *(
            Inequality(f"{words} {name}", left, right, demand="at least", left_factor=1.1, primary=False)
            for name in ("unipt", "lst")
            for words, left, right in (
                ("of at most 10 % more numbers than", f"{name}.learned", "sherl.learned"),
                ("and at most 10 % fewer than", "sherl.learned", f"{name}.learned"),
            )
        ),
        Inequality(_LORA, "sherl.mean", "lora.mean", margin=1.0, demand="not worse", unit="points"),
        # Half of LoRA's bytes must still be at least those of SHERL.
        Inequality(
            "holds at most half of LoRA's bytes", "lora.held", "sherl.held", demand="at least", left_factor=0.5, unit="MB"
        ),
        Inequality("the division by redundancy helps", "sherl.mean", "undivided.mean", primary=False, unit="points"),
        Inequality("beats the head alone", "sherl.mean", "probe.mean", primary=False, unit="points"),
        Inequality(
            "reaches full tuning", "sherl.mean", "full.mean", margin=1.0, demand="not worse", primary=False, unit="points"
        ),
    ),
    headroom=(
        Headroom("bound.mean", "unipt.mean", margin=0.5, inequalities=(_UNIPT,), unit="points"),
        Headroom("bound.mean", "lst.mean", margin=0.5, inequalities=(_LADDER,), unit="points"),
        Headroom("lora.mean", "probe.mean", margin=1.0, inequalities=(_LORA,), unit="points"),
    ),
    pilot=Pilot(
        grids={
            "sherl": {"rate": _RATES},
            "unipt": {"rate": _RATES},
            "lst": {"rate": _RATES},
            "lora": {"rate": _RATES},
            "full": {"rate": (1e-4, 3e-4, 1e-3, 3e-3)},
            "probe": {"rate": (1e-3, 3e-3, 1e-2, 3e-2)},
        },
        score=("validation",),
        follows={"undivided": "sherl", "bound": "lora"},
    ),
    equal_budget=(
        EqualBudget(("steps", "samples", "labels"), arms=tuple(arm.name for arm in ARMS if arm.name != "bound")),
        EqualBudget(("steps",)),
    ),
    minutes=25,
    notes=(
        "MiniLM and two short text tasks of 300 labels in place of vision-language models, T5 and GLUE.",
        "Ladder side tuning begins at random, not from weights pruned out of the trunk.",
    ),
)
