"""Model card: the README.md beside a saved model, in the structure that model hubs read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from graftwork.core.files import write_text
from graftwork.core.input_kinds import InputKind, input_kind, input_kind_names
from graftwork.core.records import Lineage
from graftwork.reporting.fact_tables import ledger_table, splits_table, tasks_table
from graftwork.reporting.formatting import percent_interval
from graftwork.reporting.model_lines import measured_line, model_line
from graftwork.reporting.parts import Cell, Table
from graftwork.reporting.probability_lines import probabilities_line, probabilities_table
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.score_tables import controls_table, scores_table, transfer_table
from graftwork.reporting.words import strength_words

__all__ = ["model_card_text", "write_model_card"]


def write_model_card(result: Mapping[str, Any], path: str | Path, *, lineage: Lineage | Mapping[str, Any] | None = None) -> None:
    """Write the card atomically.

    Args:
        result: Content of ``result.json``.
        path: File to write, usually ``model/README.md``.
        lineage: What the model was made from; the same as in ``model/lineage.json``.

    Raises:
        FileFormatError: If ``result`` is no result of ``graftwork fit``.
        StorageError: If the file cannot be written.
    """
    write_text(path, model_card_text(result, lineage=lineage))


def model_card_text(result: Mapping[str, Any], *, lineage: Lineage | Mapping[str, Any] | None = None) -> str:
    """Return the card as Markdown with YAML front matter."""
    view = ResultView(result)
    origin = lineage.to_json() if isinstance(lineage, Lineage) else dict(lineage or {})
    suite = view.section("suite")
    parts = [
        _front_matter(view, origin),
        f"# {_md(suite.get('name') or 'model')}: {len(view.tasks)} tasks with {_md(view.choice or 'no chosen plan')}",
        _intended_use(view),
        "## Tasks",
        _markdown(tasks_table(view)),
        "## Results",
        _results_lead(view),
        _markdown(scores_table(view, (view.choice, view.reference))),
        _markdown(probabilities_table(view)),
        _markdown(controls_table(view)),
        _markdown(transfer_table(view)),
        "## Limits and warnings",
        _limits(view),
        "## Training data",
        _bullets(
            [f"Suite fingerprint (SHA-256): `{suite.get('fingerprint') or 'unknown'}`", *map(str, suite.get("notes") or ())],
            raw=1,
        ),
        _markdown(splits_table(view)),
        "## Costs",
        _markdown(_rows_of(ledger_table(view), view.choice)),
        "## Lineage, licences and credits",
        _origin(view, origin),
        "## How to use",
        _usage(view),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _md(text: Any) -> str:
    """Escape user text for Markdown tables and paragraphs; HTML stays text."""
    return _escaped(" ".join(str(text).split()))


def _escaped(flat: str) -> str:
    # The backslash first, or those that escape the others would be escaped once more.
    for sign in "\\`*_[]|":
        flat = flat.replace(sign, f"\\{sign}")
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _sentence(text: Any) -> str:
    """Escape a sentence, but keep names that it quotes as code."""
    parts = " ".join(str(text).split()).split("`")
    # An odd backtick quotes nothing; the sentence is taken as plain text.
    if len(parts) % 2 == 0:
        return _md(text)
    # The spaces around a name belong to the parts beside it.
    return "".join(_escaped(part) if index % 2 == 0 else f"`{part}`" for index, part in enumerate(parts))


def _front_matter(view: ResultView, origin: Mapping[str, Any]) -> str:
    results = []
    for task in view.tasks:
        score = view.score(view.choice, task) if view.choice else None
        if score:
            metric = {"type": view.metric(task), "value": score.get("value"), "name": f"test {view.metric(task)}"}
            suite = {"name": str(view.section("suite").get("name") or "suite"), "type": "custom", "split": "test"}
            results.append({"task": {"type": task.kind, "name": task.name}, "dataset": suite, "metrics": [metric]})
    bases = [str(name) for name in origin.get("bases") or ()]
    head: dict[str, Any] = {
        "library_name": "graftwork",
        "tags": ["graftwork", "multi-task-learning", *(str(view.section("suite").get("modality") or "table").split(" + "))],
        "metrics": sorted({view.metric(task) for task in view.tasks if view.metric(task)}),
    }
    if bases:
        head["base_model"] = bases
    if results:
        head["model-index"] = [{"name": f"{view.section('suite').get('name')}-{view.choice}", "results": results}]
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip()}\n---"


def _intended_use(view: ResultView) -> str:
    nouns = " and ".join(kind.noun for kind in _kinds(view)) or "rows"
    names = ", ".join(_md(task.name) for task in view.tasks)
    text = f"## Intended use\n\nThe model predicts {names} from {nouns} like those it was trained on"
    domains = view.section("suite").get("domains") or ()
    text += f" (domains: {', '.join(map(_md, domains))})." if domains else "."
    return f"{text} Plan: {_md(view.title(view.choice))}." if view.choice else text


def _kinds(view: ResultView) -> list[InputKind]:
    """Return the kinds of the suite's inputs that are known here."""
    names = str(view.section("suite").get("modality") or "").split(" + ")
    return [input_kind(name) for name in names if name in input_kind_names()]


