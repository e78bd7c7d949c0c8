"""Whole files of every kind, as graftwork itself writes them: what is damaged later."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "serving"))

import run_builder

from graftwork.core.optional import has

from .model_wholes import MODEL_FOLDERS

__all__ = ["CACHED", "SERVED", "TARGETS", "build"]

TARGETS = "price,late"
SERVED = ("table", "text", "picture", "controllable")
"""Kinds of the small runs whose models are written by hand."""


_SLOW = ("run", "training", *MODEL_FOLDERS)
"""Folders that take some seconds."""


def build(folder: Path, needed: Collection[str] | None = None, *, plans: Sequence[str] = ("separate", "shared-trunk")) -> None:
    """Write a whole file of every kind, equal at every call but for dates.

    Args:
        folder: Empty; gets a folder for each value of :attr:`.Subject.folder`.
        needed: Names of the folders that are asked for; those that take seconds are left out without it. None asks for all.
        plans: Those of the run.
    """
    rng = np.random.default_rng(5)
    values = rng.normal(size=(96, 3)).round(3)
    frame = pd.DataFrame(values, columns=list("abc"))
    frame["place"] = np.array(["north", "south", "west"])[rng.integers(0, 3, 96)]
    frame["day"] = pd.date_range("2024-01-01", periods=96).strftime("%Y-%m-%d")
    frame["price"] = (10 + 3 * values[:, 0] + rng.normal(size=96)).round(3)
    frame["late"] = np.where(values[:, 1] > 0, "yes", "no")
    _write_tables(folder / "tables", frame)
    _write_settings(folder / "settings", frame)
    _write_models(folder / "models", rng)
    _write_cache(folder / "cache")
    _write_pictures(folder / "pictures", rng)
    for kind in SERVED:
        getattr(run_builder, f"write_{kind}_run")(folder / "served" / kind)
    _write_rows(folder / "served", rng)
    asked = {*_SLOW} if needed is None else {*_SLOW} & {*needed}
    for name, (write, packages) in MODEL_FOLDERS.items():
        if name in asked and all(map(has, packages)):
            write(folder / name)
    if asked & {"run", "training"}:
        _write_run(folder / "run", folder / "tables" / "table.csv", plans)
        _write_training(folder / "training", folder / "run")


def _write_tables(folder: Path, frame: pd.DataFrame) -> None:
    folder.mkdir()
    frame.to_csv(folder / "table.csv", index=False)
    frame.to_csv(folder / "table.tsv", index=False, sep="\t")
    frame.to_parquet(folder / "table.parquet")
    nested = frame.assign(more=[{"x": float(index), "tags": ["u", "v"][: index % 3]} for index in range(len(frame))])
    nested.to_json(folder / "table.jsonl", orient="records", lines=True)
    nested.head(30).to_json(folder / "table.json", orient="records")


_SUITE = """name: shop
modality: table
missing: ['?', '-999']
seed: 3
datasets:
  - name: first
    source: table.csv
    targets:
      price: regression
      late:
        kind: binary
        metric: accuracy
    features: [a, b, place]
    categories: [place]
    domain: north
    credit: nobody
  - name: second
    source: table.csv
    targets: [price]
    group: place
    ignore: [day]
"""
_PLANS = """[[plans]]
name = "mine"
title = "My plan"
role = "joint"
modalities = ["table"]
default = ["table"]
sharing = {path = "graftwork.methods.sharing.shared_trunk:SharedTrunk", settings = {}}

[plans.training]
learning_rate = 0.003
batch_size = 32

