"""The lock of tested versions holds every dependency, and nothing of the machine that wrote it."""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "lock.txt"


def lock_script() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("lock_script", ROOT / "requirements" / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def locked() -> dict[str, str]:
    lines = [line for line in LOCK.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_every_line_is_a_name_and_a_version() -> None:
    lines = [line for line in LOCK.read_text("utf-8").splitlines() if not line.startswith("#")]
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(set(names))
    wrong = [line for line in lines if not re.fullmatch(r"[a-z0-9][a-z0-9-]*==[0-9][0-9a-z.]*", line)]
    assert not wrong, "no addresses, no files, no builds of one machine"
    assert "graftwork" not in locked()
    assert "://" not in LOCK.read_text("utf-8")


def test_every_dependency_is_locked_within_its_bounds() -> None:
    script, versions = lock_script(), locked()
    for one in script.declared():
        name = script.plain_name(one.name)
        assert name in versions, f"{one} is not in {LOCK.name}: make lock"
        assert one.specifier.contains(versions[name], prereleases=True), f"{name}=={versions[name]} is not {one.specifier}"


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is written on Linux; other systems need other packages")
def test_what_dependencies_need_is_locked_too() -> None:
    script, versions = lock_script(), locked()
    found, _missing = script.closure(script.declared())
    # A package in another version than the locked one may need others.
    same = {name: package for name, package in found.items() if package.version.partition("+")[0] == versions.get(name)}
    for name, package in same.items():
        for one in script.needs(package, set()):
            assert script.plain_name(one.name) in versions, f"{one}, which {name} needs, is not in {LOCK.name}: make lock"
