"""The pilot of a reproduction: every arm's grid tried on seeds of its own, the best settings kept in the evidence.

The counting run takes what the pilot chose. It begins only if the pilot belongs to the code of today and chose nothing at the edge
of a grid: a better value may lie beyond an edge, and an arm that was not allowed to reach it was not tuned fairly.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graftwork.claims.evidence import code_state, package_versions, write_evidence
from graftwork.claims.experiment import Recipe
from graftwork.claims.grids import Pilot
from graftwork.claims.headroom import HeadroomFinding, measure_headroom
from graftwork.claims.judgement import derive_measurements
from graftwork.claims.measuring import OnEvent, mark_ended, running
from graftwork.claims.reproduction_job import Job, JobResult
from graftwork.core.cards import Card
from graftwork.core.errors import ConfigError
from graftwork.core.files import read_json
from graftwork.core.verdicts import EVIDENCE_FORMAT

__all__ = ["PilotOutcome", "check_edges", "chosen_settings", "run_pilot"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PilotOutcome:
    """What a pilot found."""

    record: Mapping[str, Any]
    """As it is kept in the evidence."""
    headroom: tuple[HeadroomFinding, ...]
    """On the pilot's seeds, with the chosen settings."""
    path: Path

    @property
    def edges(self) -> list[str]:
        """Chosen values at the edge of their grid, in words."""
        return list(self.record["edges"])


