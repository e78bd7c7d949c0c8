"""Three data sets of scenes without a common label: each has pictures of its own, its own style, and one task of its own.

For training on differently labelled data at once. Sets: the kind of the largest body, the centres of bodies (which pixels lie
next to one: detection without boxes), and the semantic class of each pixel. Whether pictures tell the task apart by their looks
is a choice (``alike``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.data.suites.scene_labels import FIRST_BODY
from graftwork.data.suites.scenes import TASKS, scenes

__all__ = ["SET_STYLES", "centre_map", "scene_sets"]

Array = NDArray[Any]

SET_STYLES = {"main_body": "plain", "centres": "checker", "semantic": "night"}
"""The task of each set, and the style of its pictures."""


def centre_map(instance: Array) -> Array:
    """Return which pixels lie within one pixel of the centre of what is seen of a body, int64 0 or 1, ``[N, H, W]``.

    Args:
        instance: What each pixel sees, int64 ``[N, H, W]``: floor, wall, bodies.

    Example:
        >>> int(centre_map(np.array([[[0, 0, 0, 0, 0], [2, 2, 2, 0, 0], [1, 1, 1, 1, 1]]])).sum())
        9
    """
    down, right = np.indices(instance.shape[1:])
    near = np.zeros(instance.shape, dtype=bool)
    for index in range(FIRST_BODY, int(instance.max(initial=0)) + 1):
        seen = instance == index
        area = seen.sum(axis=(1, 2))[:, None, None]
        rows, columns = (
            np.round((seen * place).sum(axis=(1, 2), keepdims=True) / np.maximum(area, 1)) for place in (down, right)
        )
        near |= (np.abs(down - rows) <= 1) & (np.abs(right - columns) <= 1) & (area > 0)
    return near.astype(np.int64)


def scene_sets(*, num_train: int = 1500, num_test: int = 500, alike: bool = False, size: int = 32, seed: int = 0) -> Suite:
    """Generate the three sets as one suite; a row has a label of its own set's task only.

    Args:
        num_train: Training rows a set, at least 1; there is no validation split.
        num_test: Test rows a set, likewise.
        alike: Draw all sets in the style ``plain``, so that a picture does not show which set it is from.
        size: Height and width in pixels.
        seed: Root of the draws.

    Returns:
        A suite with tasks ``main_body``, ``centres`` (dense binary) and ``semantic``; the sets are its domains.

    Raises:
        ConfigError: If a size is out of range.
    """
    if num_train < 1 or num_test < 1:
        raise ConfigError(f"`num_train` and `num_test` must be at least 1; got {num_train} and {num_test}.")
    tasks, parts = tuple(SET_STYLES), []
    for name, style in SET_STYLES.items():
        styles = ("plain",) if alike else (style,)
        parts.append(
            scenes(
                num_train=num_train,
                num_val=0,
                num_test=num_test,
                tasks=("main_body", "semantic"),
                styles=styles,
                size=size,
                # Sets of their own pictures: one seed for all would show the same scenes thrice.
                seed=Seeds(seed).integer(f"sets/{name}"),
            )
        )
    made = [{**part.targets, "centres": centre_map(part.raw["instance"])} for part in parts]
    # Where a row belongs to another set, its label is missing.
    targets = {
        task: np.concatenate([own[task] if task == mine else np.full_like(own[task], -1) for mine, own in zip(tasks, made)])
        for task in tasks
    }
    offsets = [(num_train + num_test) * index for index in range(len(parts))]
    specs = {**TASKS, "centres": TaskSpec(name="centres", kind="dense_binary", size=1)}
    return Suite.of_arrays(
        name="scene-sets",
        input_specs=parts[0].input_specs,
        tasks=tuple(specs[task] for task in tasks),
        inputs={"image": np.concatenate([part.inputs["image"] for part in parts])},
        targets=targets,
        splits={
            split: np.concatenate([part.splits[split] + offset for part, offset in zip(parts, offsets)])
            for split in ("train", "val", "test")
        },
        domain=np.repeat(np.arange(len(parts)), num_train + num_test),
        domains=tasks,
        credits=parts[0].credits,
    )
