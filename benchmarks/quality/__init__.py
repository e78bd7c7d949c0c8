"""Predictions on kept-back rows, beside what people use today: ``python -m benchmarks.quality --help``."""
