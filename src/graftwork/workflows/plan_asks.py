"""What plans ask for beside rows and labels, and what a suite and the settings of a run give of it.

A plan declares it in its file: ``asks = ["unlabelled rows"]``. Plans from a pretrained source ask for ``backbone`` without saying so.
A plan that is named is taken at its word; where a run asks for all plans (``--plans all``, ``--preset best``), those that ask for
what is not given stay out: they could only fail. So do plans that are in by default but ask for something, such as groups.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from graftwork.core.plan import Plan

if TYPE_CHECKING:
    from graftwork.data.suite import Suite

__all__ = ["ASKS", "asks_of", "given_of", "left_out_line"]

ASKS: Mapping[str, str] = {
    "backbone": "a pretrained backbone",
    "settings": "settings of one's own, such as files of earlier trainings",
    "groups": "groups of rows (--group)",
    "times": "a column of times (--time)",
    "unlabelled rows": "training rows without any label",
    "survival task": "a survival task",
    "event chain": "two binary tasks of which the second never happens without the first",
    "convolutions": "a backbone of convolutions",
    "batch norm": "a backbone with BatchNorm",
    "inverted residuals": "a backbone of inverted residual blocks",
    "blocks": "a backbone of blocks, such as a transformer",
    "swin": "a Swin transformer as backbone",
}
"""Everything that a plan may ask for, in words."""

_PARTS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("efficientnet", "mobilenet"), ("convolutions", "batch norm", "inverted residuals")),
    (("convnext",), ("convolutions",)),
    (("conv", "resnet", "resnext", "regnet", "densenet"), ("convolutions", "batch norm")),
    (("swin",), ("blocks", "swin")),
    (("vit", "deit", "minilm", "bert"), ("blocks",)),
)
"""Parts of a backbone by words in its name; the first that is found counts."""
_SHOWN = 3


def asks_of(plan: Plan, declared: Collection[str]) -> tuple[str, ...]:
    """Return all that a plan asks for: what its file declares, and a backbone if its source is a pretrained one."""
    return (*(["backbone"] if plan.source == "pretrained" else []), *declared)


def given_of(suite: Suite, backbone: str) -> frozenset[str]:
    """Return what there is of :data:`ASKS`; nobody can tell of settings, so they are never given.

    Args:
        suite: The data.
        backbone: Name of the pretrained backbone, or several, separated by commas; empty if there is none.
    """
    # Here, because cards are checked without numbers.
    import numpy as np

    from graftwork.data.splits import TIMES
    from graftwork.data.suite import labelled_rows

    given = {"backbone"} if backbone else set()
    for name in filter(None, backbone.split(",")):
        given |= _parts_of(name.strip().lower())
    train = suite.splits["train"]
    known = np.zeros(len(train), dtype=np.bool_)
    for name in suite.task_names:
        known |= labelled_rows(suite.targets[name])[train]
    if not known.all():
        given.add("unlabelled rows")
    if suite.groups is not None:
        given.add("groups")
    if TIMES in suite.raw:
        given.add("times")
    if any(task.kind == "survival" for task in suite.tasks):
        given.add("survival task")
    binary = [np.asarray(suite.targets[task.name])[train].reshape(-1) for task in suite.tasks if task.kind == "binary"]
    # As the plan takes them: the first two, in the order of the suite.
    if len(binary) == len(suite.tasks) == 2 and not np.any((binary[0] == 0) & (binary[1] == 1)):
        given.add("event chain")
    return frozenset(given)


def _parts_of(backbone: str) -> set[str]:
    for words, parts in _PARTS:
        if any(word in backbone for word in words):
            return set(parts)
    # Of an unknown network the first steps tell.
    return {"convolutions", "batch norm", "inverted residuals", "blocks", "swin"}


def left_out_line(unmet: Mapping[str, Sequence[str]]) -> str:
    """Return in one line which plans stay out and what they ask for; empty if none does.

    Args:
        unmet: Names of plans by what they ask for, of :data:`ASKS`.

    Example:
        >>> left_out_line({"backbone": ["lora", "poly"], "survival task": ["hazards"]})
        '3 plans stay out, since they need a pretrained backbone (lora, poly); a survival task (hazards)'
    """
    count = len({name for names in unmet.values() for name in names})
    if not count:
        return ""
    parts = []
    for ask, names in unmet.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        parts.append(f"{ASKS[ask]} ({', '.join(names[:_SHOWN])}{more})")
    who = "1 plan stays out, since it needs" if count == 1 else f"{count} plans stay out, since they need"
    return f"{who} {'; '.join(parts)}"
