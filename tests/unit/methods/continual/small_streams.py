"""A tiny stream of multilabel pictures and a tiny transformer, for the methods of this room."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from graftwork.core.input_spec import image_input
from graftwork.core.records import TaskSpec
from graftwork.data.streams import ClassStream, class_groups
from graftwork.data.suite import Suite
from graftwork.nn.backbones.class_token_vit import ClassTokenViT

__all__ = ["make_backbone", "make_stream", "make_suite", "pictures"]

ROWS, CLASSES, SIZE, WIDTH, DEPTH = 24, 6, 16, 8, 3


def make_suite(kind: str = "multilabel") -> Suite:
    """Return 24 pictures of six classes, labels of chance."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, size=(ROWS, SIZE, SIZE, 3), dtype=np.uint8)
    labels: Any = (random.random((ROWS, CLASSES)) < 0.4).astype(np.float32)
    if kind == "multiclass":
        labels = random.integers(0, CLASSES, size=ROWS)
    return Suite.of_arrays(
        name="small",
        input_specs=image_input(SIZE),
        tasks=[TaskSpec(name="objects", kind=kind, size=CLASSES)],  # type: ignore[arg-type]
        inputs={"image": images},
        targets={"objects": labels},
        splits={"train": np.arange(16), "val": np.arange(16, 20), "test": np.arange(20, ROWS)},
    )


def make_stream(kind: str = "multilabel", experiences: int = 3) -> ClassStream:
    """Return the classes two at a time (or all at once)."""
    return ClassStream(make_suite(kind), class_groups(CLASSES, experiences))


def make_backbone(seed: int = 0) -> ClassTokenViT:
    """Return a transformer of three blocks and four patches; its tokens differ enough that attention is not uniform."""
    torch.manual_seed(seed)
    backbone = ClassTokenViT(SIZE, patch=8, width=WIDTH, depth=DEPTH, num_heads=2)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return backbone


def pictures(rows: int = 5, seed: int = 1) -> dict[str, torch.Tensor]:
    """Return pictures of chance."""
    generator = torch.Generator().manual_seed(seed)
    return {"image": torch.randint(0, 256, (rows, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)}
