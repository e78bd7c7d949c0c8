"""``conv-mini``: a convolutional network of 1.9 million parameters with BatchNorm that learned from drawings, characters and a teacher.

Works at 64 pixels. It begins with the first five stages of its teacher, EfficientNet-Lite0, and two new blocks behind them; all of
it learns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from graftwork.core.components import Component
from graftwork.core.seeds import Seeds
from graftwork.interfaces.backbone import Backbone
from graftwork.nn.backbones.mini_conv import MiniConv
from graftwork.nursery.check import AnswerBook, Check
from graftwork.nursery.distill import whole_maps
from graftwork.nursery.image_lessons import IMAGE_LICENCE, IMAGE_SOURCES, begin_from_teacher, check_pictures, picture_lessons
from graftwork.nursery.questions import HELD_OUT
from graftwork.nursery.recipe import Lessons, Pretraining
from graftwork.training.config import LoopConfig

__all__ = ["RECIPE"]

_PLACES = 2
"""Block whose map is 8 x 8."""
_WIDTHS = (192, 40)


def _config(budget: Mapping[str, int]) -> LoopConfig:
    return LoopConfig(
        max_steps=budget["steps"], learning_rate=6e-4, weight_decay=0.05, schedule="wsd", warmup_steps=100, grad_clip=1.0
    )


def _lessons(backbone: Backbone, budget: Mapping[str, int], seeds: Seeds, cache: Path | None) -> Lessons:
    assert isinstance(backbone, MiniConv)
    begin_from_teacher(backbone, frozen=False)
    return picture_lessons(backbone, whole_maps(_PLACES), _WIDTHS, budget, seeds, cache, norm_places=True)


def _check(backbone: Backbone, fresh: Callable[[], Backbone], budget: Mapping[str, int], book: AnswerBook) -> Check:
    return check_pictures(backbone, fresh, budget, book, mean_margin=8.0, least_margin=2.0)


RECIPE = Pretraining(
    name="conv-mini",
    modality="image",
    summary="CNN with BatchNorm at 64 px, drawings and characters",
    story="The first five stages of EfficientNet-Lite0 (ImageNet weights) and two residual blocks behind them, all with BatchNorm, for "
    "pictures of any size, which it resizes to 64 pixels. All of it learned from the same pictures and targets as vit-mini.",
    component=Component("graftwork.nn.backbones.mini_conv:MiniConv"),
    sources=IMAGE_SOURCES,
    licence=IMAGE_LICENCE,
    held_out=HELD_OUT,
    budget={"pictures": 24_000, "steps": 2000, "batch": 64, "check_rows": 300, "check_epochs": 8},
    config=_config,
    lessons=_lessons,
    check=_check,
)
