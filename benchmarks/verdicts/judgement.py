"""What a verdict says of a generated suite, and whether it is so.

Two kinds of statements are told apart. That the *labels* of other tasks help or hurt (controls with shuffled companions, pairs,
groups) is true or false by the way the suite was made. That one *plan* is better than another is what an oracle with many rows can
measure on the trained models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.verdicts.worlds import WorldSuite

__all__ = ["SMALL", "judge_verdict", "statements_of"]

SMALL = 5.0
"""Percent: where learning together changes less by the oracle, a suite does not show what its world promises."""
_SIGNS = {"related": 1, "conflicting": -1, "unrelated": 0, "shuffled": 0}
_WORDS = {"better": 1, "probably better": 1, "worse": -1, "probably worse": -1}
_CONTROLS = {"transfer": 1, "harm": -1}
_PAIRS = {"helps": 1, "hurts": -1}

Result = Mapping[str, Any]
Statement = dict[str, Any]


def statements_of(result: Result) -> list[Statement]:
    """Return what a result says, as ``{"about": "labels" or "plans", "what", "task" or None, "sign"}``; ``what`` is ``control``,
    ``lead``, ``pair``, ``group``, ``mean``, ``cell`` or ``ship``. Statements on plans have ``plan``, the one whose change against
    ``reference`` has the sign."""
    verdict = result["verdict"]
    found: list[Statement] = []

    def say(about: str, what: str, sign: int, task: str | None = None, **more: str) -> None:
        found.append({"about": about, "what": what, "task": task, "sign": sign, **more})

    for row in result["controls"]:
        if row["label"] in _CONTROLS:
            say("labels", "control", _CONTROLS[row["label"]], row["task"])
    for sentence in verdict["sentences"]:
        for words, sign in (("help each other: ", 1), ("hurt each other: ", -1)):
            if sentence.startswith("The tasks ") and words in sentence:
                say("labels", "lead", sign)
    affinity = result.get("affinity") or {}
    for row in affinity.get("words") or ():
        for task, word in zip(affinity["tasks"], row, strict=True):
            if word in _PAIRS:
                say("labels", "pair", _PAIRS[word], task)
    for group in (result.get("grouping") or {}).get("advised") or ():
        for task in group:
            say("labels", "group", 1 if len(group) > 1 else -1, task)
    for answer in verdict["help"]:
        if answer["label"] in _WORDS:
            say("plans", "mean", _WORDS[answer["label"]], plan=answer["plan"], reference=answer["reference"])
        for row in answer["tasks"]:
            if row["label"] in _WORDS:
                say("plans", "cell", _WORDS[row["label"]], row["task"], plan=answer["plan"], reference=answer["reference"])
    ship = verdict["ship"]
    if ship and ship["label"] in _WORDS:
        say("plans", "ship", _WORDS[ship["label"]], plan=ship["plan"], reference=ship["reference"])
    return found


def _oracle(oracle: Mapping[str, Any], plan: str, reference: str, tasks: Sequence[str]) -> float | None:
    """Return the true change of a plan against another, percent of ``separate``, mean over tasks; None if it is unknown."""

    def value(name: str) -> float | None:
        if name == "separate":
            return 0.0
        known = oracle.get(name)
        return None if known is None else sum(float(known[task]["value"]) for task in tasks) / len(tasks)

    own, other = value(plan), value(reference)
    return None if own is None or other is None else own - other


def judge_verdict(world: WorldSuite, result: Result, oracle: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``verdict`` (``right``, ``open`` or ``wrong``), ``reasons``, and what was counted.

    ``wrong``: a statement on labels that is false by construction, or a statement on the mean over tasks or on what to ship that
    the oracle contradicts. ``open``: nothing false, but tasks that help (or hurt) each other, and nothing says so. ``right``:
    everything else; where nothing is related, to say nothing is right.

    Args:
        world: The suite.
        result: As ``result.json`` holds it.
        oracle: From :func:`benchmarks.verdicts.running.oracle_changes`.
    """
    wanted, said = _SIGNS[world.world], statements_of(result)
    tasks = [task.name for task in world.suite.tasks]
    reasons, shown, cells = [], False, {"said": 0, "false": 0}
    for one in said:
        if one["about"] == "labels":
            if one["sign"] != wanted:
                reasons.append(f"{one['what']} of {one['task'] or 'all tasks'}: {'helped' if one['sign'] > 0 else 'hurt'}")
            shown |= one["sign"] == wanted
            continue
        true = _oracle(oracle, one["plan"], one["reference"], [one["task"]] if one["task"] else tasks)
        if true is None:
            continue
        false = one["sign"] * true <= 0
        if one["what"] == "cell":
            cells["said"] += 1
            cells["false"] += false
        elif false:
            reasons.append(
                f"{one['what']}: {one['plan']} against {one['reference']} has {one['sign']:+d}, the oracle {true:+.1f} %"
            )
        elif one["what"] == "mean":
            shown |= one["sign"] == wanted
    nulls = {one["task"] for one in said if one["about"] == "labels" and one["task"]} if not wanted else set()
    pair = next((one for one in result["verdict"]["help"] if one["reference"] == "separate"), None)
    true = None if pair is None else _oracle(oracle, pair["plan"], "separate", tasks)
    # A suite in which the promised effect is not there, or hardly, has no other right answer than an open one.
    faint = true is None or true * wanted < SMALL
    verdict = "wrong" if reasons else "right" if shown or not wanted or faint else "open"
    return {
        "verdict": verdict,
        "faint": bool(wanted) and faint,
        "reasons": reasons,
        "true_change": true,
        "said_change": None if pair is None else pair["difference"],
        "label": None if pair is None else pair["label"],
        "controls": {row["task"]: row["label"] for row in result["controls"]},
        "tasks": len(tasks),
        "tasks_with_null_claims": sorted(nulls),
        "cells": cells,
    }
