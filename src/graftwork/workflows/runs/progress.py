"""The state of a run as its events tell it: what runs, what is left, who leads, when it will end. No output here."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from graftwork.core.plain_numbers import plain_number
from graftwork.core.plain_text import plain_text

__all__ = ["Progress"]

_MOST_TASKS = 20
"""Tasks that get a line of their own."""
_NO_STEP = 1e-5
"""Seconds of a step below which there are no steps: the plan is fitted in one go."""


def _count(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 seed``, ``1,560 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _seconds(value: float) -> str:
    from graftwork.workflows.quantities import format_seconds

    return format_seconds(value)


class Progress:
    """Takes events and answers with lines worth keeping; knows the present state in between."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.phase = "reading data"
        self.running: dict[str, dict[str, Any]] = {}
        self.scores: dict[str, float | None] = {}
        self.left: dict[str, str] = {}
        self._left_out: dict[str, list[str]] = {}
        """Plans that are left out of the race by the reason, until a line says so."""
        self.jobs_done = self.jobs_total = 0
        self.expected_seconds = 0.0
        """Expected seconds of the race, from the schedule."""
        self.raced_since: float | None = None
        self._busy_seconds = 0.0
        self._jobs_raced = 0
        self._workers = 1

    def handle(self, event: Mapping[str, Any]) -> list[str]:
        """Take one event; return lines to print."""
        # Events that this version does not know say nothing here.
        method = getattr(self, "_on_" + str(event["event"]).replace("-", "_"), None)
        lines = method(event) if method is not None else []
        # One line a reason: in a short race most plans are left out for the same one.
        if event["event"] in ("schedule", "phase", "done"):
            lines = [*self._left_out_lines(), *lines]
        # Names of columns, files and plans are in them.
        return [plain_text(line) for line in lines]

    def _left_out_lines(self) -> list[str]:
        found = [f"  {', '.join(plans)}: left out: {reason}" for reason, plans in self._left_out.items()]
        self._left_out.clear()
        return found

    def _on_suite(self, event: Mapping[str, Any]) -> list[str]:
        splits = ", ".join(f"{name} {count:,}" for name, count in event["splits"].items())
        lines = [f"data: {event['name']} ({event['modality']}), {_count(event['rows'], 'row')} ({splits})"]
        tasks = event["tasks"]
        if len(tasks) > _MOST_TASKS:
            kinds = Counter(str(task["kind"]) for task in tasks)
            examples = {kind: next(task["name"] for task in tasks if task["kind"] == kind) for kind in kinds}
            lines.append(
                f"  {len(tasks)} tasks: "
                + ", ".join(f"{count} {kind} ({examples[kind]} ...)" for kind, count in kinds.most_common())
            )
            tasks = ()
        for task in tasks:
            unit = "classes" if task.get("classes") else "values" if task.get("center") else ""
            size = f", {task['size']} {unit}" if unit and task["size"] > 1 else ""
            lines.append(f"  task {task['name']}: {task['kind']}{size}")
        return [*lines, *(f"  note: {note}" for note in event["notes"])]

    def _on_plans_out(self, event: Mapping[str, Any]) -> list[str]:
        return [f"  note: {event['line']}"] if event["line"] else []

    def _on_data_changed(self, event: Mapping[str, Any]) -> list[str]:
        files = ", ".join(event["files"])
        return [f"  note: {files} was written to since the run read it; the run goes on with the data as it was"]

    def _on_device(self, event: Mapping[str, Any]) -> list[str]:
        device, precision = str(event["device"]), str(event["precision"])
        words = {
            "fp32": "forward passes in float32",
            "bf16": "forward passes in bfloat16" + (", which is rarely faster on a CPU" if device == "cpu" else ""),
            "bf16-pretrained": "forward passes of pretrained backbones in bfloat16",
        }
        return [f"networks are trained on {device}{', ' if precision in words else ''}{words.get(precision, '')}"]

    def _on_backbones(self, event: Mapping[str, Any]) -> list[str]:
        from graftwork.reporting.backbone_lines import ranking_words

        return [f"for {ranking_words(event)}"]

    def _on_phase(self, event: Mapping[str, Any]) -> list[str]:
        self.phase = str(event["phase"])
        self.jobs_done, self.jobs_total = 0, int(event.get("jobs", 0))
        if self.phase == "estimate":
            # A warm start may know what all of them cost.
            return [f"estimating {_count(len(event['plans']), 'plan')}: {', '.join(event['plans'])}"] if event["plans"] else []
        if self.phase == "first models":
            return [f"quick models first, so that there is one in any case: {', '.join(event['plans'])}"]
        if self.phase == "costs":
            return [f"measuring the costs of {_count(len(event['plans']), 'method')}: {', '.join(event['plans'])}"]
        if self.phase == "inspection":
            return ["looking into the chosen plan: which columns matter, and what more rows would bring"]
        if self.phase.startswith("attempt"):
            return [f"{self.phase}, since there is time left: {event['what']}"]
        if self.phase == "controls":
            # One job is the affinity alone.
            return [f"{'controls and ' if self.jobs_total > 1 else ''}affinities: {', '.join(event['plans'])}"]
        if self.phase.startswith("rung"):
            number = len(event["plans"])
            return [f"{self.phase}: {_count(number, 'plan')} race{'s' if number == 1 else ''}: {', '.join(event['plans'])}"]
        if self.phase in ("trainings", "grouping"):
            what = "training" if self.phase == "trainings" else "measuring which tasks to group for"
            return [f"{what}: {', '.join(event['plans'])}"]
        if self.phase == "teachers":
            return [f"asking {_count(len(event['plans']), 'teacher')}: {', '.join(event['plans'])}"]
        if self.phase == "finals":
            has_control = event.get("control_plan") and event.get("control_tasks")
            control = f"; control with shuffled companions: {event['control_plan']}" if has_control else ""
            return [f"finals: {', '.join(event['plans'])}{control}"]
        return []

    def _on_estimate(self, event: Mapping[str, Any]) -> list[str]:
        from graftwork.workflows.quantities import format_bytes, format_count

        if not event["kept"]:
            self.left[event["plan"]] = "left out"
            self._left_out.setdefault(str(event["reason"]), []).append(str(event["plan"]))
            return []
        memory = f", {format_bytes(event['peak_rss_bytes'])}" if event["peak_rss_bytes"] else ""
        note = f" ({event['reason']})" if event["reason"] else ""
        steps = f"{plain_number(1000 * event['seconds_per_step'], 3)} ms a step, {_count(int(event.get('horizon') or 0), 'step')}"
        if event["seconds_per_step"] < _NO_STEP:
            steps = "fitted in one go"
        if not event.get("measured", True):
            # The median of the other plans is shown as what it is.
            return [
                f"  {event['plan']}: not measured for lack of time, a guess from the others: about {_seconds(event.get('seconds', 0.0))}{note}"
            ]
        # Trees have none before they are trained, and neither has what was not measured.
        size = f"{format_count(event['parameters'])} parameters{memory}, " if event["parameters"] else ""
        return [f"  {event['plan']}: {size}{steps}, about {_seconds(event.get('seconds', 0.0))}{note}"]

    def _on_schedule(self, event: Mapping[str, Any]) -> list[str]:
        self.expected_seconds, self.raced_since = float(event["seconds"]), time.monotonic()
        self._workers = max(1, int(event.get("workers", 1)))
        seeds = _count(len(event["seeds"]), "seed")
        notes = [f"  note: {note}" for note in event.get("notes", ())]
        return [
            f"the race will take about {_seconds(self.expected_seconds)} with {_count(self._workers, 'worker')}; finals on {seeds}",
            *notes,
        ]

    def _on_replan(self, event: Mapping[str, Any]) -> list[str]:
        needed, left = float(event["seconds"]), float(event.get("left", math.inf))
        self.expected_seconds, self.raced_since = min(needed, left), time.monotonic()
        self._busy_seconds = 0.0
        if needed > left:
            return [
                f"  planned again with measured times: about {_seconds(needed)} to go, but {_seconds(left)} are left: what is not done by "
                "then is cut"
            ]
        return [f"  planned again with measured times: about {_seconds(needed)} to go"]

    def _on_budget(self, event: Mapping[str, Any]) -> list[str]:
        self.raced_since, self._workers = time.monotonic(), max(1, int(event.get("workers", 1)))
        steps = sorted(set(event["horizons"].values()))
        span = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
        lines = (
            [
                f"budget: {span} steps a training, {_count(len(event['seeds']), 'seed')} of {_count(len(event['horizons']), 'plan')}"
            ]
            if steps
            else []
        )
        lines += [f"  {name}: left out: {reason}" for name, reason in event["left_out"].items()]
        return [*lines, *(f"  note: {note}" for note in event.get("notes", ()))]

    def _on_job_start(self, event: Mapping[str, Any]) -> list[str]:
        self.running[event["job"]] = {**event, "step": 0, "since": time.monotonic()}
        return []

    def _on_progress(self, event: Mapping[str, Any]) -> list[str]:
        if event["job"] in self.running:
            self.running[event["job"]]["step"] = event["step"]
        return []

    def _on_job_end(self, event: Mapping[str, Any]) -> list[str]:
        started = self.running.pop(event["job"], {})
        self.jobs_done += 1
        if self.raced_since is not None:
            # Estimates and groupings end before the race and say nothing about its pace.
            self._busy_seconds += float(event.get("seconds", 0.0))
            self._jobs_raced += 1
        if event["status"] == "ok":
            where = f"[{self.jobs_done}/{self.jobs_total}] " if self.jobs_total else ""
            steps = f" {_count(int(event['steps']), 'step')}" if event.get("steps") else ""
            return [f"  {where}{event['job']}:{steps} in {_seconds(event.get('seconds', 0.0))}"]
        if event["status"] == "stopped":
            return [f"  {event['job']}: stopped, its checkpoint is kept"]
        first = (str(event.get("message", "")).splitlines() or [""])[0]
        if event["status"] == "failed" and started.get("phase") == "costs":
            # Of many methods some cannot tune a backbone: that is an answer, no fault.
            return [f"  {started.get('plan') or event['job']}: not possible: {first}"]
        return [f"  {event['job']}: {event['status']}: {first}"]

    def _on_rung(self, event: Mapping[str, Any]) -> list[str]:
        self.scores |= event["scores"]
        for name in event["left"]:
            self.left[name] = f"left at rung {event['rung'] + 1}"
        ranked = sorted(event["scores"].items(), key=lambda item: -(item[1] if item[1] is not None else -1e9))
        shown = ", ".join(f"{name} {score:+.1f} %" for name, score in ranked if score is not None)
        return [f"rung {event['rung'] + 1}: {shown}"]

    def _on_stopping(self, event: Mapping[str, Any]) -> list[str]:
        self.phase = "stopping"
        return ["stopping: running jobs write their checkpoints (Ctrl-C again stops at once)"] if event["presses"] == 1 else []

    def _on_done(self, event: Mapping[str, Any]) -> list[str]:
        return [f"done in {_seconds(event['seconds'])}"]

    def remaining_seconds(self) -> float | None:
        """Return the expected seconds until the race ends; None before the schedule is known."""
        if self.raced_since is None:
            return None
        now = time.monotonic()
        busy = self._busy_seconds + sum(now - job["since"] for job in self.running.values())
        planned = self.expected_seconds - busy / self._workers
        waiting = max(0, self.jobs_total - self.jobs_done - len(self.running))
        at_this_pace = waiting * self._busy_seconds / max(1, self._jobs_raced) / self._workers
        # The plan knows of later phases, the pace of a machine that is slower than planned: the worse one counts.
        return max(0.0, planned, at_this_pace)

    def headline(self) -> str:
        """Return phase, jobs, time used and expected end in one line."""
        parts = [self.phase]
        if self.jobs_total:
            parts.append(f"{self.jobs_done} of {self.jobs_total} jobs")
        parts.append(f"{_seconds(time.monotonic() - self.started)} so far")
        remaining = self.remaining_seconds()
        if remaining is not None:
            end = time.strftime("%H:%M", time.localtime(time.time() + remaining))
            parts.append(f"about {_seconds(remaining)} left, until {end}")
        best = [name for name, _, state in self.ranking() if state == "leads"]
        if best:
            parts.append(f"best so far: {best[0]}")
        return " · ".join(parts)

    def running_rows(self) -> list[tuple[str, str, int, int]]:
        """Return plan, what it is about, step and last step of every running job."""
        rows = []
        for job in self.running.values():
            detail = f"{job['phase']}, seed {job['seed']}" + (f", only {job['task']} keeps its labels" if job.get("task") else "")
            rows.append((plain_text(job["plan"] or job["job"]), plain_text(detail), int(job["step"]), int(job["until"] or 0)))
        return rows

    def ranking(self) -> list[tuple[str, str, str]]:
        """Return name, score and state of every plan with a score, the best first."""
        ranked = sorted(self.scores.items(), key=lambda item: -(item[1] if item[1] is not None else -1e9))
        # Only the first plan that still races leads.
        rows, leader = [], True
        for name, score in ranked:
            state = self.left.get(name) or ("leads" if leader and score is not None else "racing")
            leader = leader and state != "leads"
            rows.append((plain_text(name), "" if score is None else f"{score:+.1f} %", state))
        return rows