[[plans.variants]]
training = {learning_rate = 0.01}
"""


def _write_settings(folder: Path, frame: pd.DataFrame) -> None:
    folder.mkdir()
    frame.to_csv(folder / "table.csv", index=False)
    (folder / "suite.yaml").write_text(_SUITE, encoding="utf-8")
    (folder / "plans.toml").write_text(_PLANS, encoding="utf-8")
    from graftwork.core.cards import PACKAGE_FOLDER

    for slug in ("rep-mtl", "ties"):
        shutil.copy(PACKAGE_FOLDER / "cards" / f"{slug}.toml", folder / f"{slug}.toml")


def _write_models(folder: Path, rng: np.random.Generator) -> None:
    from graftwork.methods.tuning.lora import LoRA  # noqa: F401  (imports torch now, not while something is watched)

    folder.mkdir()
    for name in ("base", "a", "b"):
        tensors: dict[str, Any] = {
            "fc.weight": rng.normal(size=(8, 6)).astype(np.float32),
            "fc.bias": rng.normal(size=8).astype(np.float16),
        }
        tensors |= {"bn.num_batches_tracked": np.array(3), "mask": np.array([True, False])}
        save_file(tensors, folder / f"{name}.safetensors", metadata={"format": "pt", "note": name})
    shards = folder / "shards"
    shards.mkdir()
    where = {"fc.weight": "model-1.safetensors", "fc.bias": "model-2.safetensors"}
    for key, file in where.items():
        save_file({key: rng.normal(size=(4, 3)).astype(np.float32)}, shards / file)
    (shards / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 96}, "weight_map": where}))
    adapter = folder / "adapter"
    adapter.mkdir()
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "r": 2,
        "lora_alpha": 4,
        "lora_dropout": 0.0,
    }
    config |= {"use_rslora": False, "bias": "none", "fan_in_fan_out": False, "init_lora_weights": True, "target_modules": ["fc"]}
    (adapter / "adapter_config.json").write_text(
        json.dumps(config | {"rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None})
    )
    pair = {"A": rng.normal(size=(2, 6)).astype(np.float32), "B": rng.normal(size=(8, 2)).astype(np.float32)}
    save_file(
        {f"base_model.model.fc.lora_{part}.weight": value for part, value in pair.items()}, adapter / "adapter_model.safetensors"
    )


CACHED = {"features": np.arange(24.0, dtype=np.float32).reshape(6, 4), "rows": np.arange(6)}


def _write_cache(folder: Path) -> None:
    from graftwork.data.array_cache import cached_arrays

    cached_arrays(folder, "entry", lambda: CACHED)


def _write_run(folder: Path, table: Path, plans: Sequence[str]) -> None:
    from graftwork.workflows.fit import fit

    fields: dict[str, Any] = {
        "steps": 4,
        "seeds": 1,
        "folds": 0,
        "workers": 0,
        "backbone": "none",
        "single": True,
        "keep": "chosen",
    }
    fit(table, targets=TARGETS, plans=list(plans), out=folder, progress=False, **fields)


def _write_training(folder: Path, run: Path) -> None:
    """Write a run with one job that has been stopped at step 3 of 6, and what it answers when it goes on."""
    from graftwork.core.files import write_json

    from .readers import train_on

    shutil.copytree(run / "suite", folder / "suite")
    write_json(folder / "plan.json", json.loads((run / "run.json").read_bytes())["plans"][0])
    answer = train_on(folder, stop_at=3)
    assert answer["status"] == "stopped", answer
    whole = folder.with_name("whole-training")
    shutil.copytree(folder, whole)
    write_json(folder / "answer.json", train_on(whole)["validation"])
    shutil.rmtree(whole)


def _write_pictures(folder: Path, rng: np.random.Generator) -> None:
    from PIL import Image

    (folder / "pictures").mkdir(parents=True)
    rows = []
    for index, kind in enumerate(["PNG"] * 12 + ["JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"] * 2):
        name = f"{index}.{kind.lower()}"
        Image.fromarray(rng.integers(0, 255, (12, 10, 3)).astype(np.uint8)).save(folder / "pictures" / name, kind)
        rows.append({"file": name, "light": round(float(rng.normal()), 3), "late": "yes" if index % 2 else "no"})
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)


def _write_rows(folder: Path, rng: np.random.Generator) -> None:
    """Write what the small runs predict."""
    from PIL import Image

    (folder / "table.csv").write_text("age,city,since,id\n41.5,Oslo,2021-03-01,1\n,,,\n", encoding="utf-8")
    (folder / "text.csv").write_text("body\ngood day to you\n\n", encoding="utf-8")
    Image.fromarray(rng.integers(0, 255, (9, 9, 3)).astype(np.uint8)).save(folder / "picture.png")