def run_pilot(
    card: Card, recipe: Recipe, target: Path, folder: Path, *, resume: bool, workers: int | None, on_event: OnEvent
) -> PilotOutcome:
    """Try all grids, choose, and write the result into the evidence file, whatever else is in it.

    Args:
        card: The system.
        recipe: Its recipe, with a pilot.
        target: The evidence file; where there is none, one without a verdict is written.
        folder: Work folder of the pilot.
        resume: Take up a stopped pilot of the same code.
        workers: Processes; None for one a core.
        on_event: Called with each event of the run.

    Raises:
        ConfigError: If the recipe declares no grids, or an arm does not measure the score.
    """
    pilot = recipe.pilot
    if pilot is None:
        raise ConfigError(
            f"The recipe of {card.slug!r} declares no grids, so there is nothing to tune: its docstring says how settings were found."
        )
    trials = [(arm, number, settings) for arm in pilot.grids for number, settings in enumerate(pilot.trials(arm))]
    trials += [(arm, 0, {}) for arm in pilot.fixed]

    def job(arm: str, number: int, settings: Mapping[str, Any], seed: int) -> Job:
        return Job(
            recipe=card.recipe,
            slug=card.slug,
            arm=arm,
            seed=seed,
            smoke=False,
            work=str(folder),
            settings=dict(settings),
            trial=number,
        )

    first = [job(arm, number, settings, seed) for seed in pilot.seeds for arm, number, settings in trials]
    options: Any = {"workers": workers, "on_event": on_event}
    with running(card, recipe, first, folder, {"smoke": False, "pilot": True}, resume=resume, **options) as found:
        results = dict(found)
    arms = {arm: _tuned(pilot, arm, results) for arm in pilot.grids}
    chosen: dict[str, dict[str, Any]] = {arm: dict(entry["chosen"]) for arm, entry in arms.items()}
    # Arms that follow are run once as well: all arms of a seed are needed to derive measurements and to see the headroom.
    second = [job(arm, 0, pilot.choice_of(chosen, arm), seed) for seed in pilot.seeds for arm in pilot.follows]
    with running(card, recipe, [*first, *second], folder, {"smoke": False, "pilot": True}, resume=True, **options) as found:
        results = dict(found)
    mark_ended(folder)
    numbers = {arm.name: int(arms[arm.name]["trial"]) if arm.name in arms else 0 for arm in recipe.arms}
    best = {
        seed: {arm: results[job(arm, number, {}, seed).name].measurements for arm, number in numbers.items()}
        for seed in pilot.seeds
    }
    primary = [inequality.name for inequality in recipe.inequalities if inequality.primary]
    complete = derive_measurements(recipe, best)
    headroom = measure_headroom(recipe.headroom, complete, primary)
    commit, dirty = code_state()
    record = {
        "seeds": list(pilot.seeds),
        "score": list(pilot.score),
        "lower_is_better": pilot.lower_is_better,
        "arms": arms,
        "follows": dict(pilot.follows),
        "fixed": dict(pilot.fixed),
        "chosen": {arm.name: pilot.choice_of(chosen, arm.name) for arm in recipe.arms},
        "edges": [edge for arm in pilot.grids for edge in pilot.edges(arm, chosen[arm])],
        # One pilot seed has no interval, and JSON no infinity.
        "headroom": [item.to_json() for item in headroom] if len(pilot.seeds) > 1 else [],
        "measurements": {arm.name: {str(seed): complete[seed][arm.name] for seed in pilot.seeds} for arm in recipe.arms},
        "seconds": round(sum(result.seconds for result in results.values()), 3),
        "versions": package_versions(),
        "commit": commit,
        "dirty": dirty,
        "evidence_hash": card.evidence_hash(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    kept = read_json(target) if target.exists() else {"format": EVIDENCE_FORMAT, "slug": card.slug}
    write_evidence({**kept, "pilot": record}, target)
    return PilotOutcome(record=record, headroom=headroom, path=target)


def chosen_settings(card: Card, recipe: Recipe, stored: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return the settings that the counting run takes, by arm; empty for recipes without grids.

    Args:
        card: The system.
        recipe: Its recipe.
        stored: The content of the evidence file; None if there is none.

    Raises:
        ConfigError: If the recipe declares grids and there is no pilot of today's code, or it chose a value at the edge of a grid.
    """
    if recipe.pilot is None:
        return {}
    record: Mapping[str, Any] = (stored or {}).get("pilot", {})
    if record.get("evidence_hash") != card.evidence_hash():
        why = "its pilot belongs to other code or another claim" if record else "no pilot has been run"
        raise ConfigError(
            f"The recipe of {card.slug!r} declares grids, and {why}: run graftwork reproduce {card.slug} --pilot before the "
            "counting run."
        )
    check_edges(card, list(record["edges"]))
    return {arm: dict(settings) for arm, settings in record["chosen"].items() if settings}


def check_edges(card: Card, edges: list[str]) -> None:
    """Refuse what was chosen at the edge of a grid.

    Raises:
        ConfigError: If anything was; the message names arm, setting, value and grid.
    """
    if edges:
        raise ConfigError(
            f"The pilot of {card.slug!r} chose values at the edge of their grids, and better ones may lie beyond. Move or widen "
            "these grids in the recipe, all grids with equally many trials, and run the pilot again.",
            edges,
        )


def _tuned(pilot: Pilot, arm: str, results: Mapping[str, JobResult]) -> dict[str, Any]:
    trials: list[dict[str, Any]] = []
    for number, settings in enumerate(pilot.trials(arm)):
        scores: dict[str, float] = {}
        for seed in pilot.seeds:
            measured = results[f"{arm}-{seed}-trial-{number}"].measurements
            missing = [name for name in pilot.score if name not in measured]
            if missing:
                raise ConfigError(
                    f"The pilot compares {', '.join(missing)}, but arm {arm!r} measured {', '.join(sorted(measured))}."
                )
            scores[str(seed)] = float(np.mean([measured[name] for name in pilot.score]))
        trials.append({"settings": settings, "scores": scores, "mean": float(np.mean(list(scores.values())))})
    best = pilot.best([trial["mean"] for trial in trials])
    grid = {name: list(values) for name, values in pilot.grids[arm].items()}
    return {"grid": grid, "trials": trials, "trial": best, "chosen": trials[best]["settings"]}
