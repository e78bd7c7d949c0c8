"""Flags that several verbs have: one definition each, so that the same thing has the same name, metavar, default and words
everywhere. Standard library only.

A verb says what the flag is about where verbs differ (`root seed of WHAT`); the rest of the sentence stands here alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from graftwork.core.machine import DEVICES

__all__ = [
    "SEED_OF_RUN",
    "add_device_argument",
    "add_flag",
    "add_json_argument",
    "add_modality_argument",
    "add_out_argument",
    "add_quiet_argument",
    "add_seed_argument",
    "add_set_argument",
    "add_source_argument",
    "add_workers_argument",
]

Parser = argparse.ArgumentParser | argparse._ArgumentGroup

SEED_OF_RUN = "splits, initialisation and batches"

_FLAGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "--backbone": ("pretrained backbone (see graftwork backbones){what}", {"metavar": "NAMES"}),
    "--max-memory": ("most memory {what}", {"metavar": "SIZE"}),
    "--method": ("a method of the list below{what}", {"metavar": "NAME"}),
    "--plan": ("finalist whose model is used (default: the chosen plan)", {"metavar": "NAME"}),
    "--plans": (
        "plans (see graftwork plans): a,b or all or +name (besides the defaults) or file.toml (default: {what})",
        {"metavar": "NAMES"},
    ),
    "--seeds": ("number of seeds {what}", {"metavar": "N", "type": int}),
    "--steps": ("steps of {what}", {"metavar": "N", "type": int}),
    "--threads": ("threads of {what} (default: all cores)", {"metavar": "N", "type": int}),
    "--time-limit": ("time {what}", {"metavar": "TIME"}),
}
"""Sentence and settings of flags that need no function of their own."""


def add_flag(parser: Parser, name: str, what: str = "", **settings: Any) -> None:
    """Add a flag that verbs share.

    Args:
        parser: Gets it.
        name: As users write it, one of those that this module defines.
        what: The part of the sentence in which verbs differ.
        settings: Further settings of ``add_argument``.
    """
    sentence, own = _FLAGS[name]
    parser.add_argument(name, help=sentence.format(what=what), **own, **settings)


def add_device_argument(parser: Parser, what: str, default: str | None = None) -> None:
    """Add ``--device``, which says where ``what`` ("networks are trained") happens; without a default workflows take ``auto``."""
    told = default or "auto, an accelerator if there is one"
    parser.add_argument("--device", choices=DEVICES, default=default, help=f"where {what} (default: {told})")


def add_seed_argument(parser: Parser, what: str = SEED_OF_RUN, default: int | None = None) -> None:
    """Add ``--seed``. Verbs with runs leave the default to the workflow, which compares what was given with the resumed run."""
    parser.add_argument("--seed", metavar="N", type=int, default=default, help=f"root seed of {what} (default: 0)")


def add_source_argument(parser: Parser) -> None:
    """Add the data that a verb learns from."""
    parser.add_argument(
        "source",
        metavar="DATA",
        nargs="?",
        help="table, folder of pictures, suite.yaml, or name of an embedded suite (default: emoji, see graftwork data)",
    )


def add_workers_argument(parser: Parser, default: str = "one for each core") -> None:
    """Add ``--workers``."""
    parser.add_argument(
        "--workers",
        metavar="N",
        type=int,
        help=f"processes that train at the same time; 0: in this process (default: {default})",
    )


def add_set_argument(parser: Parser, what: str = "") -> None:
    """Add ``--set``, for training settings."""
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help=f"training setting{what}, as in learning_rate=0.001; may repeat",
    )


def add_out_argument(parser: Parser, what: str, default: str) -> None:
    """Add ``--out`` for a run folder, or for what else a verb writes: ``"file: csv or parquet"``, ``"folder of the build"``."""
    metavar = "FILE" if what.startswith("file") else "FOLDER"
    parser.add_argument("--out", metavar=metavar, help=f"{what} (default: {default})")


def add_quiet_argument(parser: Parser, what: str = "the result in words and the path of the report") -> None:
    """Add ``--quiet``."""
    parser.add_argument("--quiet", action="store_true", help=f"print {what} only")


def add_json_argument(parser: Parser, what: str) -> None:
    """Add ``--json``: ``what`` is printed as JSON."""
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON, everything else on stderr")


def add_modality_argument(parser: Parser, what: str) -> None:
    """Add ``--modality`` to a verb that lists ``what``."""
    from graftwork.core.input_kinds import input_kind_names

    parser.add_argument("--modality", choices=input_kind_names(), help=f"only {what} for this kind of data")
