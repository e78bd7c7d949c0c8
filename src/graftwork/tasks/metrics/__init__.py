"""Metrics that task kinds list, in NumPy. Each is prepared once and evaluated under many row weightings."""
