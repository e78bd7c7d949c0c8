"""What a text tells people to type exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import graftwork

PACKAGE = Path(graftwork.__file__).parent
OTHER_PROGRAMS = {"--logdir", "--no-deps", "--nproc-per-node", "--porcelain", "--random-seed", "--untracked-files"}
"""Flags of tensorboard, pip, torchrun, mergekit and git."""
TEMPLATES = {"--claim", "--link", "--name", "--no-", "--summary", "--title", "--year"}
"""Parts of texts, and flags of `graftwork new` whose names are put together."""
_NAMED = re.compile(r"(?<![\w(-])--[a-z][a-z0-9-]+")
"""Not ``var(--ink)``, which is a colour."""


def _texts(file: Path) -> list[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_every_flag_that_a_text_names_is_one_of_a_verb() -> None:
    flags = {text for file in (PACKAGE / "cli").glob("*.py") for text in _texts(file) if re.fullmatch(r"--[a-z][a-z0-9-]*", text)}
    assert {"--targets", "--task-kind", "--resume"} <= flags
    wrong = {
        (str(file.relative_to(PACKAGE)), named)
        for file in PACKAGE.rglob("*.py")
        if "recipes" not in file.parts
        for text in _texts(file)
        for named in _NAMED.findall(text)
        if named not in flags | OTHER_PROGRAMS | TEMPLATES and f"--{named.removeprefix('--no-')}" not in flags
    }
    assert not wrong
