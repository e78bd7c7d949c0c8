"""Whole folders are deleted in one place only, the one that knows what belongs to the user."""

from __future__ import annotations

from pathlib import Path


def test_folders_are_deleted_in_one_module(repository: Path) -> None:
    files = [file for part in ("src", "docs", "benchmarks") for file in sorted((repository / part).rglob("*.py"))]
    assert len(files) > 300
    found = [str(file.relative_to(repository)) for file in files if "rmtree" in file.read_text(encoding="utf-8")]
    assert found == ["src/graftwork/core/folders.py"]
