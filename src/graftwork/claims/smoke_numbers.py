"""The numbers of a smoke run, kept beside a verdict: they tell later whether shared code still computes what the verdict stands
on.

A hash over a system's own modules does not see a loss, a metric or a layer that many systems share. Its smoke run does: it runs
every line of the recipe on the smallest sizes. What a full run leaves behind therefore includes the measurements of the smoke
seeds and, of every arm, the mean training loss, which reacts to the smallest change. Where they no longer come out the evidence
is stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork.core.optional import has

__all__ = ["TOLERANCE", "TRAINING_LOSS", "changed_numbers", "processor_kind", "repeatable", "smoke_record"]

TOLERANCE = 0.02
"""Largest relative difference of a number that still counts as equal. Processors round differently, and one changed answer among
some hundred test rows moves a percentage; a changed definition moves many numbers by far more, or the training loss, which is
held tighter."""
LOSS_TOLERANCE = 1e-3
"""The same for the training loss, a mean over many smooth terms."""
CHANGED_SHARE = 0.1
"""Measurements (not losses) may be out of tolerance in this share at most: single answers of tiny networks do flip between
processors."""
TRAINING_LOSS = "training_loss"
"""Name of the mean training loss among an arm's numbers."""

Numbers = Mapping[str, Mapping[str, Mapping[str, float]]]
"""``{seed: {arm: {name: value}}}``."""


def repeatable(name: str) -> bool:
    """Return whether a measurement repeats: times and memory, whose names end in their unit, do not.

    Example:
        >>> repeatable("scores.depth.rmse"), repeatable("step_ms")
        (True, False)
    """
    return not name.endswith(("_ms", "_seconds", "_rss_bytes"))


def changed_numbers(stored: Numbers, found: Numbers) -> list[str]:
    """Compare the smoke numbers of today with those that a verdict stands on.

    Args:
        stored: Numbers kept in the evidence.
        found: Numbers of a smoke run of today.

    Returns:
        One line for every difference that counts, such as ``"seed 0, mtlora, score: 41.2, was 38.0"``; empty if the numbers came
        out. A number that is missing on one side counts.
    """
    lines: list[str] = []
    measurements: list[str] = []
    total = 0
    for seed in sorted({*stored, *found}):
        arms = {*stored.get(seed, {}), *found.get(seed, {})}
        for arm in sorted(arms):
            before, now = stored.get(seed, {}).get(arm, {}), found.get(seed, {}).get(arm, {})
            for name in sorted({*before, *now}):
                if not repeatable(name):
                    continue
                total += 1
                where = f"seed {seed}, {arm}, {name}"
                if name not in before or name not in now:
                    # A missing number is a changed recipe, whatever the tolerance.
                    lines.append(f"{where}: {'measured now' if name in now else 'not measured any more'}")
                    continue
                is_loss = name == TRAINING_LOSS
                if _differs(before[name], now[name], LOSS_TOLERANCE if is_loss else TOLERANCE):
                    (lines if is_loss else measurements).append(f"{where}: {now[name]:.6g}, was {before[name]:.6g}")
    if len(measurements) > CHANGED_SHARE * total:
        # Few flips are noise. Many at once are not, and then all are shown.
        lines += measurements
    return lines


def _differs(before: float, now: float, tolerance: float) -> bool:
    # The smallest scale keeps two values near zero from differing by a large factor.
    return abs(before - now) > tolerance * max(abs(before), abs(now), 1e-6)


def smoke_record(
    results: Mapping[int, Mapping[str, Mapping[str, float]]], losses: Mapping[int, Mapping[str, float | None]]
) -> dict[str, Any]:
    """Return what evidence keeps of a smoke run.

    Args:
        results: ``{seed: {arm: {metric: value}}}``.
        losses: ``{seed: {arm: mean training loss}}``; None where an arm trains by other means.

    Returns:
        ``numbers`` (see :data:`Numbers`), the ``tolerance`` of measurements and of the loss, and the ``processor``'s
        instructions that they
        were made with: chaotic trainings end elsewhere on other ones.
    """
    numbers: dict[str, dict[str, dict[str, float]]] = {}
    for seed, by_arm in results.items():
        numbers[str(seed)] = {}
        for arm, values in by_arm.items():
            kept = {name: float(value) for name, value in values.items() if repeatable(name)}
            loss = losses[seed].get(arm)
            numbers[str(seed)][arm] = kept if loss is None else {**kept, TRAINING_LOSS: loss}
    return {
        "numbers": numbers,
        "tolerance": {"measurements": TOLERANCE, "share": CHANGED_SHARE, TRAINING_LOSS: LOSS_TOLERANCE},
        "processor": processor_kind(),
    }


def processor_kind() -> str:
    """Return the instructions that torch uses here, such as ``"AVX2"``; empty without torch."""
    if not has("torch"):
        return ""
    import torch

    return torch.backends.cpu.get_cpu_capability()
