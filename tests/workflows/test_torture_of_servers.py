"""A small share of the attacks that `python -m tests.torture.server` makes for as long as it is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.torture.server import main

pytestmark = pytest.mark.slow


def test_some_seconds_of_attacks_find_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--minutes", "0.02", "--seed", "3", "--clients", "6", "--attackers", "12", "--keep", str(tmp_path / "faults")]
    found = main(words)
    shown = capsys.readouterr().out
    assert found == 0, shown
    assert "0 faults" in shown
    assert not (tmp_path / "faults").exists()
