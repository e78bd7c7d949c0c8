"""Kinds of input, one module each: what belongs to a kind, and which arrays and sizes it has. A module more is a kind more."""
