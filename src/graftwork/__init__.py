"""graftwork: multi-task and transfer learning in one run, on one scale, with measured numbers."""

__version__ = "0.1.0"
