"""Makes the small models of the contract tests importable."""

from __future__ import annotations

import sys
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(_TESTS / "contracts"), str(_TESTS / "unit" / "training")]
