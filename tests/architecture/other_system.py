"""Run by a test: imports the whole package as on a system that is not POSIX, and uses what differs there."""

from __future__ import annotations

import builtins
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

POSIX_ONLY = ("fcntl", "resource", "termios", "tty", "pwd", "grp", "pty")
PACKAGE = Path(__file__).parents[2] / "src" / "graftwork"


def hide_posix() -> None:
    """Let nothing of graftwork import POSIX modules; other packages have their own guards, or other builds."""
    real = builtins.__import__

    def guarded(name: str, space: Any = None, *others: Any) -> Any:
        if name.partition(".")[0] in POSIX_ONLY and (space or {}).get("__name__", "").startswith("graftwork"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, space, *others)

    builtins.__import__ = guarded


def module_names() -> list[str]:
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[-1] != "__main__":
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def use(folder: Path) -> None:
    """Use locks, temporary files, run folders and limits without any of what is missing."""
    from graftwork.core.files import remove_leftovers, write_json, write_text
    from graftwork.core.folders import FolderKind, claim_folder
    from graftwork.core.locks import exclusive
    from graftwork.core.machine import available_cores
    from graftwork.core.scratch import remove_scratch, scratch_folder, sweep
    from graftwork.serving.connections import connection_limit
    from graftwork.workflows.runs.run_folder import RUN_KIND

    assert isinstance(RUN_KIND, FolderKind)
    for name in ("sched_getaffinity", "getuid", "O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK", "fork", "killpg"):
        if hasattr(os, name):
            delattr(os, name)
    del signal.SIGKILL
    assert available_cores() >= 1
    write_text(folder / "text", "one")
    write_json(folder / "value.json", {"one": 1})
    assert (folder / "text").read_text(encoding="utf-8") == "one"
    assert remove_leftovers(folder) == []
    sweep(folder)
    with exclusive(folder / "lock"), scratch_folder("test") as scratch:
        assert scratch.is_dir()
    assert not scratch.exists()
    assert remove_scratch() == []
    claim = claim_folder(folder / "run", RUN_KIND)
    claim.release()
    assert connection_limit(64, 32) == 64


if __name__ == "__main__":
    hide_posix()
    missing = []
    for one in module_names():
        try:
            importlib.import_module(one)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] in (*POSIX_ONLY, "graftwork"):
                raise
            missing.append(one)  # an extra that is not installed
    use(Path(sys.argv[1]))
    print(f"{len(module_names())} modules, {len(missing)} without their extra")
