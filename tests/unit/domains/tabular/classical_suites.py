"""Tables that the tests of classical learners share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.input_spec import table_input
from graftwork.core.records import Plan, TaskSpec
from graftwork.data.suite import Suite
from graftwork.interfaces.learner import LearnerContext

__all__ = ["context_of", "graph_answers", "mixed_suite", "number_suite"]

PLAN = Plan(name="classical", title="t", role="independent", modalities=("table",))


def mixed_suite(rows: int = 240, seed: int = 0, cardinality: int = 40, missing: float = 0.15) -> Suite:
    """All kinds of targets over numbers and two categories, some labels missing, each target on rows of its own."""
    generator = np.random.default_rng(seed)
    numeric = generator.normal(size=(rows, 4)).astype(np.float32)
    categorical = generator.integers(0, (cardinality, 4), size=(rows, 2))
    signal = numeric[:, 0] + np.sin(2 * numeric[:, 2]) + (categorical[:, 1] % 3)
    targets: dict[str, Any] = {
        "late": (signal > 1).astype(np.int64),
        "kind": np.digitize(signal, [0, 1, 2]),
        "half": (signal > 1.5).astype(np.int64),
        "price": np.stack([1000 + 50 * signal, numeric[:, 3] - signal], axis=1).astype(np.float32),
        "tags": np.stack([signal > 0, numeric[:, 1] > 0, categorical[:, 1] == 2], axis=1).astype(np.float32),
    }
    for target in targets.values():
        target[generator.random(rows) < missing] = -1 if np.issubdtype(target.dtype, np.integer) else np.nan
    parts = np.split(generator.permutation(rows), [int(0.6 * rows), int(0.8 * rows)])
    return Suite.of_arrays(
        name="mixed",
        input_specs=table_input(4, [cardinality, 4]),
        tasks=[
            TaskSpec(name="late", kind="binary", size=1, classes=("no", "yes")),
            TaskSpec(name="kind", kind="multiclass", size=4),
            TaskSpec(name="half", kind="ordinal", size=2),
            TaskSpec(name="price", kind="regression", size=2),
            TaskSpec(name="tags", kind="multilabel", size=3),
        ],
        inputs={"numeric": numeric, "categorical": categorical},
        targets=targets,
        splits={name: np.sort(part) for name, part in zip(("train", "val", "test"), parts, strict=True)},
    )


def number_suite(x: NDArray[Any], y: NDArray[Any], *, train: float = 0.7, **fields: Any) -> Suite:
    """A table of numbers and one regression target a column of ``y``, split in order."""
    cuts = [int(train * len(x)), int((1 + train) / 2 * len(x))]
    parts = dict(zip(("train", "val", "test"), np.split(np.arange(len(x)), cuts), strict=True))
    return Suite.of_arrays(
        name="numbers",
        input_specs=table_input(x.shape[1], []),
        tasks=[TaskSpec(name=f"y{index}", kind="regression", size=1) for index in range(y.shape[1])],
        inputs={"numeric": x.astype(np.float32), "categorical": np.zeros((len(x), 0), np.int64)},
        targets={f"y{index}": y[:, [index]].astype(np.float32) for index in range(y.shape[1])},
        splits=parts,
        **fields,
    )


def context_of(suite: Suite, folder: Path, **fields: Any) -> LearnerContext:
    """A context of one step."""
    return LearnerContext(**{"suite": suite, "plan": PLAN, "seed": 3, "max_steps": 1, "cache": folder / "cache", **fields})


def graph_answers(folder: Path, suite: Suite, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """What ONNX Runtime says for rows of a suite."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    feed = {item.name: np.asarray(suite.inputs[item.name][rows]) for item in session.get_inputs()}
    return dict(zip(suite.task_names, session.run(list(suite.task_names), feed), strict=True))
