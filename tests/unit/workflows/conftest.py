"""Lets the tests of this folder import its helper modules."""

from __future__ import annotations

import sys
from pathlib import Path

if str(Path(__file__).parent) not in sys.path:  # for tuned_runs
    sys.path.insert(0, str(Path(__file__).parent))
