"""The resolution at which a pretrained image backbone reads pictures."""

from __future__ import annotations

import pytest

from graftwork.core.input_spec import image_input
from graftwork.workflows.runs.settings import FitSettings
from graftwork.workflows.runs.working_size import at_working_size


@pytest.mark.parametrize(
    ("rows", "side", "limit", "name"),
    [
        (600, 224, "5m", "efficientnet_lite0@224"),
        (1500, 224, "5m", "efficientnet_lite0@160"),
        (800, 160, "5m", "efficientnet_lite0@160"),
        (800, 224, "60s", "efficientnet_lite0"),  # 20 s at 160 pixels are more than 9
        (800, 128, "1h", "efficientnet_lite0"),
        (800, 72, "60s", "efficientnet_lite0"),
        (1_900, 72, "60s", "efficientnet_lite0@96"),
        (4_000, 224, "60s", "efficientnet_lite0@64"),
        (100_000, 224, "60s", "efficientnet_lite0@64"),
        (100_000, 224, "1h", "efficientnet_lite0@96"),
        (8_000, 224, "1h", "efficientnet_lite0@224"),
    ],
)
def test_the_resolution_follows_the_pictures_and_the_time(rows: int, side: int, limit: str, name: str) -> None:
    settings = FitSettings.of_user("x.csv", time_limit=limit)
    assert at_working_size("efficientnet_lite0", settings, image_input(side), rows) == name


def test_what_the_user_names_stays() -> None:
    settings = FitSettings.of_user("x.csv", time_limit="1h", backbone="efficientnet_lite0")
    assert at_working_size("efficientnet_lite0", settings, image_input(224), 100) == "efficientnet_lite0"


def test_other_backbones_stay() -> None:
    settings = FitSettings.of_user("x.csv", time_limit="1h")
    assert at_working_size("minilm,efficientnet_lite0", settings, image_input(224), 100) == "minilm,efficientnet_lite0@224"
    assert at_working_size("", settings, image_input(224), 100) == ""


def test_fixed_steps_change_nothing() -> None:
    settings = FitSettings.of_user("x.csv", steps=10)
    assert at_working_size("efficientnet_lite0", settings, image_input(224), 100) == "efficientnet_lite0"
