"""What the extras install, the extra of the GPL solver apart, is free of the GPL: by name, and by what installed packages say."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
COPYLEFT = {"ecos"}
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
GPL = re.compile(r"(?<![a-z])a?gpl|(?<!lesser )general public licen[cs]e", re.IGNORECASE)


def _packages(name: str) -> set[str]:
    found: set[str] = set()
    for text in EXTRAS[name]:
        requirement = Requirement(text)
        if requirement.name != "graftwork":
            found.add(requirement.name.lower())
        for part in requirement.extras if requirement.name == "graftwork" else ():
            found |= _packages(part)
    return found


def _installed(names: set[str]) -> dict[str, metadata.Distribution]:
    """Return packages and all that they need, as far as they are installed."""
    found: dict[str, metadata.Distribution] = {}
    waiting = sorted(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for one in map(Requirement, found[name].requires or ()):
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                waiting.append(one.name.lower())
    return found


def licence_of(said: metadata.PackageMetadata) -> str:
    """Return what a package calls its licence; texts of whole licences name others, so their first line counts."""
    words = [str(said.get(key) or "").strip().partition("\n")[0] for key in ("License-Expression", "License")]
    return "; ".join([*words, *(line for line in said.get_all("Classifier") or () if line.startswith("License ::"))])


def test_only_the_extra_nash_installs_a_copyleft_package() -> None:
    assert {name for name in EXTRAS if COPYLEFT & _packages(name)} == {"nash", "dev"}


def test_nothing_that_all_installs_says_that_it_is_under_the_gpl() -> None:
    found = _installed(_packages("all"))
    assert len(found) > 20
    wrong = {name: licence_of(package.metadata) for name, package in found.items()}
    assert not {name: licence for name, licence in wrong.items() if GPL.search(licence)}


@pytest.mark.parametrize(
    ("licence", "is_gpl"),
    [
        ("GPL-3.0-or-later", True),
        ("AGPL-3.0-only", True),
        ("License :: OSI Approved :: GNU General Public License v3 (GPLv3)", True),
        ("LGPL-2.1", False),
        ("License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)", False),
        ("MPL-2.0", False),
        ("BSD-3-Clause", False),
    ],
)
def test_the_gpl_is_recognised(licence: str, is_gpl: bool) -> None:
    assert bool(GPL.search(licence)) == is_gpl


def test_the_solver_in_an_extra_of_its_own_is_recognised() -> None:
    try:
        said = metadata.metadata("ecos")
    except metadata.PackageNotFoundError:
        pytest.skip("the extra nash is not installed")
    assert GPL.search(licence_of(said))
