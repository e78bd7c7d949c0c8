"""``conv-mini``: a residual network of 1.9 million parameters with BatchNorm that learned from drawings, characters and a teacher.

Works at 64 pixels; two blocks each at 16, 8 and 4 pixels. About 200 pictures a second on one core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from graftwork.core.components import Component
from graftwork.core.seeds import Seeds
from graftwork.interfaces.backbone import Backbone
from graftwork.nursery.check import AnswerBook, Check
from graftwork.nursery.distill import whole_maps
from graftwork.nursery.image_lessons import IMAGE_LICENCE, IMAGE_SOURCES, check_pictures, picture_lessons
from graftwork.nursery.questions import HELD_OUT
from graftwork.nursery.recipe import Lessons, Pretraining
from graftwork.training.config import LoopConfig

__all__ = ["RECIPE"]

_PLACES = 3
"""Block whose map is 8 x 8."""
_WIDTHS = (192, 128)


def _config(budget: Mapping[str, int]) -> LoopConfig:
    return LoopConfig(
        max_steps=budget["steps"], learning_rate=2e-3, weight_decay=0.05, schedule="wsd", warmup_steps=100, grad_clip=1.0
    )


def _lessons(backbone: Backbone, budget: Mapping[str, int], seeds: Seeds, cache: Path | None) -> Lessons:
    return picture_lessons(backbone, whole_maps(_PLACES), _WIDTHS, budget, seeds, cache)


def _check(backbone: Backbone, fresh: Callable[[], Backbone], budget: Mapping[str, int], book: AnswerBook) -> Check:
    return check_pictures(backbone, fresh, budget, book, mean_margin=8.0, least_margin=2.0)


RECIPE = Pretraining(
    name="conv-mini",
    modality="image",
    summary="residual network with BatchNorm at 64 px, drawings and characters",
    story="Six residual blocks with BatchNorm, two each at 16, 8 and 4 pixels, for pictures of any size, which it resizes to 64 "
    "pixels. The same pictures and targets as vit-mini.",
    component=Component("graftwork.nn.backbones.mini_conv:MiniConv"),
    sources=IMAGE_SOURCES,
    licence=IMAGE_LICENCE,
    held_out=HELD_OUT,
    budget={"pictures": 24_000, "steps": 720, "batch": 64, "check_rows": 300, "check_epochs": 3},
    config=_config,
    lessons=_lessons,
    check=_check,
)
