"""Several of the short text tasks in one suite: each text has the label of one task, and may begin with the task's name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import text_input
from graftwork.core.seeds import Seeds
from graftwork.data.samples import only_split_rows
from graftwork.data.suite import Suite
from graftwork.data.suites.short_texts import short_texts

__all__ = ["short_text_mix"]


def short_text_mix(
    tasks: Sequence[str], *, seed: int = 0, prefix: bool = False, num_train: int | None = None, num_test: int | None = None
) -> Suite:
    """Return several tasks of :func:`~graftwork.data.suites.short_texts.short_texts` side by side.

    Args:
        tasks: Their names, at least one; they name the tasks of the suite, too.
        seed: Draws splits, and which rows are kept.
        prefix: Whether each text begins with ``"name of the task: "``.
        num_train: Training rows of each task at most; None keeps all. The suite does not hold the others.
        num_test: Likewise for validation and test rows, each.

    Returns:
        A suite without tokens (see :func:`~graftwork.data.suites.short_texts.short_texts`).

    Raises:
        ConfigError: If there is no task, or one that is unknown or there twice.
        MissingDependencyError: If a package is not installed.
    """
    if not tasks or len(set(tasks)) < len(tasks):
        raise ConfigError(f"`tasks` must name at least one text task, each once; got {', '.join(tasks) or 'none'}.")
    suites = [short_texts(task, seed=seed) for task in tasks]
    texts: list[str] = []
    splits: dict[str, list[np.ndarray]] = {"train": [], "val": [], "test": []}
    targets = {task: np.full(sum(map(len, suites)), -1, dtype=np.int64) for task in tasks}
    start = 0
    for task, suite in zip(tasks, suites, strict=True):
        own = [str(text) for text in suite.raw["text"]]
        texts += [f"{task}: {text}" for text in own] if prefix else own
        targets[task][start : start + len(own)] = suite.targets["kind"]
        random = Seeds(seed).numpy(f"short text mix/{task}")
        for name, parts in splits.items():
            limit = num_train if name == "train" else num_test
            rows = random.permutation(suite.splits[name])[: len(suite) if limit is None else limit]
            parts.append(np.sort(rows) + start)
        start += len(own)
    whole = Suite.of_arrays(
        name="text-mix",
        input_specs=text_input(2, 1),
        tasks=[replace(suite.tasks[0], name=task) for task, suite in zip(tasks, suites, strict=True)],
        inputs={"tokens": np.ones((start, 1), np.int64)},
        targets=targets,
        splits={name: np.concatenate(parts) for name, parts in splits.items()},
        raw={"text": np.array(texts, dtype=object)},
        credits=suites[0].credits,
    )
    return only_split_rows(whole)