def _results_lead(view: ResultView) -> str:
    sentences = " ".join(_sentence(item) for item in view.section("verdict").get("sentences") or ())
    delta = percent_interval((view.plans.get(view.choice) or {}).get("delta_m"))
    lead = measured_line(view) or "Test scores with 95 % intervals, on rows that were never used for selection."
    if made := model_line(view):
        lead += f" {_sentence(made)}"
    if said := probabilities_line(view):
        lead += f" {_sentence(said)}"
    if view.choice and view.choice != view.reference and view.reference:
        lead += f" Delta-m against separate models: {delta}."
    return f"{sentences}\n\n{lead}" if sentences else lead


def _limits(view: ResultView) -> str:
    verdict = view.section("verdict")
    lines = [str(item) for item in verdict.get("warnings") or ()]
    _, meaning = strength_words(verdict, ("", "The run ended before a verdict."))
    lines.append(meaning)
    lines.append("Nothing is known about rows that differ in kind from the test rows: other sources, other times, other groups.")
    return _bullets(lines)


def _origin(view: ResultView, origin: Mapping[str, Any]) -> str:
    suite = view.section("suite")
    lines = [f"Made by {_md(origin.get('made_by') or 'graftwork fit ' + str(view.result.get('version') or ''))}."]
    if view.result.get("command"):
        # A backtick would end the code span.
        lines.append(f"Command: `{str(view.result['command']).replace('`', '')}`")
    inputs = {**(suite.get("sources") or {}), **(origin.get("inputs") or {})}
    lines += [f"Input {_md(name)}: SHA-256 `{digest}`" for name, digest in inputs.items()]
    lines += [f"Base model {_md(name)}: fingerprint `{digest}`" for name, digest in (origin.get("bases") or {}).items()]
    licences = {**(suite.get("credits") or {}), **(origin.get("licences") or {})}
    lines += [f"Licence or credit of {_md(name)}: {_md(line)}" for name, line in licences.items()]
    if not licences:
        lines.append("No licence of the data was stated.")
    # The parts were escaped one by one.
    return _bullets(lines, raw=len(lines))


def _usage(view: ResultView) -> str:
    kinds = _kinds(view)
    source = kinds[0].example if len(kinds) == 1 else "rows.csv"
    task = view.tasks[0].name if view.tasks else "TASK"
    # A name with a line break would run as a second command.
    return f'```bash\ngraftwork predict RUN_FOLDER {source}\ngraftwork predict RUN_FOLDER {source} --tasks "{task.replace(chr(10), " ")}"\n```'


def _bullets(lines: Sequence[str], raw: int = 0) -> str:
    """Return a list; the first ``raw`` lines are Markdown already."""
    return "\n".join(f"- {line if index < raw else _sentence(line)}" for index, line in enumerate(lines))


def _rows_of(table: Table | None, plan: str) -> Table | None:
    if table is None:
        return None
    rows = [row for row in table.rows if (row[0] if isinstance(row[0], str) else row[0].text) == plan]
    return replace(table, rows=rows) if rows else None


def _markdown(table: Table | None) -> str:
    if table is None:
        return ""

    def text(cell: str | Cell) -> str:
        if isinstance(cell, str):
            return _md(cell)
        pieces = [
            cell.text,
            f"{cell.mark.sign} {cell.mark.words}" if cell.mark else "",
            f"({cell.note})" if cell.note and cell.text else cell.note,
        ]
        return _md(" ".join(piece for piece in pieces if piece))

    lines = ["| " + " | ".join(text(cell) for cell in table.headers) + " |", "|" + " --- |" * len(table.headers)]
    lines += ["| " + " | ".join(text(cell) for cell in row) + " |" for row in table.rows]
    return f"{_md(table.caption)}:\n\n" + "\n".join(lines)
