"""Names of the mixing policies, where files and settings are checked without NumPy."""

from __future__ import annotations

__all__ = ["POLICIES"]

POLICIES = ("proportional", "uniform", "balanced", "round-robin", "temperature")
"""``temperature`` comes with a number (default 2). Three share alike: ``uniform`` over many batches, ``balanced`` in every
batch, ``round-robin`` by one data set a batch, in turn."""
