"""At which resolution a pretrained image backbone reads large pictures: as fine as the time allows.

Weights learned at 224 pixels tell more of pictures that have so many, but a picture takes several times as long as at 128. Costs are
nominal and not measured in the run, so that the choice depends on the data and the settings alone.
"""

from __future__ import annotations

from graftwork.core.input_spec import InputSpecs
from graftwork.nn.backbones.catalog import split_names
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["FEATURE_SHARE", "at_working_size"]

FEATURE_SHARE = 0.15
"""Share of the time limit that one pass over all pictures may take."""
_BACKBONE = "efficientnet_lite0"
_SECONDS = {224: 0.066, 160: 0.025}
"""Seconds a picture, all depths read, as measured on one slow core (128 pixels: 0.010 to 0.018), the finest first; what is cheaper is
the backbone's own resolution."""


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
        1,500 of them ``efficientnet_lite0@160``.
    """
    sides = [int(spec.sizes["image_size"]) for spec in inputs.values() if spec.kind == "image"]
    if settings.backbone or settings.time_limit is None or not sides or not backbone:
        return backbone
    allowed = FEATURE_SHARE * settings.time_limit
    size = next((side for side, each in _SECONDS.items() if side <= max(sides) and num_rows * each <= allowed), None)
    if size is None:
        return backbone
    return ",".join(f"{name}@{size}" if name == _BACKBONE else name for name in split_names(backbone))
