"""Scenes: ray-cast rooms with bodies on the floor, generated in seconds; every hidden factor is known.

A camera of random height and pitch looks at a floor, a back wall and one to four spheres, boxes, cylinders and cones. Pixel
labels: semantic class, depth, surface normals, edges, and the way to the centre of the body, which tells bodies apart. Colours
are drawn independently of classes, so no task is a look-up of colours. Styles (textures, lights) change only the looks and can
serve as domains. Labels of whole
pictures: the kind of the body that covers most pixels, and the number of bodies in view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.data.suites.scene_geometry import BODIES
from graftwork.data.suites.scene_labels import centre_offsets, occlusion_edges, picture_labels
from graftwork.data.suites.scene_layout import MAX_BODIES, draw_layouts
from graftwork.data.suites.scene_render import CLASSES, STYLES, render

__all__ = ["TASKS", "scene_domains", "scenes"]

Array = NDArray[Any]

TASKS: dict[str, TaskSpec] = {
    "semantic": TaskSpec(name="semantic", kind="dense_multiclass", size=len(CLASSES), classes=CLASSES),
    "depth": TaskSpec(name="depth", kind="dense_regression", size=1),
    "normals": TaskSpec(name="normals", kind="dense_normals", size=3),
    "edges": TaskSpec(name="edges", kind="dense_binary", size=1),
    "instances": TaskSpec(name="instances", kind="dense_offsets", size=2),
    "main_body": TaskSpec(name="main_body", kind="multiclass", size=len(BODIES), classes=tuple(BODIES)),
    "num_bodies": TaskSpec(
        name="num_bodies", kind="multiclass", size=MAX_BODIES, classes=tuple(map(str, range(1, MAX_BODIES + 1)))
    ),
}
"""Tasks that a suite of scenes can have, by name."""


def scenes(
    *,
    num_train: int = 3000,
    num_val: int = 500,
    num_test: int = 1000,
    tasks: Sequence[str] = ("semantic", "depth", "normals"),
    styles: Sequence[str] = ("plain",),
    max_bodies: int = MAX_BODIES,
    size: int = 32,
    seed: int = 0,
) -> Suite:
    """Generated pictures of rooms with labels for every pixel: class, depth, surface normals, edges, bodies.

    Equal arguments give equal bits.

    Args:
        num_train: Rows of the training split; likewise ``num_val`` and ``num_test``.
        num_val: See ``num_train``.
        num_test: See ``num_train``.
        tasks: Names of :data:`TASKS`.
        styles: Names of :data:`~graftwork.data.suites.scene_render.STYLES`; each scene gets one at random, its domain.
        max_bodies: Bodies per scene at most, 1 to 4.
        size: Height and width in pixels.
        seed: Root of the random streams.

    Returns:
        A suite with input ``image``. ``raw`` keeps ``instance`` (int64 ``[N, size, size]``: 0 floor, 1 wall, 2 and up bodies)
        and ``factors``, one array ``[N]`` for each hidden factor.

    Raises:
        ConfigError: If a task or style is unknown or a size is out of range; all problems at once.
    """
    problems = [f"unknown task {name!r}; the tasks are {', '.join(TASKS)}" for name in tasks if name not in TASKS]
    problems += [f"unknown style {name!r}; the styles are {', '.join(STYLES)}" for name in styles if name not in STYLES]
    problems += [f"{name} is empty; name at least one" for name, given in (("tasks", tasks), ("styles", styles)) if not given]
    problems += [f"{name} must be at least 1; got {n}" for name, n in (("num_train", num_train), ("num_test", num_test)) if n < 1]
    if not 1 <= max_bodies <= MAX_BODIES:
        problems.append(f"max_bodies must be 1 to {MAX_BODIES}; got {max_bodies}")
    if size < 8:
        problems.append(f"size must be at least 8 pixels; got {size}")
    if problems:
        raise ConfigError("The scenes cannot be generated as asked.", problems)
    seeds, count = Seeds(seed).child("scenes"), num_train + num_val + num_test
    # A stream for each purpose: another style or task leaves the layout as it is.
    layout = draw_layouts(count, seeds.numpy("layout"), max_bodies)
    domain = seeds.numpy("style").integers(0, len(styles), size=count)
    made = render(layout, np.asarray(styles)[domain], size, seeds.numpy("noise"))
    made["main_body"], made["num_bodies"] = picture_labels(made["instance"], layout.kind)
    # Only where asked for: they cost as much as the rest.
    if "edges" in tasks:
        made["edges"] = occlusion_edges(made["instance"], made["depth"])
    if "instances" in tasks:
        made["instances"] = centre_offsets(made["instance"])
    bounds = np.cumsum([num_train, num_val, num_test])
    rows = np.arange(count)
    return Suite.of_arrays(
        name="scenes",
        input_specs=image_input(size, encoder={"kind": "image", "size": size}),
        tasks=tuple(TASKS[name] for name in tasks),
        inputs={"image": made["image"]},
        targets={name: made[name] for name in tasks},
        splits={"train": rows[: bounds[0]], "val": rows[bounds[0] : bounds[1]], "test": rows[bounds[1] :]},
        domain=domain.astype(np.int64),
        domains=tuple(styles),
        raw={"preview": made["image"], "instance": made["instance"], "factors": layout.factors()},
        credits={"scenes": "generated by graftwork, free of rights"},
    )


def scene_domains(*, styles: Sequence[str] = ("plain", "checker", "night"), task: str = "semantic", **options: Any) -> Suite:
    """Generate scenes in several styles with one task per style: the same question about pictures of different domains.

    Args:
        styles: Two or more style names.
        task: Name of the task that is asked in every style.
        options: Further arguments of :func:`scenes`.

    Returns:
        A suite with tasks ``semantic_plain`` and so on; a row has labels for its own style only.

    Raises:
        ConfigError: If an argument is wrong.
    """
    suite = scenes(styles=styles, tasks=(task,), **options)
    target, domain = suite.targets[task], np.asarray(suite.domain)
    missing = -1 if np.issubdtype(target.dtype, np.integer) else np.float32(np.nan)
    targets = {}
    for index, style in enumerate(styles):
        # [N] to [N, 1, 1 ...], to broadcast over pixels.
        own = (domain == index).reshape(-1, *(1,) * (target.ndim - 1))
        targets[f"{task}_{style}"] = np.where(own, target, missing).astype(target.dtype)
    fields = {name: getattr(suite, name) for name in ("inputs", "splits", "domain", "domains", "input_specs")}
    return Suite.of_arrays(
        name="scene-domains",
        tasks=tuple(replace(TASKS[task], name=name) for name in targets),
        targets=targets,
        raw=suite.raw,
        credits=suite.credits,
        **fields,
    )
