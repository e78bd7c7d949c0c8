"""At which resolution a pretrained image backbone reads pictures: as fine as the time allows.

Weights learned at 224 pixels tell more of pictures that have so many, but a picture takes several times as long as at 128; and where
there is no time for 128, coarse features are better than none (1,400 drawings of nine classes, log loss of a linear model on the
features in three folds: 0.80 at 128 pixels, 0.85 at 96, 0.91 at 64; the shares of the classes on other drawings: 2.12). Costs are
nominal and not measured in the run, so that the choice depends on the data and the settings alone.
"""

from __future__ import annotations

from graftwork.core.input_spec import InputSpecs
from graftwork.nn.backbones.catalog import split_names
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["FEATURE_SHARE", "at_working_size"]

FEATURE_SHARE = 0.15
"""Share of the time limit that one pass over all pictures may take at a finer resolution than the backbone's own."""
_COARSE_SHARE = 0.3
"""The same at its own resolution, and at coarser ones."""
_BACKBONE = "efficientnet_lite0"
_OWN = 128
_SECONDS = {224: 0.066, 160: 0.025, _OWN: 0.018, 96: 0.009, 64: 0.004}
"""Seconds a picture, all depths read, as measured on one slow core, the finest first."""


def at_working_size(backbone: str, settings: FitSettings, inputs: InputSpecs, num_rows: int) -> str:
    """Return the name of a backbone that was chosen by default with the resolution at which it is to work.

    Args:
        backbone: Name, or several separated by commas; one that the user asked for stays as it is.
        settings: Those of the run; without a time limit nothing is changed.
        inputs: The suite's inputs.
        num_rows: Its rows.

    Returns:
        ``backbone``, or the same with ``@SIZE`` behind the image backbone's name.

    Example:
        With a limit of 5 minutes and 600 pictures of 224 pixels ``efficientnet_lite0`` becomes ``efficientnet_lite0@224``; with
        1,500 of them ``efficientnet_lite0@160``; with 5,000 it stays as it is, at 128; with 10,000 it becomes
        ``efficientnet_lite0@96``.
    """
    sides = [int(spec.sizes["image_size"]) for spec in inputs.values() if spec.kind == "image"]
    if settings.backbone or settings.time_limit is None or not sides or not backbone:
        return backbone
    shares = {side: num_rows * each / settings.time_limit for side, each in _SECONDS.items()}
    size = next((side for side, share in shares.items() if _is_wanted(side, max(sides), share)), min(shares))
    if size == _OWN:
        return backbone
    return ",".join(f"{name}@{size}" if name == _BACKBONE else name for name in split_names(backbone))


def _is_wanted(side: int, largest: int, share: float) -> bool:
    """Return whether pictures of ``largest`` pixels have something to gain at a resolution that takes this share of the time."""
    return share <= FEATURE_SHARE and side <= largest if side > _OWN else share <= _COARSE_SHARE
