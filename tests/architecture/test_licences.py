"""What the extras install, the extra of the GPL solver apart, is free of copyleft licences."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPYLEFT = {"ecos"}


def _packages(extras: dict[str, list[str]], name: str) -> set[str]:
    found: set[str] = set()
    for requirement in extras[name]:
        own = re.fullmatch(r"graftwork\[([a-z,]+)\]", requirement)
        if own is None:
            found.add(re.split(r"[<>=!~\[; ]", requirement)[0].lower())
            continue
        for part in own[1].split(","):
            found |= _packages(extras, part)
    return found


def test_only_the_extra_nash_installs_a_copyleft_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    with_it = {name for name in extras if COPYLEFT & _packages(extras, name)}
    assert with_it == {"nash", "dev"}
