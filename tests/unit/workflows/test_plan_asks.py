"""`--plans all` and `--preset best` race what can learn on a suite with what was given, and say what stays out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.workflows.plan_asks import ASKS, asks_of, given_of, left_out_line
from graftwork.workflows.portfolio import load_catalogue, portfolio, read_plan_file, unmet_asks

NETWORKS = {
    *("separate", "shared-trunk", "mmoe", "ple", "uncertainty", "dwa", "pcgrad", "cagrad", "mgda", "upgrad", "nashmtl"),
    *("aligned-mtl", "upgrad-rep", "flat-mtl", "grad-noise", "rep-mtl", "tram", "asam"),
}
TABLE = {
    *("constant", "lightgbm", "extra-trees", "extra-trees-joint", "random-forest", "linear", "linear-joint", "knn"),
    *(
        "gaussian-process",
        "chain",
        "stacked-targets",
        "random-forest-joint",
        "lasso-joint",
        "grouped",
        "dtrn",
        "ecmt",
        "multitab",
        "r-mtgb",
    ),
}
FROM_BACKBONES = {
    *("frozen-features", "embeddings-linear", "lora", "full-tuning", "merged", "merged-average", "atlas", "concrete-merging"),
    *("mhr", "poly", "mhr-tasks", "s2a", "s2a-bias", "sft-full", "sft-random", "vl-adapter"),
    *("vl-adapter-half", "vl-adapter-multiple", "vl-adapter-compacter", "vl-adapter-hyperformer"),
}
TEXT = {"constant", "grouped", "tfidf-linear", "tfidf-lightgbm", "sherl", "unipt", "lst"}
PICTURES = {
    *("constant", "grouped", "lora-late", "bn-only", "cp-lora", "lora-c", "conv-lora", "cp-dora", "dora-c", "conv-dora", "ecmt"),
    *("guidance", "m3vit", "mobiletl", "mod-moe", "osnet", "pixels-linear", "pixels-trees", "scalekd", "taskexpert"),
}
NEED_FILES = {
    *("kd-any", "mhr-z", "mhr-mu", "poly-z", "scalearn", "scalearn-uniform", "scalearn-plus", "scalearn-uniform-plus"),
    *("adapter-fusion", "sft-compose"),
}


def suite_of(kinds: dict[str, str], targets: dict[str, Any] | None = None, rows: int = 12) -> Suite:
    made = {
        name: np.arange(rows) % 2 if kind == "binary" else np.arange(rows, dtype=np.float32)[:, None]
        for name, kind in kinds.items()
    }
    tasks = [
        TaskSpec(name=name, kind=kind, size=1, classes=("no", "yes") if kind == "binary" else ()) for name, kind in kinds.items()
    ]
    order = np.arange(rows)
    return Suite.of_arrays(
        name="tiny",
        input_specs=table_input(2, []),
        tasks=tasks,
        inputs={"numeric": np.ones((rows, 2), np.float32), "categorical": np.zeros((rows, 0), np.int64)},
        targets={**made, **(targets or {})},
        splits={"train": order[: rows - 4], "val": order[rows - 4 : rows - 2], "test": order[rows - 2 :]},
    )


PLAIN = suite_of({"a": "regression", "b": "regression", "c": "binary"})


@pytest.mark.parametrize(
    ("kinds", "backbone", "wanted"),
    [
        ("table", "", NETWORKS | TABLE),
        ("text", "minilm", NETWORKS | TEXT | FROM_BACKBONES),
        ("image", "efficientnet_lite0", NETWORKS | PICTURES | FROM_BACKBONES),
    ],
)
def test_all_plans_are_those_that_can_learn(kinds: str, backbone: str, wanted: set[str]) -> None:
    given = given_of(PLAIN, backbone)
    found = {plan.name for plan in portfolio([kinds], 3, ["all"], given)}
    optional = {name for name, entry in load_catalogue().items() if entry.needs}
    assert found - optional == wanted
    out = {name for names in unmet_asks([kinds], 3, given).values() for name in names}
    assert not out & found
    assert {"dann", "distill-similar", "two-term-survival", *NEED_FILES} <= out | {
        name for name, entry in load_catalogue().items() if not entry.plan.fits([kinds])
    }
    # What is named is taken at its word, and without facts nothing is left out.
    assert "kd-any" in {plan.name for plan in portfolio([kinds], 3, ["kd-any"], given)}
    assert out <= {plan.name for plan in portfolio([kinds], 3, ["all"])}


def test_what_is_given_lets_plans_in() -> None:
    assert given_of(PLAIN, "") == frozenset()
    unlabelled = suite_of({"a": "regression"}, {"a": np.array([np.nan, *range(11)], np.float32)[:, None]})
    assert given_of(unlabelled, "") == {"unlabelled rows"}
    assert "dann" in {plan.name for plan in portfolio(["table"], 2, ["all"], given_of(unlabelled, ""))}
    first = np.arange(12) % 2
    chain = suite_of({"click": "binary", "buy": "binary"}, {"click": first, "buy": first * (np.arange(12) % 3 == 0)})
    assert given_of(chain, "") == {"event chain"}
    assert "esmm" in {plan.name for plan in portfolio(["table"], 2, ["all"], given_of(chain, ""))}
    other = suite_of({"click": "binary", "buy": "binary"}, {"click": first, "buy": 1 - first})
    assert given_of(other, "") == frozenset()
    assert {"blocks", "swin"} <= given_of(PLAIN, "timm:swin_tiny_patch4_window7_224")
    # Of a network with an unknown name nothing is held against plans.
    assert {"swin", "convolutions"} <= given_of(PLAIN, "timm:something_new")


def test_one_line_says_what_stays_out() -> None:
    line = left_out_line(unmet_asks(["table"], 3, frozenset()))
    assert line.startswith("38 plans stay out, since they need ")
    assert "a pretrained backbone (cp-lora, lora-c, conv-lora and " in line
    assert "\n" not in line
    assert left_out_line({}) == ""
    assert left_out_line({"survival task": ["x"]}) == "1 plan stays out, since it needs a survival task (x)"


def test_every_declared_need_is_known(tmp_path: Any) -> None:
    for entry in load_catalogue().values():
        assert set(entry.asks) <= set(ASKS)
        assert ("backbone" in entry.asks) == (entry.plan.source == "pretrained")
        assert entry.asks == asks_of(entry.plan, [ask for ask in entry.asks if ask != "backbone"])
    file = tmp_path / "plans.toml"
    file.write_text('[[plans]]\nname = "x"\ntitle = "t"\nrole = "joint"\nmodalities = ["table"]\nasks = ["moon"]\n')
    with pytest.raises(ConfigError, match="`asks` must be a list of backbone, settings"):
        read_plan_file(file)
