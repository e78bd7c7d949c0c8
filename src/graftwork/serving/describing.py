"""What a server says about its model: the description that the page builds its form from, and the schema of requests and
answers."""

from __future__ import annotations

import math
from typing import Any

from graftwork.interfaces.task_kind import task_kind
from graftwork.serving.asking import least_shown
from graftwork.serving.served_model import ServedModel

__all__ = ["answer_schema", "describe", "error_schema", "request_bodies"]

Schema = dict[str, Any]


def describe(model: ServedModel) -> dict[str, Any]:
    """Return name, plan, date, inputs, tasks, limits, costs and controls of a model."""
    limits = model.limits
    costs = model.costs
    controls = None
    if model.controls is not None and model.smallest_budget is not None:
        # Rounded and without repetitions: many configurations differ in decoders only.
        shares = sorted({round(model.controls.share(item), 4) for item in model.controls.configurations})
        controls = {"smallest_budget": least_shown(model.smallest_budget), "shares": shares}
    return {
        "name": model.name,
        "plan": model.plan,
        "created": model.created,
        "kind": model.kind,
        "inputs": model.reader.inputs(),
        "keys": list(model.reader.keys),
        "tasks": [
            {
                "name": spec.name,
                "kind": spec.kind,
                "positions": spec.positions,
                "size": spec.size,
                "classes": list(spec.classes),
                "columns": list(spec.columns),
            }
            for spec in model.specs.values()
        ],
        "limits": {
            "max_rows": limits.max_rows,
            "max_body_bytes": limits.max_body_bytes,
            "max_batch": limits.max_batch,
            "timeout_seconds": limits.timeout,
        },
        "cost": {"full_flops": costs.total, "shares": {task: round(costs.share([task]), 4) for task in model.tasks}}
        if costs
        else None,
        "controls": controls,
    }


def request_bodies(model: ServedModel) -> Schema:
    """Return the OpenAPI request body of ``/predict``."""
    limits = model.limits
    options = _options(model)
    variants = []
    for key, item in model.reader.item_schemas().items():
        rows = {"type": "array", "minItems": 1, "maxItems": limits.max_rows, "items": item}
        variants.append(
            {"type": "object", "required": [key], "properties": {key: rows, **options}, "additionalProperties": False}
        )
    content: Schema = {"application/json": {"schema": variants[0] if len(variants) == 1 else {"oneOf": variants}}}
    if model.kind == "image":
        content["multipart/form-data"] = {"schema": _form(options, limits.max_rows)}
    return {"required": True, "content": content}


def _options(model: ServedModel) -> Schema:
    options: Schema = {
        "tasks": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "enum": list(model.tasks)},
            "description": "What to compute; all tasks by default. What is not asked is not computed.",
        },
        "probabilities": {"type": "boolean", "description": "Whether to add the probability of every class."},
    }
    widest = model.widest_interval
    if widest is not None:
        options["interval"] = {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": math.floor(widest * 1000) / 1000,
            "description": "Share of new rows that is to lie between low and high, which are added to numbers.",
        }
    if model.smallest_budget is not None:
        weight = {"type": "number", "minimum": 0, "maximum": 1e300}
        options["budget"] = {
            "type": "number",
            "minimum": least_shown(model.smallest_budget),
            "maximum": 1,
            "description": "Largest share of the full model's cost.",
        }
        options["importance"] = {
            "type": "object",
            "properties": dict.fromkeys(model.tasks, weight),
            "additionalProperties": False,
            "description": "Weight of each task, 1 by default; more never means a narrower decoder.",
        }
    return options


def _form(options: Schema, max_rows: int) -> Schema:
    """Return the form of an upload; everything but the pictures is text in it."""
    fields: Schema = {
        "images": {
            "type": "array",
            "minItems": 1,
            "maxItems": max_rows,
            "items": {"type": "string", "format": "binary"},
        },
        "probabilities": {"type": "string", "enum": ["true", "false"]},
        "tasks": options["tasks"],
    }
    if "interval" in options:
        fields["interval"] = options["interval"]
    if "budget" in options:
        fields["budget"] = options["budget"]
        # Not a JSON schema format: the page recognises the field by it.
        fields["importance"] = {
            "type": "string",
            "format": "importance-json",
            "description": "The object of the JSON form, as text.",
        }
    return {"type": "object", "required": ["images"], "properties": fields, "additionalProperties": False}


def answer_schema(model: ServedModel) -> Schema:
    """Return the schema of an answer of ``/predict``."""
    number, name = {"type": ["number", "null"]}, {"type": "string"}
    numbers = {"type": "object", "additionalProperties": number}
    pixels = {"type": "array", "items": {"type": "array", "items": number}}
    prediction: Schema = {
        "type": "object",
        "properties": {
            "value": {
                "type": ["string", "number", "array", "null"],
                "description": "Class, number, or labels above their thresholds.",
            },
            "probability": {**number, "description": "Of the class in value."},
            "probabilities": {**numbers, "description": "By class or label."},
            "low": {"type": ["number", "object", "null"], "description": "End of the interval, by column if there are several."},
            "high": {"type": ["number", "object", "null"], "description": "End of the interval, by column if there are several."},
            "values": {**numbers, "description": "By column, if a task predicts several numbers."},
            "map": {**pixels, "description": "One number per pixel, by row: class numbers, probabilities or values."},
            "maps": {"type": "array", "items": pixels},
            "classes": {"type": "array", "items": name},
        },
        "additionalProperties": False,
    }
    row = {
        "type": "object",
        "properties": {
            name: {**prediction, "properties": {**prediction["properties"], **task_kind(spec).answer_fields}}
            for name, spec in model.specs.items()
        },
        "additionalProperties": False,
    }
    cost = {"flops": number, "full_flops": number, "saved": number}
    times = {"total": {"type": "number"}, "queue": {"type": "number"}, "model": {"type": "number"}}
    widths = {"encoder": {"type": "number"}, "decoders": {"type": "object", "additionalProperties": {"type": "number"}}}
    properties: Schema = {
        "predictions": {"type": "array", "items": row, "description": "One object per row, in the order of the rows."},
        "tasks": {"type": "array", "items": name},
        "cost": {
            "type": "object",
            "properties": cost,
            "description": "Floating-point operations per row, and the share of the full model that was saved.",
        },
        "configuration": {"type": ["object", "null"], "properties": widths, "description": "Widths of the sub-network."},
        "milliseconds": {"type": "object", "properties": times},
        "batch_rows": {"type": "integer", "description": "Rows that ran together with this request's."},
        "notes": {"type": "array", "items": name, "description": "Cells that are not empty but count as missing, by column."},
    }
    return {"type": "object", "required": list(properties), "properties": properties}


def error_schema() -> Schema:
    """Return the schema of every error."""
    problem = {
        "type": "object",
        "required": ["field", "value", "allowed"],
        "properties": {
            "field": {"type": "string", "description": "Path of what is wrong; empty for the request as a whole."},
            "value": {"description": "What was given, cut short."},
            "allowed": {"type": "string"},
        },
    }
    return {
        "type": "object",
        "required": ["error", "problems"],
        "properties": {"error": {"type": "string"}, "problems": {"type": "array", "items": problem}},
    }
