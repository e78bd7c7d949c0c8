"""Weights of classes that the user asks for, from the training rows of a suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from graftwork.core.errors import DataError
from graftwork.data.names import did_you_mean, short_list
from graftwork.data.suite import Suite
from graftwork.interfaces.task_kind import task_kind

__all__ = ["with_class_weights"]


def with_class_weights(suite: Suite, asked: Mapping[str, str]) -> Suite:
    """Return the suite whose tasks weigh their classes as asked.

    Args:
        suite: Gives the training rows.
        asked: ``{task: "balanced"}``.

    Raises:
        DataError: If there is no such task.
        ConfigError: If a task has no classes, or nothing of that name can be asked.
    """
    unknown = [name for name in asked if name not in suite.task_names]
    if unknown:
        raise DataError(
            f"Class weights are asked for {unknown[0]!r}, which is no task.{did_you_mean(unknown[0], suite.task_names)} "
            f"The tasks are: {short_list(suite.task_names, 40)}."
        )
    train = suite.splits["train"]
    tasks = [
        task_kind(task).class_weighted(task, asked[task.name], np.asarray(suite.targets[task.name])[train])
        if task.name in asked
        else task
        for task in suite.tasks
    ]
    return replace(suite, tasks=tuple(tasks))
