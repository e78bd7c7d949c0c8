"""A made-up but complete result of ``graftwork fit``, for pictures or a table, to develop and test reports against."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

__all__ = ["build_result"]

_PLANS = {
    "image": [
        ("separate", "Separate models, one per task", "separate", "scratch"),
        ("frozen-heads", "Frozen pretrained trunk, heads on cached features", "frozen", "pretrained"),
        ("lora", "Pretrained trunk with LoRA", "tuning", "pretrained"),
        ("shared-trunk", "Shared trunk, plain sum of losses", "sharing", "scratch"),
        ("mmoe", "Multi-gate mixture of experts", "sharing", "scratch"),
        ("uncertainty", "Shared trunk, uncertainty weighting", "balancing", "scratch"),
        ("cagrad", "Shared trunk, CAGrad", "balancing", "scratch"),
        ("full-tuning", "Pretrained trunk, all weights tuned", "tuning", "pretrained"),
    ],
    "table": [
        ("separate", "Separate models, one per task", "separate", "scratch"),
        ("lightgbm", "LightGBM, one per target", "trees", "scratch"),
        ("shared-trunk", "Shared trunk, plain sum of losses", "sharing", "scratch"),
        ("mmoe", "Multi-gate mixture of experts", "sharing", "scratch"),
        ("ple", "Progressive layered extraction", "sharing", "scratch"),
        ("pcgrad", "Shared trunk, PCGrad", "balancing", "scratch"),
    ],
}

_TASKS = {
    "image": [
        {"name": "category", "kind": "multiclass", "size": 8, "classes": ["smileys", "people", "animals", "food", "travel", "activities",
                                                                          "objects", "symbols"], "columns": ["category"]},
        {"name": "subcategory", "kind": "multiclass", "size": 51, "classes": [f"group {i}" for i in range(51)], "columns": ["subcategory"]},
        {"name": "mean colour", "kind": "regression", "size": 3, "columns": ["red", "green", "blue"], "center": [160, 140, 120],
         "scale": [40, 38, 45]},
        {"name": "ink share", "kind": "regression", "size": 1, "columns": ["ink"], "center": [0.55], "scale": [0.2]},
    ],
    "table": [
        {"name": "churned", "kind": "binary", "size": 1, "classes": ["no", "yes"], "columns": ["churned"]},
        {"name": "plan", "kind": "multiclass", "size": 3, "classes": ["basic", "plus", "pro"], "columns": ["plan"]},
        {"name": "satisfaction", "kind": "ordinal", "size": 5, "classes": ["1", "2", "3", "4", "5"], "columns": ["satisfaction"]},
        {"name": "monthly spend", "kind": "regression", "size": 1, "columns": ["spend"], "center": [50], "scale": [20]},
        {"name": "interests", "kind": "multilabel", "size": 4, "classes": ["music", "film", "sport", "books"], "columns": ["interests"]},
    ],
}  # fmt: skip

_METRIC = {"binary": "roc_auc", "multiclass": "accuracy", "ordinal": "quadratic_kappa", "regression": "rmse",
           "multilabel": "mean_average_precision"}  # fmt: skip


def _interval(value: float, half: float) -> dict[str, float]:
    return {"value": round(value, 5), "low": round(value - half, 5), "high": round(value + half * 1.1, 5), "level": 0.95}


def _label(value: float, half: float) -> str:
    if abs(value) > half:
        return "better" if value > 0 else "worse"
    if abs(value) > 0.6 * half:
        return "probably better" if value > 0 else "probably worse"
    return "no difference"


def _picture(seed: int) -> str:
    from PIL import Image, ImageDraw

    draw_from = np.random.default_rng(seed)
    picture = Image.new("RGB", (72, 72), "white")
    color = tuple(int(value) for value in draw_from.integers(60, 230, 3))
    shape = ImageDraw.Draw(picture)
    (shape.ellipse if seed % 2 else shape.rectangle)((10, 10, 62, 62), fill=color)
    shape.ellipse((24, 26, 32, 34), fill="black")
    shape.ellipse((42, 26, 50, 34), fill="black")
    target = io.BytesIO()
    picture.save(target, "PNG")
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()


def _diagnostics(tasks: list[dict[str, Any]], rows: int) -> dict[str, Any]:
    """Return what is shown of made-up predictions."""
    from graftwork.core.records import TaskSpec
    from graftwork.evaluation.diagnostics import diagnose_task

    draw, found = np.random.default_rng(1), {}
    for item in tasks:
        task = TaskSpec.from_json(item)
        if task.kind == "regression":
            target = draw.normal(50, 20, (rows, task.size))
            answer = target + draw.normal(0, 8, target.shape)
        elif task.kind == "multilabel":
            target = (draw.random((rows, task.size)) < 0.4).astype(np.float32)
            answer = np.clip(0.3 + 0.4 * target + draw.normal(0, 0.2, target.shape), 0.01, 0.99)
        else:
            target = draw.integers(0, len(task.classes), rows)
            answer = draw.dirichlet(np.ones(len(task.classes)), rows) + 0.6 * np.eye(len(task.classes))[target]
            answer = answer / answer.sum(axis=1, keepdims=True)
            answer = answer[:, 1] if task.kind == "binary" else answer
        found[task.name] = diagnose_task(task, target, answer)
    return found


def build_result(modality: str = "image", *, seed: int = 0, model: bool = False) -> dict[str, Any]:
    """Return a result as ``graftwork fit`` writes it.

    Args:
        modality: ``image`` or ``table``.
        seed: Seed of its numbers.
        model: Whether it has the parts that show the model, which results of older versions lack.
    """
    draw = np.random.default_rng(seed)
    tasks = [{"classes": [], "columns": [], "center": [], "scale": [], "metric": "", **task} for task in _TASKS[modality]]
    names = [task["name"] for task in tasks]
    plans = _PLANS[modality]
    finalists = [name for name, *_ in plans[:4]]
    choice = finalists[1] if modality == "image" else "shared-trunk"
    base = {task["name"]: 12.0 if task["kind"] == "regression" else 0.62 + 0.05 * index for index, task in enumerate(tasks)}

    result: dict[str, Any] = {
        "format": "graftwork-fit-1",
        "version": "0.1.0",
        "created": "2025-06-01T10:12:13+00:00",
        "command": "graftwork fit"
        if modality == "image"
        else "graftwork fit customers.csv --targets churned,plan,satisfaction,spend "
        "--group customer_id --time-limit 5m --seeds 3",
        "suite": {
            "name": "emoji" if modality == "image" else "customers",
            "modality": modality,
            "rows": 1580 if modality == "image" else 2400,
            "splits": {"train": 948, "val": 316, "test": 316, **({"transfer": 300} if modality == "image" else {})},
            "tasks": tasks,
            "notes": [
                "Column 'postcode' looks like a group: 83 values, each in several rows. Name it with --group "
                "if rows of one value belong together.",
                "12 rows are exact duplicates of others; each set of duplicates is on one side of every split.",
            ],
            "credits": {"Twemoji": "Graphics: Twemoji by Twitter and contributors, CC-BY 4.0"} if modality == "image" else {},
            "sources": {"twemoji.zip" if modality == "image" else "customers.csv": "ab12" * 16},
            "fingerprint": "0123456789abcdef" * 4,
            "domains": ["twemoji", "noto"] if modality == "image" else [],
        },
        "settings": {"time_limit": "5m", "seeds": 3, "seed": 0, "backbone": "lite0" if modality == "image" else None},
        "machine": {"cores": 2, "python": "3.11.9", "torch": "2.6.0", "platform": "Linux x86_64"},
        "estimate": [],
        "race": [],
        "plans": {},
        "comparisons": [],
        "source_effect": [],
        "controls": [],
        "affinity": None,
        "pareto": [],
        "examples": [],
        "timing": {"started": "2025-06-01T10:07:01+00:00", "finished": "2025-06-01T10:12:13+00:00", "seconds": 312.4},
    }

    for index, (name, title, family, source) in enumerate(plans):
        parameters = int(10 ** draw.uniform(4.6, 6.6)) if name != "separate" else 4 * 310_000
        kept = index != len(plans) - 1
        result["estimate"].append(
            {"plan": name, "seconds_per_step": 0.01 * (index + 1), "seconds": 12.0 * (index + 1), "peak_rss_bytes": 4.1e8 + 5e7 * index,
             "parameters": parameters, "kept": kept, "reason": "" if kept else "would need 96 s of the 60 s that are left"}
        )  # fmt: skip
        is_finalist = name in finalists
        relative, per_task = {}, {}
        for column, task in enumerate(tasks):
            change = 0.0 if name == "separate" else float(draw.normal(1.0 - 4 * (column % 2) + (7.0 if name == choice else 0), 3))
            half = float(draw.uniform(2, 5))
            better = -1 if task["kind"] == "regression" else 1
            value = base[task["name"]] * (1 + better * change / 100)
            metric = _METRIC[task["kind"]]
            per_task[task["name"]] = {metric: _interval(value, 0.03 * value)}
            if metric == "rmse":
                per_task[task["name"]]["r2"] = _interval(0.4, 0.05)
            relative[task["name"]] = _interval(change, half)
            if is_finalist and name != "separate":
                result["comparisons"].append(
                    {"task": task["name"], "plan": name, "reference": "separate", "difference": _interval(change, half),
                     "p_value": 0.04, "label": _label(change, half)}
                )  # fmt: skip
        mean = float(np.mean([item["value"] for item in relative.values()]))
        plan = {"name": name, "title": title, "family": family, "modalities": [modality], "source": source}
        ledger = {
            "parameters_total": parameters, "parameters_trained": parameters if source == "scratch" else parameters // 40,
            "parameters_stored": parameters, "flops_per_sample": parameters * 21.0, "steps": 600, "samples": 38_400,
            "wall_seconds": 20.0 + 4 * index, "cpu_seconds": 39.0, "peak_rss_bytes": int(4.1e8), "activation_bytes": int(2.2e7),
            "latency_ms_batch1": 0.8 + 0.4 * index, "latency_ms_batch32": 9.0 + 4 * index,
        }  # fmt: skip
        result["plans"][name] = {
            "plan": plan, "finalist": is_finalist, "ledger": ledger,
            "test": per_task if is_finalist else {}, "per_seed": [{"seed": 0, "test": {}}],
            "delta_m": (_interval(mean, 1.8) if name != "separate" else _interval(0, 0)) if is_finalist else None,
            "relative": relative if is_finalist else {},
            "transfer": per_task if is_finalist and modality == "image" else None,
        }  # fmt: skip
        if is_finalist:
            result["pareto"].append(
                {"plan": name, "cost": parameters, "cost_name": "parameters_stored", "score": mean, "on_front": False}
            )
        for rung, steps in enumerate((60, 180, 600)):
            if rung > (2 if is_finalist else index % 2):
                break
            broken = name == "cagrad" and rung == 0
            result["race"].append(
                {"rung": rung, "plan": name, "seed": 0, "steps": steps, "status": "diverged" if broken else "ok",
                 "message": "loss of task 'ink share' became NaN at step 41" if broken else "", "validation": {},
                 "score": None if broken else round(mean + rung * 2 + float(draw.normal(0, 0.4)), 3), "seconds": 3.0 * (rung + 1)}
            )  # fmt: skip

    for row in result["pareto"]:
        row["on_front"] = not any(o["cost"] <= row["cost"] and o["score"] > row["score"] for o in result["pareto"])
    if modality == "image":
        for task in names:
            value = 6.0 if task in names[:2] else -5.0
            result["source_effect"].append(
                {"task": task, "pretrained_plan": "frozen-heads", "scratch_plan": "shared-trunk", "difference": _interval(value, 3.0),
                 "label": _label(value, 3.0)}
            )  # fmt: skip
    for index, task in enumerate(names):
        label = ("transfer", "regularisation", "harm", "no gain", "unclear")[index % 5]
        gain = {"transfer": 4.0, "regularisation": 3.0, "harm": -4.0}.get(label, 0.3)
        result["controls"].append(
            {"task": task, "plan": "shared-trunk", "gain": _interval(gain, 2.0),
             "over_control": _interval(3.0 if label == "transfer" else 0.2, 2.0), "label": label}
        )  # fmt: skip
    size = len(names)
    values = draw.normal(0, 0.4, (size, size)).round(2)
    np.fill_diagonal(values, 0)
    result["affinity"] = {"tasks": names, "value": values.tolist(), "low": (values - 0.3).tolist(), "high": (values + 0.3).tolist(),
                          "own": [1.0] * size, "method": "lookahead, relative to the column's own step"}  # fmt: skip
    delta = result["plans"][choice]["delta_m"]["value"]
    result["verdict"] = {
        "choice": choice, "reference": "separate", "strength": "asserts" if modality == "image" else "tentative",
        "sentences": [
            f"Use `{choice}`: over all tasks it scores {delta:+.1f} % against separate models and costs a quarter of their time.",
            f"Training `{names[0]}` together with {names[1]} helps, while {names[2]} hurts {names[0]}.",
        ],
        "source_sentence": "The pretrained trunk helps category and subcategory, and hurts mean colour and ink share."
        if modality == "image" else None,
        "warnings": ["Only 316 test rows: intervals are wide."],
    }  # fmt: skip
    for row in range(8):
        truth, prediction, correct = {}, {}, {}
        for task in tasks:
            if task["kind"] == "regression":
                truth[task["name"]], prediction[task["name"]], correct[task["name"]] = "160, 140, 120", "152, 139, 125", None
            else:
                truth[task["name"]], prediction[task["name"]] = task["classes"][0], task["classes"][row % 2]
                correct[task["name"]] = row % 2 == 0
        result["examples"].append(
            {"row": row, "label": f"example-{row}.png" if modality == "image" else f"row {row}",
             "picture": _picture(row) if modality == "image" else None, "text": None,
             "truth": truth, "prediction": prediction, "correct": correct}
        )  # fmt: skip
    if model:
        result["diagnostics"] = _diagnostics(tasks, 316)
        result["suite"]["columns"] = {
            "age": {"kind": "numeric", "missing": 21, "use": "number, and a flag where it is missing", "why": ""},
            "since": {"kind": "date", "missing": 0, "use": "year, month, elapsed days", "why": ""},
            "postcode": {"kind": "categorical", "missing": 0, "use": "", "why": "only names rows: nearly all values differ"},
        }
        result["suite"]["num_columns"] = 3
    return result
