"""Tables of the report that record: costs, estimates, the suite's tasks and splits, sources and settings."""

from __future__ import annotations

from collections.abc import Mapping

from graftwork.core.plain_numbers import plain_number
from graftwork.reporting.formatting import MISSING, count, duration, file_size, is_number, moment, number, percent_interval
from graftwork.reporting.parts import Cell, Table
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.words import kind_words

__all__ = ["estimate_table", "key_numbers", "ledger_table", "machine_table", "sources_table", "splits_table", "tasks_table"]

EARLY = 0.9
"""Share of its time limit below which a run ended early."""


def key_numbers(view: ResultView) -> list[Cell]:
    """Return the few numbers that head the report; what was not measured is left out."""
    ledger = (view.plans.get(view.choice) or {}).get("ledger") or {}
    timing, limit = view.section("timing"), (view.section("settings").get("time_limit") or 0.0)
    is_early = timing.get("converged") and float(timing.get("seconds") or 0.0) < EARLY * limit
    note = "; it ended early, since nothing improved any more" if is_early else ""
    found = [
        ("Chosen plan", view.choice or MISSING),
        ("Delta-m against separate", percent_interval((view.plans.get(view.choice) or {}).get("delta_m"))),
        ("Stored parameters", count(ledger.get("parameters_stored") or ledger.get("parameters_total"))),
        ("Latency, 1 row", f"{number(ledger.get('latency_ms_batch1'))} ms" if ledger.get("latency_ms_batch1") else MISSING),
        (f"Time of the whole run{note}", duration(timing.get("seconds"))),
    ]
    # Against itself it would read 0, as if that had been measured.
    if view.choice == view.reference:
        found.pop(1)
    return [Cell(value, note=label) for label, value in found if value != MISSING]


def ledger_table(view: ResultView) -> Table | None:
    """Return the cost ledger of every plan that ran."""
    order = [*view.finalists, *(name for name in view.plans if name not in view.finalists)]
    rows: list[list[str | Cell]] = []
    for name in order:
        ledger = view.plans[name].get("ledger") or {}
        # A ledger of zeros: nothing was measured.
        if not any(ledger.values()):
            continue
        latencies = [f"{number(value)} ms" if (value := ledger.get(f"latency_ms_batch{size}")) else MISSING for size in (1, 32)]
        rows.append(
            [
                Cell(name, note=_about(view, name), strong=name == view.choice, numeric=False),
                Cell(count(ledger.get("parameters_total"))),
                Cell(count(ledger.get("parameters_trained"))),
                Cell(count(ledger.get("parameters_stored"))),
                Cell(count(ledger.get("flops_per_sample"))),
                *(Cell(latency) for latency in latencies),
                Cell(file_size(ledger.get("peak_rss_bytes"))),
                Cell(file_size(ledger.get("activation_bytes"))),
                Cell(count(ledger.get("steps"))),
                Cell(duration(ledger.get("wall_seconds") or None)),
                Cell(duration(ledger.get("cpu_seconds") or None)),
            ]
        )
    if not rows:
        return None
    headers: list[str | Cell] = [
        "Plan",
        "Parameters",
        "Trained",
        "Stored",
        "FLOPs a row",
        "Latency, 1 row",
        "Latency, 32 rows",
    ]
    headers += ["Peak memory", "Activations", "Steps", "Training time", "CPU time"]
    return Table(caption="Measured costs; n/a where the probe did not run", headers=headers, rows=rows)


def _about(view: ResultView, name: str) -> str:
    """Return title and group of a plan, without what its name says already."""
    title, group = view.title(name), view.group(name)
    return "; ".join(
        part for part in (title if title != name else "", f"group: {group}" if group and group != name else "") if part
    )


def estimate_table(view: ResultView) -> Table | None:
    """Return what was estimated before the race, and which plans it left out."""
    estimates = view.rows("estimate")
    if not estimates:
        return None
    return Table(
        caption="Estimates before the race",
        headers=["Plan", "One step", "To the end", "Peak memory", "Parameters", Cell("Entered the race", numeric=False)],
        rows=[
            [
                str(row.get("plan")),
                Cell(duration(row.get("seconds_per_step"))),
                Cell(duration(row.get("seconds"))),
                Cell(file_size(row.get("peak_rss_bytes"))),
                Cell(count(row.get("parameters"))),
                Cell("yes" if row.get("kept") else "no", note=str(row.get("reason") or ""), numeric=False),
            ]
            for row in estimates
        ],
    )


