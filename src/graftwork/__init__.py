"""graftwork: multi-task and transfer learning in one run, on one scale, with measured numbers.

>>> import graftwork as gw
>>> len(gw.load_cards())
142

Public names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graftwork.core.version import __version__

if TYPE_CHECKING:
    from graftwork.claims.reproduction import reproduce
    from graftwork.core.card_search import find_cards
    from graftwork.core.cards import Card, load_cards
    from graftwork.core.components import Component, allow_components
    from graftwork.core.errors import (
        AccessError,
        BudgetError,
        CheckpointError,
        ComponentError,
        ConfigError,
        DataError,
        FileFormatError,
        GraftworkError,
        MissingDependencyError,
        StorageError,
        TrainingDivergedError,
    )
    from graftwork.core.records import Plan, TaskSpec
    from graftwork.data.reading.ingest import open_suite
    from graftwork.data.suite import Suite
    from graftwork.nn.delta_set import DeltaSet
    from graftwork.nn.module_delta import load_delta
    from graftwork.serving.predict import Predictor
    from graftwork.serving.serve import serve
    from graftwork.training.tuned_model import load_tuned
    from graftwork.workflows.compare import CompareRun, compare
    from graftwork.workflows.distill import DistillRun, distill
    from graftwork.workflows.estimator import MultiTaskEstimator
    from graftwork.workflows.fit import FitRun, fit
    from graftwork.workflows.load_run import load_run
    from graftwork.workflows.merge import merge
    from graftwork.workflows.rank import RankRun, rank
    from graftwork.workflows.tune import TuneRun, tune

_HOMES = {
    "AccessError": "core.errors",
    "BudgetError": "core.errors",
    "CheckpointError": "core.errors",
    "ComponentError": "core.errors",
    "ConfigError": "core.errors",
    "DataError": "core.errors",
    "FileFormatError": "core.errors",
    "GraftworkError": "core.errors",
    "MissingDependencyError": "core.errors",
    "StorageError": "core.errors",
    "TrainingDivergedError": "core.errors",
    "Card": "core.cards",
    "CompareRun": "workflows.compare",
    "Component": "core.components",
    "DistillRun": "workflows.distill",
    "FitRun": "workflows.fit",
    "DeltaSet": "nn.delta_set",
    "MultiTaskEstimator": "workflows.estimator",
    "Plan": "core.records",
    "Predictor": "serving.predict",
    "RankRun": "workflows.rank",
    "Suite": "data.suite",
    "TaskSpec": "core.records",
    "TuneRun": "workflows.tune",
    "allow_components": "core.components",
    "compare": "workflows.compare",
    "distill": "workflows.distill",
    "find_cards": "core.card_search",
    "fit": "workflows.fit",
    "load_cards": "core.cards",
    "load_delta": "nn.module_delta",
    "load_run": "workflows.load_run",
    "load_tuned": "training.tuned_model",
    "merge": "workflows.merge",
    "open_suite": "data.reading.ingest",
    "rank": "workflows.rank",
    "reproduce": "claims.reproduction",
    "serve": "serving.serve",
    "tune": "workflows.tune",
}

__all__ = [
    "AccessError",
    "BudgetError",
    "Card",
    "CheckpointError",
    "CompareRun",
    "Component",
    "ComponentError",
    "ConfigError",
    "DataError",
    "DeltaSet",
    "DistillRun",
    "FileFormatError",
    "FitRun",
    "GraftworkError",
    "MissingDependencyError",
    "MultiTaskEstimator",
    "Plan",
    "Predictor",
    "RankRun",
    "StorageError",
    "Suite",
    "TaskSpec",
    "TrainingDivergedError",
    "TuneRun",
    "__version__",
    "allow_components",
    "compare",
    "distill",
    "find_cards",
    "fit",
    "load_cards",
    "load_delta",
    "load_run",
    "load_tuned",
    "merge",
    "open_suite",
    "rank",
    "reproduce",
    "serve",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"graftwork.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'graftwork' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
