"""The deployable model of a run: ``model/`` with lineage and model card, ``model.onnx`` beside it. Other finalists: see
:mod:`graftwork.workflows.fit.kept_plans`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork.core.errors import FileFormatError, GraftworkError, StorageError
from graftwork.core.files import read_json, write_json
from graftwork.core.folders import remove_own
from graftwork.core.input_spec import write_input_specs
from graftwork.core.records import Lineage
from graftwork.core.version import __version__
from graftwork.export.corrected_graph import correct_graph
from graftwork.serving.kept_plans import chosen_plan
from graftwork.workflows.fit.handover import Handover
from graftwork.workflows.fit.kept_rows import TaskOnKeptRows
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.run_folder import RunFolder, utc_now

__all__ = ["complete_model", "deploy_model", "is_model_of_fit", "write_card"]

_MADE_BY = ("graftwork fit", "graftwork tune", "graftwork distill")
CONFIGURATIONS = "configurations"
"""Folder in an exported model with the graphs of its sub-networks."""
_REPLACED = ".model.replaced"
"""Where an older model goes until the new one is in its place: a kill leaves one of the two whole."""


def deploy_model(context: RunContext[Any], given: Handover, kept: Mapping[str, TaskOnKeptRows]) -> None:
    """Export what is handed over and complete its folder.

    The model is written beside and renamed, so that ``model/`` is whole or absent.

    Args:
        context: The run.
        given: What is handed over.
        kept: What rows that the chosen plan had not learned from say of it, by task.

    Raises:
        GraftworkError: If the export failed.
        StorageError: If ``model/`` holds something else than a model of a run; it is not replaced.
    """
    run = context.run
    job, plan = given.job(context, "model.new"), given.plan.name
    fresh, final = run.path / "model.new", run.path / "model"
    # No fresh folder: an earlier call came to its end. With one, it was cut somewhere below.
    if (run.path / "model.onnx").exists() and not fresh.exists() and chosen_plan(run.path) == plan:
        return
    # Asked before the export, which takes long, and again before the replacing.
    _check_replaceable(final)
    if not (fresh / "exported.json").exists():  # an earlier export was cut
        _clear(run, f"jobs/{job.id}")
        _clear(run, fresh.name)
    answer = context.run_jobs([job], past_deadline=True).get(job.id, {"status": "stopped", "message": "stopped"})
    if answer["status"] != "ok":
        raise GraftworkError(str(answer["message"]))
    complete_model(context, given, fresh, answer, kept)
    if (fresh / "model.onnx").exists():
        # A kill here leaves the new `model.onnx` beside the old `model/`; the fresh folder is still there and a resume goes on.
        os.replace(fresh / "model.onnx", run.path / "model.onnx")
    (fresh / "exported.json").unlink(missing_ok=True)
    _check_replaceable(final)
    # An older model that a kill left here: `os.replace` cannot replace a folder that holds files.
    _clear(run, _REPLACED)
    if final.exists():
        os.replace(final, run.path / _REPLACED)
    os.replace(fresh, final)
    remove_own(run.path, _REPLACED)


def complete_model(
    context: RunContext[Any], given: Handover, folder: Path, answer: Mapping[str, Any], kept: Mapping[str, TaskOnKeptRows]
) -> None:
    """Correct the probabilities of an exported model, complete its ``config.json`` and write its ``lineage.json``.

    Args:
        context: The run.
        given: What was exported.
        folder: Where it was exported to.
        answer: Result of the export.
        kept: As for :func:`deploy_model`.

    Raises:
        GraftworkError: If a graph cannot be corrected.
    """
    corrections = {name: one.correction for name, one in kept.items() if one.correction is not None}
    thresholds = {name: list(one.chosen.thresholds) for name, one in kept.items() if one.chosen and one.chosen.thresholds}
    if corrections or thresholds:
        # Sub-networks of a controllable model too; members of an average are parts of it and stay as they are.
        for graph in (folder / "model.onnx", *sorted((folder / CONFIGURATIONS).glob("*.onnx"))):
            correct_graph(graph, corrections, thresholds, {name: kept[name].examples for name in corrections})
    run, suite = context.run, context.suite
    config = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    config = {
        "format": "graftwork-model-1",
        "plan": given.plan.to_json(),
        "tasks": [task.to_json() for task in suite.tasks],
        "outputs": list(suite.task_names),
        "input_specs": write_input_specs(suite.input_specs),
        "kept_errors": {name: one.errors for name, one in kept.items() if one.errors is not None},
        "corrections": {name: one.to_json() for name, one in corrections.items()},
        "thresholds": thresholds,
        **config,
    }
    write_json(folder / "config.json", config)
    lineage = Lineage(
        made_by=f"graftwork {run.state.get('verb', 'fit')} {__version__}",
        command=run.state["command"],
        plan=given.plan.name,
        seed=given.trained[0].seed,
        inputs={**suite.sources, "suite": suite.fingerprint()},
        bases=answer.get("bases", {}),
        licences={**suite.credits, **answer.get("licences", {})},
        versions={key: str(value) for key, value in run.state.get("machine", {}).items()},
        created=utc_now(),
    ).to_json()
    write_json(folder / "lineage.json", lineage)


def _clear(run: RunFolder, name: str) -> None:
    """Remove what a stopped export left.

    Raises:
        StorageError: If it stays.
    """
    if not remove_own(run.path, name):
        raise StorageError(f"Cannot remove {run.path / name}, which a stopped export left. Move it away and go on with --resume.")


def _check_replaceable(final: Path) -> None:
    """Refuse to replace a folder that no run wrote.

    Raises:
        StorageError: If it is a link or a file, or has no lineage of a fit in it.
    """
    if final.is_symlink() or (final.exists() and not is_model_of_fit(final)):
        raise StorageError(
            f"{final} is not a model that {_MADE_BY[0]} wrote, so it is not replaced. Move it out of the run folder, then go on "
            f"with --resume {final.parent}"
        )


def is_model_of_fit(folder: Path) -> bool:
    """Return whether a folder holds a model that ``fit`` wrote, by its lineage."""
    lineage = folder / "lineage.json"
    is_file = not folder.is_symlink() and lineage.is_file() and not lineage.is_symlink()
    return is_file and _made_by(lineage).startswith(_MADE_BY)


def _made_by(lineage: Path) -> str:
    # Read as untrusted: whatever lies there decides only whether the folder is ours.
    try:
        content = read_json(lineage)
    except FileFormatError:
        return ""
    return str(content.get("made_by", "")) if isinstance(content, Mapping) else ""


def write_card(run: RunFolder, result: Mapping[str, Any]) -> None:
    """Write ``model/README.md``, the model card, from the result and the model's lineage."""
    from graftwork.reporting.model_card import write_model_card

    folder = run.path / "model"
    if (folder / "lineage.json").exists():
        write_model_card(result, folder / "README.md", lineage=read_json(folder / "lineage.json"))
