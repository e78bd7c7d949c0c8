"""Several pretrained backbones in one fit: the best by scores on the user's rows is where the plans start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graftwork as gw
from graftwork.core.errors import ConfigError
from graftwork.core.files import read_json
from graftwork.core.input_spec import image_input
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.workflows.fit.backbone_choice import backbone_rankings
from graftwork.workflows.runs.preparation import choose_backbone
from graftwork.workflows.runs.settings import FitSettings


def pictures(rows: int) -> Suite:
    """Return squares of two colours in two sizes."""
    draw = np.random.default_rng(0)
    colour, large = draw.integers(0, 2, rows), draw.integers(0, 2, rows)
    images = draw.integers(150, 255, size=(rows, 32, 32, 3)).astype(np.uint8)
    for row in range(rows):
        edge = 4 if large[row] else 12
        images[row, edge:-edge, edge:-edge] = (200, 30, 30) if colour[row] else (30, 30, 200)
    order = draw.permutation(rows)
    cut = rows // 5
    tasks = [TaskSpec(name=name, kind="binary", size=1, classes=("no", "yes")) for name in ("colour", "large")]
    return Suite.of_arrays(
        name="squares",
        tasks=tasks,
        inputs={"image": images},
        input_specs=image_input(32),
        targets={"colour": colour, "large": large},
        splits={"train": order[: 3 * cut], "val": order[3 * cut : 4 * cut], "test": order[4 * cut :]},
    )


PLANS = "separate,embeddings-linear"


def test_the_run_starts_from_the_backbone_that_is_ranked_first(tmp_path: Path) -> None:
    events: list[dict[str, object]] = []
    suite = pictures(90)
    run = gw.fit(
        suite,
        backbone="conv-mini@32,vit-mini",
        plans=PLANS,
        steps=4,
        seeds=1,
        folds=0,
        workers=0,
        single=True,
        keep="chosen",
        out=tmp_path / "run",
        on_event=lambda event: events.append(dict(event)),
    )
    (ranking,) = run.result["backbone_rankings"]
    names = [one["name"] for one in ranking["sources"]]
    assert sorted(names) == ["conv-mini@32", "vit-mini"]
    ranks = [one["mean_rank"] for one in ranking["sources"]]
    assert ranks == sorted(ranks)
    assert ranking["kind"] == "image"
    assert ranking["rows"] <= len(suite.splits["train"])
    assert read_json(tmp_path / "run" / "run.json")["backbone"] == names[0]
    (told,) = [event for event in events if event["event"] == "backbones"]
    assert told["sources"] == ranking["sources"]


def test_one_backbone_is_not_ranked(tmp_path: Path) -> None:
    events: list[str] = []
    gw.fit(
        pictures(60),
        backbone="vit-mini",
        plans=PLANS,
        steps=4,
        seeds=1,
        folds=0,
        workers=0,
        out=tmp_path / "run",
        dry_run=True,
        on_event=lambda event: events.append(event["event"]),
    )
    state = read_json(tmp_path / "run" / "run.json")
    assert state["backbone"] == "vit-mini"
    assert state["schedule"]["horizons"]
    assert backbone_rankings(state) == []
    assert "backbones" not in events


def test_all_means_those_that_are_installed() -> None:
    settings = FitSettings.of_user("x.csv", backbone="all")
    names, reason = choose_backbone(settings, ["image"])
    assert {"conv-mini", "vit-mini"} <= set(names.split(","))
    assert not any(":" in name for name in names.split(","))
    assert not reason


def test_a_verb_that_takes_one_backbone_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'conv-mini' and 'vit-mini' both read image data"):
        gw.compare(pictures(60), plans=PLANS, backbone="conv-mini,vit-mini", steps=4, seeds=1, workers=0, out=tmp_path / "run")
