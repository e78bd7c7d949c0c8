"""Writes ``lock.txt``: the versions of everything that an extra of graftwork installs, as they are in this environment.

Run it by ``make lock``, after ``make install`` and a whole ``make test``. Packages of extras that are not installed here are resolved by
``pip install --dry-run``, beside what is.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

__all__ = ["closure", "declared", "needs", "plain_name"]

FOLDER = Path(__file__).parent
HEADER = """\
# The versions that graftwork was tested with: CPython {python} on {system}, all extras. Written by `make lock`.
#
#     pip install --constraint requirements/lock.txt 'graftwork[all]'
#
# Only what is asked for is installed, so that lines for packages of other systems or extras change nothing.
"""


def plain_name(name: str) -> str:
    """Return a package's name as indexes compare it.

    Example:
        >>> plain_name("ruamel.Yaml_x")
        'ruamel-yaml-x'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> list[Requirement]:
    """Return what ``pyproject.toml`` asks for, with all extras, the own ones left out."""
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text("utf-8"))["project"]
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    return [found for found in map(Requirement, texts) if found.name != project["name"]]


def closure(wanted: list[Requirement]) -> tuple[dict[str, metadata.Distribution], list[Requirement]]:
    """Return what these requirements stand for among the installed packages, by name, and those that are not installed."""
    found: dict[str, metadata.Distribution] = {}
    missing: list[Requirement] = []
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = list(wanted)
    while waiting:
        one = waiting.pop()
        key = (plain_name(one.name), frozenset(one.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            found[key[0]] = metadata.distribution(one.name)
        except metadata.PackageNotFoundError:
            missing.append(one)
            continue
        waiting += needs(found[key[0]], one.extras)
    return found, missing


def needs(package: metadata.Distribution, extras: set[str]) -> Iterator[Requirement]:
    """Yield what an installed package with some extras needs here."""
    for one in map(Requirement, package.requires or ()):
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield one


def _resolved(missing: list[Requirement]) -> dict[str, str]:
    """Return the versions that pip would install for requirements, and for what they need, beside what is installed."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-", *map(str, missing)]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {plain_name(item["metadata"]["name"]): item["metadata"]["version"] for item in report["install"]}


def main() -> None:
    """Write the lock."""
    found, missing = closure(declared())
    # A local part (+cpu) names one build of a version, which other systems do not have.
    versions = {name: package.version.partition("+")[0] for name, package in found.items()}
    if missing:
        versions |= {name: version.partition("+")[0] for name, version in _resolved(missing).items()}
    python, system = f"{sys.version_info.major}.{sys.version_info.minor}", sys.platform.capitalize()
    lines = [f"{name}=={versions[name]}" for name in sorted(versions)]
    (FOLDER / "lock.txt").write_text(HEADER.format(python=python, system=system) + "\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
