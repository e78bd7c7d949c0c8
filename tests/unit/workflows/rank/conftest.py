"""Makes the modules beside the tests importable, and the formulas that scores are compared with."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "methods" / "selection"))
