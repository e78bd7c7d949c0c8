"""``graftwork data``: the embedded suites, and what is in one of them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.cli.shared_flags import add_json_argument
from graftwork.core.errors import ConfigError

if TYPE_CHECKING:
    from graftwork.data.suite import Suite

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "data"
HELP = "list the embedded suites; with a name, load one and show its tasks, splits and credits"
EXAMPLES = """examples:
  graftwork data
  graftwork data digits                        its tasks, splits and credits
  graftwork data emoji --preview emoji.png     a sheet of its pictures
"""
_PREVIEW_COLUMNS, _PREVIEW_ROWS = 16, 8
_MADE_BY = "graftwork data --preview"
"""What a sheet says of itself, by which it is known later on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.epilog = EXAMPLES
    parser.add_argument("name", nargs="?", metavar="NAME", help="load this suite, for example emoji")
    parser.add_argument("--preview", metavar="FILE.png", help="write a sheet of pictures of an image suite, spread over all rows")
    add_json_argument(parser, "suites")


def run(arguments: argparse.Namespace) -> int:
    """List the suites, or load one and describe it."""
    from graftwork.data.suites import EMBEDDED, load_embedded

    if not arguments.name:
        if arguments.preview:
            raise ConfigError(f"--preview needs the name of a suite: graftwork data emoji --preview {arguments.preview}")
        summaries = {name: _summary(path) for name, path in sorted(EMBEDDED.items())}
        print(json.dumps(summaries, indent=2, ensure_ascii=False) if arguments.json else _listing(summaries))
        return 0
    if arguments.preview:
        from graftwork.core.folders import check_output_file

        check_output_file(arguments.preview, (), flag="--preview", replaces=_is_preview)
        if Path(arguments.preview).suffix.lower() != ".png":
            raise ConfigError(f"--preview writes a PNG; got {arguments.preview}. Name a file that ends with .png.")
    suite = load_embedded(arguments.name)
    if arguments.preview:
        _write_preview(suite, arguments.preview)
    description = _describe(suite)
    print(json.dumps(description, indent=2, ensure_ascii=False) if arguments.json else _text(description))
    return 0


def _summary(path: str) -> str:
    """Return what a suite is: the first line of its module, or of the function that builds it where a module has several."""
    import importlib

    from graftwork.data.suites import EMBEDDED

    module, _, name = path.partition(":")
    found = importlib.import_module(module)
    is_shared = sum(other.startswith(f"{module}:") for other in EMBEDDED.values()) > 1
    # The summary is the docstring: nothing to keep in step.
    text = ((getattr(found, name) if is_shared else found).__doc__ or "").strip()
    return text.splitlines()[0] if text else ""


def _listing(summaries: dict[str, str]) -> str:
    from graftwork.cli.tables import format_table, paragraph, terminal_width

    width = terminal_width()
    table = format_table(["suite", "what it is"], list(map(list, summaries.items())), width=width, stretch=1, wrap=True)
    hint = "`graftwork data NAME` shows one, `graftwork fit NAME` runs it. Own data: graftwork fit FILE|FOLDER --targets a,b"
    return f"{table}\n\n{paragraph(hint, width=width)}"


def _describe(suite: Suite) -> dict[str, Any]:
    from graftwork.core.input_kinds import join_kinds
    from graftwork.data.suite import labelled_rows

    tasks = []
    for task in suite.tasks:
        known = labelled_rows(suite.targets[task.name])
        tasks.append({"name": task.name, "kind": task.kind, "size": task.size, "labelled": int(known.sum())})
    return {
        "name": suite.name,
        "data": join_kinds(suite.kinds),
        "rows": len(suite),
        "splits": {name: len(rows) for name, rows in suite.splits.items()},
        "tasks": tasks,
        "inputs": {name: f"{array.dtype} {list(array.shape)}" for name, array in suite.inputs.items()},
        "domains": list(suite.domains),
        "notes": list(suite.notes),
        "credits": dict(suite.credits),
        "sources": dict(suite.sources),
        "fingerprint": suite.fingerprint(),
    }


def _text(description: dict[str, Any]) -> str:
    from graftwork.cli.tables import colour, format_table, paragraph, terminal_width

    width = terminal_width()
    splits = ", ".join(f"{name} {count}" for name, count in description["splits"].items())
    lines = [
        colour(f"{description['name']}: {description['rows']} rows of {description['data']} data", "bold"),
        "",
        paragraph(splits, width=width, label="splits", indent=13),
        paragraph(
            ", ".join(f"{name} {text}" for name, text in description["inputs"].items()), width=width, label="inputs", indent=13
        ),
    ]
    if description["domains"]:
        lines.append(paragraph(", ".join(description["domains"]), width=width, label="domains", indent=13))
    rows = [[task["name"], task["kind"], str(task["size"]), str(task["labelled"])] for task in description["tasks"]]
    lines += ["", format_table(["task", "kind", "size", "labelled rows"], rows, width=width, stretch=0, right=(2, 3)), ""]
    for key in ("notes", "credits", "sources"):
        items = description[key]
        texts = [f"{name}: {text}" for name, text in items.items()] if isinstance(items, dict) else items
        lines += [paragraph(text, width=width, label=key if index == 0 else "", indent=13) for index, text in enumerate(texts)]
    return "\n".join([*lines, paragraph(description["fingerprint"], width=width, label="fingerprint", indent=13)])


def _is_preview(path: Path) -> bool:
    """Return whether a file is a sheet that was written here."""
    try:
        with open(path, "rb") as file:
            head = file.read(256)
    except OSError:
        return False
    # The text comes right behind the header of 33 bytes; no picture is decoded to find it.
    return head.startswith(b"\x89PNG\r\n\x1a\n") and b"tEXtSoftware\0" + _MADE_BY.encode() in head


def _write_preview(suite: Suite, path: str) -> None:
    """Write pictures of evenly spaced rows as one PNG."""
    import numpy as np

    from graftwork.core.files import atomic_path
    from graftwork.core.input_kinds import join_kinds
    from graftwork.core.optional import require

    spec = next((spec for spec in suite.input_specs.values() if spec.kind == "image"), None)
    if spec is None:
        raise ConfigError(f"--preview is for suites with pictures; the inputs of {suite.name!r} are: {join_kinds(suite.kinds)}.")
    pictures = spec.own(suite.inputs)["image"]
    columns = min(_PREVIEW_COLUMNS, len(pictures))
    # Whole lines of the sheet only.
    number = min(columns * _PREVIEW_ROWS, len(pictures) // columns * columns)
    chosen = np.asarray(pictures[np.linspace(0, len(pictures) - 1, number).astype(int)])
    side = chosen.shape[1]
    # [lines, columns, side, side, 3] -> [lines * side, columns * side, 3]
    sheet = chosen.reshape(number // columns, columns, side, side, 3).transpose(0, 2, 1, 3, 4).reshape(-1, columns * side, 3)
    images = require("PIL.Image", extra="vision", purpose="--preview")
    said = require("PIL.PngImagePlugin", extra="vision", purpose="--preview").PngInfo()
    said.add_text("Software", _MADE_BY)
    with atomic_path(path) as temporary:
        images.fromarray(sheet).save(temporary, format="PNG", pnginfo=said)
