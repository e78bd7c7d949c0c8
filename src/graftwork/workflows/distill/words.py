"""The sentences of a distillation. Each follows from the numbers that it quotes; a difference is asserted only where its interval
allows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.core.records import Interval
from graftwork.evaluation.choice.sentences import format_interval, quote, ratio_phrase
from graftwork.workflows.quantities import format_count

__all__ = ["flip_sentences", "gain_sentence", "kept_sentences", "size_sentence"]


def gain_sentence(delta: Mapping[str, Any] | None, *, tasks: int, seeds: int, steps: int, unlabelled: int) -> str:
    """Say whether teaching helped.

    Args:
        delta: Mean change over tasks in percent with its interval; None if nothing could be compared.
        tasks: How many tasks.
        seeds: How many seeds of both students.
        steps: Steps of each training.
        unlabelled: Rows without labels that the taught student saw besides.
    """
    besides = f", and {unlabelled:,} rows without labels for the taught one" if unlabelled else ""
    budget = f"{steps:,} steps and the same labelled rows for both{besides}; {seeds} seed{'s' * (seeds != 1)}"
    if delta is None or delta.get("value") is None:
        return f"The student alone and the taught one could not be compared on the test rows ({budget})."
    interval = Interval(float(delta["value"]), *(_number(delta.get(end)) for end in ("low", "high")))
    over = f" on average over {tasks} tasks" if tasks > 1 else ""
    if seeds < 2:
        return (
            f"With one seed nothing can be asserted: the taught student changes by {format_interval(interval)}{over} ({budget})."
        )
    if interval.low > 0:
        return f"Teaching helps: {format_interval(interval)} against the same student alone{over} ({budget})."
    if interval.high < 0:
        return f"Teaching hurts: {format_interval(interval)} against the same student alone{over} ({budget})."
    neither = "No difference is shown between the taught student and the same student alone"
    return f"{neither}: {format_interval(interval)}{over} ({budget})."


def kept_sentences(teachers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say of each teacher how near the student came to it, on the task with the clearest difference."""
    found = []
    for teacher in teachers:
        tasks = {name: item for name, item in teacher["kept"].items() if item["difference"].get("low") is not None}
        if not tasks:
            continue
        name, item = max(tasks.items(), key=lambda pair: abs(pair[1]["difference"]["value"]))
        difference, where = item["difference"], f" on `{name}`" if len(teacher["kept"]) > 1 else ""
        who = quote(str(teacher["name"]))
        if item["measure"] == "agreement":
            alone, taught = (f"{100 * item[key]['value']:.1f} %" for key in ("alone", "taught"))
            facts = (
                f"the taught student says the same as {who} for {taught} of the test rows{where}, the student alone for {alone}"
            )
        else:
            facts = (
                f"the taught student is {item['taught']['value']:.2f} standard deviations from {who}{where}, the student alone "
                f"{item['alone']['value']:.2f}"
            )
        if difference["low"] > 0:
            found.append(f"It kept something of its teacher: {facts}.")
        elif difference["high"] < 0:
            found.append(f"It is further from its teacher than without: {facts}.")
        else:
            found.append(f"That it kept anything of {who} is not shown: {facts}.")
    return found


def flip_sentences(flips: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say how many rows turned right and wrong, on the task where most did."""
    if not flips:
        return []
    name, item = max(flips.items(), key=lambda pair: pair[1]["positive"] + pair[1]["negative"])
    where = f" on `{name}`" if len(flips) > 1 else ""
    return [
        f"From the student alone to the taught one {100 * item['positive']:.1f} % of the test rows turn right{where} and "
        f"{100 * item['negative']:.1f} % turn wrong."
    ]


def size_sentence(student: str, ledger: Mapping[str, Any], teachers: Sequence[Mapping[str, Any]]) -> str:
    """Say how large and fast the student is beside its largest teacher."""
    own = float(ledger.get("parameters_total") or 0)
    latency = float(ledger.get("latency_ms_batch1") or 0)
    facts = f"The student `{student}` has {format_count(int(own))} parameters and takes {latency:.3g} ms a row"
    known = [teacher for teacher in teachers if teacher["costs"].get("parameters_total")]
    if not known:
        return f"{facts}."
    largest = max(known, key=lambda teacher: float(teacher["costs"]["parameters_total"]))
    phrases = [
        ratio_phrase(own, float(largest["costs"]["parameters_total"]), "parameters_total"),
        ratio_phrase(latency, float(largest["costs"].get("latency_ms_batch1") or 0), "latency_ms_batch1"),
    ]
    return f"{facts}: {' and '.join(phrase for phrase in phrases if phrase)} of {quote(str(largest['name']))}."


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
