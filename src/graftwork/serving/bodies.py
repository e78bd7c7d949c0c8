"""From the body of a request to what is asked and the checked rows. No torch."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile

from graftwork.data.names import short_list
from graftwork.serving.asking import OPTIONS, Ask, parse_json, read_options
from graftwork.serving.large_json import WINDOW
from graftwork.serving.problems import MOST_PROBLEMS, Problem, RequestError
from graftwork.serving.served_model import ServedModel

__all__ = ["Form", "read_body", "understood"]

_MOST_FIELDS = 1_000
"""Texts of a form; tasks may come as one text each."""
_FIELD_BYTES = 65_536
"""Bytes of one text of a form: options are short, and pictures are files, which have limits of their own."""


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of an upload as they came: nothing is read yet but where each of them begins and ends."""

    fields: Mapping[str, Sequence[str | bytes]]
    """What came under each name: texts, and the bytes of files."""

    @property
    def text_size(self) -> int:
        """Characters of all texts, from which values are made."""
        return sum(len(item) for items in self.fields.values() for item in items if isinstance(item, str))


async def read_body(model: ServedModel, request: Request) -> bytes | Form:
    """Return the bytes of a JSON text, or the fields of a form; neither is read here, where everybody else would wait."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return await request.body()
    if kind == "multipart/form-data" and model.kind == "image":
        return await _read_form(model, request)
    allowed = "application/json" + (" or multipart/form-data" if model.kind == "image" else "")
    raise RequestError(415, "The content type is not one that this model reads.", Problem("Content-Type", kind or None, allowed))


async def _read_form(model: ServedModel, request: Request) -> Form:
    try:
        limits = {"max_files": model.limits.max_rows, "max_fields": _MOST_FIELDS, "max_part_size": _FIELD_BYTES}
        async with request.form(**limits) as form:
            fields: dict[str, list[str | bytes]] = {}
            for name, value in form.multi_items():
                # A file's bytes stay bytes; fields are text.
                fields.setdefault(name, []).append(await value.read() if isinstance(value, UploadFile) else value)
    except (ValueError, LookupError, AssertionError) as error:
        problem = Problem("", f"{type(error).__name__}: {error}", "multipart/form-data with the pictures under images")
        raise RequestError(400, "The form cannot be read.", problem) from error
    return Form(fields)


def _as_request(model: ServedModel, form: Form) -> dict[str, Any]:
    """Return an upload in the form of a JSON request, with bytes for pictures. Options are read, nothing else is."""
    content: dict[str, Any] = {
        name: list(items) if name in model.reader.keys else items[-1] for name, items in form.fields.items()
    }
    if "tasks" in form.fields:
        # A form has no lists: tasks may come as several fields or as one with commas.
        items = form.fields["tasks"]
        parts = [[item] if item in model.specs or not isinstance(item, str) else item.split(",") for item in items]
        # Each once, so that many of them are looked through once as well.
        content["tasks"] = list(dict.fromkeys(name.strip() if isinstance(name, str) else name for part in parts for name in part))
    for name in {*OPTIONS} & {*content} - {"tasks"}:
        # The last one counts, as usual with forms.
        value = content[name]
        with contextlib.suppress(RequestError):  # what is no JSON stays text, and is refused as such
            content[name] = parse_json(value.encode("utf-8", "replace")) if isinstance(value, str) else value
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
        if len(problems) >= MOST_PROBLEMS:  # what came after them was not looked at
            count = f"at least {len(problems)} faults"
        # Capped: a request of thousands of wrong rows would get an answer larger than itself.
        raise RequestError(422, f"The request has {count}.", *problems[:MOST_PROBLEMS])
    return ask, rows


async def understood(model: ServedModel, content: bytes | Form) -> tuple[Ask, list[Any]]:
    """Return what a body asks, and its rows; a form or a large text is read in another thread, so that all others are still
    answered."""
    if isinstance(content, Form):
        return await model.threads.run(lambda: _understand(model, _as_request(model, content)), size=content.text_size)
    if len(content) <= WINDOW:
        return _understand(model, parse_json(content))
    return await model.threads.run(lambda: _understand(model, parse_json(content)), size=len(content))