def tasks_table(view: ResultView) -> Table | None:
    """Return what each task predicts, as it was inferred or told."""
    if not view.tasks:
        return None

    def what(classes: tuple[str, ...], size: int) -> str:
        if not classes:
            return f"{size} value{'s' if size != 1 else ''}"
        shown = ", ".join(classes[:6]) + (f" and {len(classes) - 6} more" if len(classes) > 6 else "")
        return f"{len(classes)}: {shown}"

    return Table(
        caption="Tasks and their types; --task-kind overrides a wrong type",
        headers=["Task", Cell("Type", numeric=False), Cell("Predicts", numeric=False), Cell("Columns", numeric=False)],
        rows=[
            [
                task.name,
                Cell(task.kind_words, note=kind_words(task.kind, task.positions), numeric=False),
                Cell(what(task.classes, task.size), numeric=False),
                Cell(", ".join(task.columns) or MISSING, numeric=False),
            ]
            for task in view.tasks
        ],
    )


def splits_table(view: ResultView) -> Table | None:
    """Return the number of rows in each split and what it is for."""
    splits = view.section("suite").get("splits") or {}
    if not splits:
        return None
    use = {
        "train": "learning",
        "val": "selection: which plans stay in the race, which steps are kept",
        "test": "the numbers of this report; never used for selection",
        "transfer": "another domain, looked at once at the end",
    }
    folds = view.section("measured").get("folds")
    if folds:
        # The first division decides encoders and scales only.
        use |= dict.fromkeys(("train", "val", "test"), f"learning, selection and test in turn, in {folds} folds")
    total = sum(splits.values()) or 1
    return Table(
        caption="Splits",
        headers=["Split", "Rows", "Share", Cell("Used for", numeric=False)],
        rows=[
            [name, Cell(f"{rows:,}"), Cell(f"{100 * rows / total:.0f} %"), Cell(use.get(name, "extra split"), numeric=False)]
            for name, rows in splits.items()
        ],
    )


def sources_table(view: ResultView) -> Table | None:
    """Return input files with hashes, and credits."""
    suite = view.section("suite")
    credits, sources = dict(suite.get("credits") or {}), dict(suite.get("sources") or {})
    rows: list[list[str | Cell]] = [[name, Cell(f"SHA-256 {digest[:16]}…", numeric=False)] for name, digest in sources.items()]
    rows += [[name, Cell(line, numeric=False)] for name, line in credits.items()]
    return (
        Table(caption="Sources and credits", headers=["Source", Cell("Hash or credit", numeric=False)], rows=rows)
        if rows
        else None
    )


def machine_table(view: ResultView) -> Table:
    """Return versions, machine and settings of the run."""
    facts: list[tuple[str, object]] = [("graftwork", view.result.get("version")), ("created", moment(view.result.get("created")))]
    facts += [(key, value) for key, value in view.section("machine").items() if key != "graftwork"]
    facts += [("suite fingerprint", str(view.section("suite").get("fingerprint") or "")[:16])]
    facts += [(f"setting: {key.replace('_', ' ')}", _setting(key, value)) for key, value in view.section("settings").items()]
    return Table(
        caption="Versions, machine and settings",
        headers=["What", Cell("Value", numeric=False)],
        rows=[[str(key), Cell(_fact(value), numeric=False)] for key, value in facts if value not in (None, "", [], {})],
    )


def _setting(key: str, value: object) -> object:
    """Return a setting with its unit where it has one."""
    if key == "time_limit" and is_number(value):
        return duration(float(value))  # type: ignore[arg-type]
    return f"{_fact(value)} s" if key.endswith("_seconds") and is_number(value) else value


def _fact(value: object) -> str:
    """Return a value as people write it: yes and no, 1 in place of 1.0, lists without brackets."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return plain_number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_fact(item)}" for key, item in value.items())
    return ", ".join(map(_fact, value)) if isinstance(value, list | tuple) else str(value)
