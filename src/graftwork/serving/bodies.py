"""From the body of a request to what is asked and the checked rows. No torch."""

from __future__ import annotations

import contextlib
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile

from graftwork.data.names import short_list
from graftwork.serving.asking import Ask, parse_json, read_options
from graftwork.serving.large_json import WINDOW
from graftwork.serving.problems import Problem, RequestError
from graftwork.serving.served_model import ServedModel

__all__ = ["read_body", "understood"]


async def read_body(model: ServedModel, request: Request) -> bytes | dict[str, Any]:
    """Return the bytes of a JSON text, or the fields of a form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return await request.body()
    if kind == "multipart/form-data" and model.kind == "image":
        return await _read_form(model, request)
    allowed = "application/json" + (" or multipart/form-data" if model.kind == "image" else "")
    raise RequestError(415, "The content type is not one that this model reads.", Problem("Content-Type", kind or None, allowed))


async def _read_form(model: ServedModel, request: Request) -> dict[str, Any]:
    """Return an upload in the form of a JSON request, with bytes for pictures."""
    try:
        async with request.form(max_files=model.limits.max_rows, max_fields=1_000) as form:
            content: dict[str, Any] = {}
            for name, value in form.multi_items():
                # A file's bytes stay bytes; fields are text.
                item = await value.read() if isinstance(value, UploadFile) else value
                content.setdefault(name, []).append(item)
    except (ValueError, LookupError, AssertionError) as error:
        problem = Problem("", f"{type(error).__name__}: {error}", "multipart/form-data with the pictures under images")
        raise RequestError(400, "The form cannot be read.", problem) from error
    if "tasks" in content:
        # A form has no lists: tasks may come as several fields or as one with commas.
        parts = [[item] if item in model.specs or not isinstance(item, str) else item.split(",") for item in content["tasks"]]
        content["tasks"] = [name.strip() if isinstance(name, str) else name for part in parts for name in part]
    for name in set(content) - {"tasks", "images"}:
        # The last one counts, as usual with forms.
        value = content[name][-1]
        with contextlib.suppress(RequestError):  # what is no JSON stays text, and is refused as such
            value = parse_json(value.encode("utf-8", "replace")) if isinstance(value, str) else value
        content[name] = value
    return content


def _understand(model: ServedModel, content: Any) -> tuple[Ask, list[Any]]:
    """Return what is asked and the checked rows.

    Raises:
        RequestError: With status 422, listing every fault.
    """
    keys = model.reader.keys
    if not isinstance(content, dict):
        raise RequestError(422, "The request is not an object.", Problem("", content, f"an object with {short_list(keys)}"))
    problems: list[Problem] = []
    ask = read_options(
        content,
        model.tasks,
        rows=keys,
        smallest_budget=model.smallest_budget,
        widest_interval=model.widest_interval,
        problems=problems,
    )
    rows = model.reader.read(content, problems)
    if problems:
        count = f"{len(problems)} faults" if len(problems) > 1 else "a fault"
        # Capped: a request of thousands of wrong rows would get an answer larger than itself.
        raise RequestError(422, f"The request has {count}.", *problems[:20])
    return ask, rows


async def understood(model: ServedModel, content: Any) -> tuple[Ask, list[Any]]:
    """Return what a body asks, and its rows; a large one is read in another thread, so that all others are still answered."""
    if not isinstance(content, bytes):
        return _understand(model, content)
    if len(content) <= WINDOW:
        return _understand(model, parse_json(content))
    return await model.threads.run(lambda: _understand(model, parse_json(content)), size=len(content))
