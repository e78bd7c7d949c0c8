"""``vit-mini``: a vision transformer of 4.5 million parameters that learned from drawings, characters and a teacher.

Works at 64 pixels in 8 x 8 patches: ten blocks, 192 wide, three heads. Patches are read by the first three stages of
EfficientNet-Lite0, which stay as they are: a transformer that begins with nothing had not learned to tell classes after 20,000
pictures. In the first nine tenths of the steps it reads 24 random patches of 64, then all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from graftwork.core.components import Component
from graftwork.core.seeds import Seeds
from graftwork.interfaces.backbone import Backbone
from graftwork.nn.backbones.mini_vit import MiniViT
from graftwork.nn.backbones.patch_reader import PatchReader
from graftwork.nursery.check import AnswerBook, Check
from graftwork.nursery.distill import masked_tokens
from graftwork.nursery.image_lessons import IMAGE_LICENCE, IMAGE_SOURCES, begin_from_teacher, check_pictures, picture_lessons
from graftwork.nursery.questions import HELD_OUT
from graftwork.nursery.recipe import Lessons, Pretraining
from graftwork.training.config import LoopConfig

__all__ = ["RECIPE"]

_WIDTH = 192
_KEPT = 24
"""Patches of 64 that are read at first."""


def _config(budget: Mapping[str, int]) -> LoopConfig:
    return LoopConfig(
        max_steps=budget["steps"], learning_rate=6e-4, weight_decay=0.05, schedule="wsd", warmup_steps=20, grad_clip=1.0
    )


def _lessons(backbone: Backbone, budget: Mapping[str, int], seeds: Seeds, cache: Path | None) -> Lessons:
    reader = masked_tokens(_KEPT, budget["steps"] - budget["steps"] // 10)
    assert isinstance(backbone, MiniViT)
    assert isinstance(backbone.patches, PatchReader)
    begin_from_teacher(backbone.patches, frozen=True)
    return picture_lessons(backbone, reader, (_WIDTH, _WIDTH), budget, seeds, cache)


def _check(backbone: Backbone, fresh: Callable[[], Backbone], budget: Mapping[str, int], book: AnswerBook) -> Check:
    return check_pictures(backbone, fresh, budget, book, mean_margin=8.0, least_margin=2.0)


RECIPE = Pretraining(
    name="vit-mini",
    modality="image",
    summary="ViT on 64 px in 8 x 8 patches, drawings and characters",
    story="A vision transformer of ten blocks, 192 wide, for pictures of any size, which it resizes to 64 pixels and reads as 8 x 8 "
    "patches, through the first three stages of EfficientNet-Lite0 (ImageNet weights). It learned to give the features of EfficientNet-Lite0, of the whole picture and place by place, and to name the "
    "drawing or character, on generated pictures of drawings, characters, collages, shapes and photographs. In the first nine "
    "tenths of its steps it read 24 random patches of each picture.",
    component=Component("graftwork.nn.backbones.mini_vit:MiniViT"),
    sources=IMAGE_SOURCES,
    licence=IMAGE_LICENCE,
    held_out=HELD_OUT,
    budget={"pictures": 24_000, "steps": 2400, "batch": 64, "check_rows": 300, "check_epochs": 8},
    config=_config,
    lessons=_lessons,
    check=_check,
)
