"""Evidence: what a full reproduction leaves behind, as JSON that says which code and which claim it belongs to."""

from __future__ import annotations

import datetime
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from graftwork.claims.experiment import Recipe
from graftwork.claims.judgement import Verdict
from graftwork.core.cards import Card
from graftwork.core.errors import StorageError
from graftwork.core.files import write_json
from graftwork.core.machine import available_cores
from graftwork.core.source_hash import PACKAGE_FOLDER
from graftwork.core.verdicts import EVIDENCE_FORMAT
from graftwork.core.version import __version__

__all__ = ["build_evidence", "code_state", "judged_part", "mark_stale", "package_versions", "write_evidence"]

_PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "torchjd", "timm", "transformers", "lightgbm", "pandas")


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that results depend on; nothing is imported."""
    versions = {"graftwork": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def code_state(folder: Path = PACKAGE_FOLDER) -> tuple[str, bool]:
    """Return the commit of the source checkout and whether files differ from it; ``("", False)`` outside a checkout."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit or not _git(folder, "ls-files", "--", "."):  # an installed package may lie inside somebody else's checkout
        return "", False
    # evidence of other systems, just written and not committed, changes no number
    # New files count as well: a recipe that was never committed belongs to no commit.
    changes = _git(folder, "status", "--porcelain", "--untracked-files=normal", "--", ".", ":(exclude)results")
    return commit, bool(changes)


def build_evidence(
    card: Card,
    recipe: Recipe,
    verdict: Verdict,
    looks: Sequence[int],
    *,
    results: Mapping[int, Mapping[str, Mapping[str, float]]],
    budgets: Mapping[int, Mapping[str, Mapping[str, int]]],
    seconds: Mapping[int, Mapping[str, float]],
    reports: Mapping[int, Mapping[str, Mapping[str, Any]]],
    smoke: Mapping[str, Any],
    convergence: Mapping[str, Any],
    pilot: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the evidence of one full run.

    Args:
        card: The system's card; its claim and modules are hashed.
        recipe: What was run.
        verdict: What :func:`graftwork.claims.judgement.judge` made of it.
        looks: Numbers of seeds after which the run was to look.
        results: ``{seed: {arm: {metric: value}}}``.
        budgets: ``{seed: {arm: {counter: value}}}``, checked already.
        seconds: ``{seed: {arm: wall seconds}}``.
        reports: ``{seed: {arm: reports of the guards}}``.
        smoke: Numbers of the smoke run of the same code (see :func:`graftwork.claims.smoke_numbers.smoke_record`).
        convergence: What :func:`graftwork.claims.convergence.convergence_record` made of the arms' curves.
        pilot: What :func:`graftwork.claims.piloting.run_pilot` kept; None for recipes without grids.
    """
    commit, dirty = code_state()
    chosen: Mapping[str, Mapping[str, Any]] = pilot["chosen"] if pilot else {}
    return {
        "format": EVIDENCE_FORMAT,
        "slug": card.slug,
        "claim": card.claim,
        **judged_part(verdict, looks),
        # What was counted, beside what the pilot chose: a later pilot that chooses otherwise makes the verdict stale.
        **({"pilot": dict(pilot), "chosen": dict(chosen)} if pilot else {}),
        "arms": [
            {"name": arm.name, "title": arm.title, "access": sorted(arm.access.parts()), "settings": dict(arm.settings)}
            for arm in (arm.with_settings(chosen.get(arm.name, {})) for arm in recipe.arms)
        ],
        "seeds": list(results),
        "measurements": _by_arm(recipe, results),
        "budgets": _by_arm(recipe, budgets),
        "equal_budget": [{"counters": list(item.counters), "arms": list(item.arms)} for item in recipe.equal_budget],
        "reports": _by_arm(recipe, reports),
        "convergence": dict(convergence),
        "seconds": sum(sum(by_arm.values()) for by_arm in seconds.values()),
        "smoke": dict(smoke),
        "notes": list(recipe.notes),
        "versions": package_versions(),
        "machine": {"cores": available_cores(), "platform": platform.system(), "processor": platform.machine()},
        "commit": commit,
        "dirty": dirty,
        "evidence_hash": card.evidence_hash(),
        "bytes_hash": card.bytes_hash(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def judged_part(verdict: Verdict, looks: Sequence[int]) -> dict[str, Any]:
    """Return what of an evidence file follows from the measurements by the rules of judging: all that judging again renews."""
    return {
        "verdict": verdict.word,
        "reason": verdict.reason,
        "looks": list(looks),
        "headroom": [item.to_json() for item in verdict.headroom],
        "inequalities": [finding.to_json() for finding in verdict.findings],
    }


def write_evidence(evidence: Mapping[str, Any], path: Path) -> None:
    """Write evidence atomically.

    Raises:
        StorageError: If the place cannot be written, as in an installed package; the message says what to do.
    """
    try:
        write_json(path, evidence)
    except StorageError as error:
        raise StorageError(
            f"The evidence was not stored: {error} The measurements are kept; add --resume to use them again."
        ) from error


def mark_stale(card: Card, changed: Sequence[str]) -> None:
    """Note in a card's evidence that its smoke numbers no longer come out; the verdict is ``stale`` until it is measured again.

    Args:
        card: A card with evidence.
        changed: What :func:`graftwork.claims.smoke_numbers.changed_numbers` found; the first ten are kept.
    """
    evidence = dict(card.evidence or {})
    evidence["smoke"] = {**evidence["smoke"], "changed": list(changed)[:10]}
    write_evidence(evidence, card.evidence_file)


def _by_arm(recipe: Recipe, values: Mapping[int, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        arm.name: {str(seed): by_arm[arm.name] for seed, by_arm in values.items() if arm.name in by_arm} for arm in recipe.arms
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    # Git says so with an exit code where there is no checkout.
    return done.stdout.strip() if done.returncode == 0 else None
