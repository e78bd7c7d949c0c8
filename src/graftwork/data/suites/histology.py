"""Generated tissue in two stains: what haematoxylin and eosin (H&E) show of it, and which nuclei an antibody stains brown.

Nuclei are of two types, and the marker stains one of them, a minority. In H&E the type is seen only in the grain of the chromatin
(coarse or fine, of equal mean and equal spread within every nucleus) and a little in the size. Both pictures are rendered by the
law of Beer and Lambert; what else varies in the second one (uptake of the dye, counterstain, background) is not to be seen in
the first. The mask of stained nuclei is as coarse as an annotation: dilated, some objects missing, others marked by mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.data.suites.histology_layout import draw_nuclei
from graftwork.data.suites.histology_render import render_tissue

__all__ = ["TASKS", "histology"]

Array = NDArray[Any]

TASKS: dict[str, TaskSpec] = {
    "stain": TaskSpec(name="stain", kind="dense_regression", size=3),
    "mask": TaskSpec(name="mask", kind="dense_binary", size=1),
}
"""Tasks that the suite can have: the picture in the second stain (red, green and blue in [0, 1]), the mask of stained nuclei."""


def histology(
    *,
    num_train: int = 1000,
    num_val: int = 100,
    num_test: int = 400,
    tasks: Sequence[str] = ("stain", "mask"),
    size: int = 24,
    max_nuclei: int = 8,
    positive: float = 0.35,
    contrast: float = 0.3,
    growth: float = 1.06,
    pixel_noise: float = 0.02,
    object_noise: float = 0.15,
    seed: int = 0,
) -> Suite:
    """Generated pictures of tissue in two stains, with labels for every pixel.

    Equal arguments give equal bits, and no split depends on the sizes of the others.

    Args:
        num_train: Rows of the training split; likewise ``num_val`` and ``num_test``.
        num_val: See ``num_train``.
        num_test: See ``num_train``.
        tasks: Names of :data:`TASKS`.
        size: Height and width in pixels, at least 16.
        max_nuclei: Nuclei a picture at most, at least 1; there are fewer where they find no room.
        positive: Probability that a nucleus is of the type that the marker stains, in (0, 0.5].
        contrast: How strong the grain is relative to the mean of the chromatin; the larger, the easier are types told apart.
        growth: Radius of positive nuclei relative to the others, above 0.
        pixel_noise: Deviation of the noise of both pictures, as a share of full light.
        object_noise: Probability that the mask misses a positive nucleus, in [0, 1); as many others are marked by mistake.
        seed: Root of the random streams.

    Returns:
        A suite with input ``image``. ``raw["nuclei"]`` keeps the hidden factors of the nuclei, ``[N, max_nuclei]`` each (see
        :class:`~graftwork.data.suites.histology_layout.Nuclei`).

    Raises:
        ConfigError: If a task is unknown or an argument is out of range; all problems at once.
    """
    problems = [f"unknown task {name!r}; the tasks are {', '.join(TASKS)}" for name in tasks if name not in TASKS]
    problems += [] if tasks else ["tasks is empty; name at least one"]
    for name, value, least in (("num_train", num_train, 1), ("num_val", num_val, 0), ("num_test", num_test, 1)):
        problems += [f"{name} must be at least {least}; got {value}"] if value < least else []
    for name, value, least in (("size", size, 16), ("max_nuclei", max_nuclei, 1)):
        problems += [f"{name} must be at least {least}; got {value}"] if value < least else []
    problems += [] if 0 < positive <= 0.5 else [f"positive must be in (0, 0.5]; got {positive!r}"]
    problems += [] if 0 <= object_noise < 1 else [f"object_noise must be in [0, 1); got {object_noise!r}"]
    problems += [] if growth > 0 else [f"growth must be above 0; got {growth!r}"]
    problems += (
        []
        if contrast >= 0 and pixel_noise >= 0
        else [f"contrast and pixel_noise must be at least 0; got {contrast!r} and {pixel_noise!r}"]
    )
    if problems:
        raise ConfigError("The tissue cannot be generated as asked.", problems)
    seeds, sizes = Seeds(seed).child("histology"), {"train": num_train, "val": num_val, "test": num_test}
    parts: list[dict[str, Array]] = []
    # A stream for each split, so that a larger training split draws the same test rows.
    for split, count in sizes.items():
        own = seeds.child(split)
        nuclei = draw_nuclei(
            count, own.numpy("nuclei"), size=size, most=max_nuclei, positive=positive, growth=growth, object_noise=object_noise
        )
        pictures = render_tissue(nuclei, own.child("tissue"), size=size, contrast=contrast, pixel_noise=pixel_noise)
        parts.append({**pictures, **nuclei.factors()})
    made = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    bounds = np.cumsum([0, *sizes.values()])
    return Suite.of_arrays(
        name="histology",
        input_specs=image_input(size, encoder={"kind": "image", "size": size}),
        tasks=tuple(TASKS[name] for name in tasks),
        inputs={"image": made["image"]},
        targets={name: made[name] for name in tasks},
        splits={name: np.arange(bounds[index], bounds[index + 1]) for index, name in enumerate(sizes)},
        # The factors are no array of their own: a view that hides rows would have to hide theirs, too.
        raw={"preview": made["image"], "nuclei": {name: made[name] for name in made if name not in ("image", "stain", "mask")}},
        credits={"histology": "generated by graftwork, free of rights"},
    )
