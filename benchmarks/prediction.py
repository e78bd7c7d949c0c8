"""Prediction through graftwork beside a bare ONNX Runtime session: same file, same batches, same number of threads.

Contenders take turns in one process, one thread, CPU seconds. ``arrays`` starts from encoded inputs, ``one row`` is the cost of
a single call, ``source`` starts from what a user has (a table, picture files) and gives the bare session the same encoder. ``one
task`` asks for one of the tasks; the bare session fetches that output alone, and still computes all. Aim: at most 1.1 of the
bare session.

Run: ``python -m benchmarks.prediction [--quick] [--json FILE]``
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks._timing import format_table, take_turns
from graftwork.core.optional import require
from graftwork.core.records import TaskSpec
from graftwork.data.encoders import Encoder
from graftwork.data.encoders.image import ImageEncoder
from graftwork.data.encoders.table import TableEncoder
from graftwork.export.onnx_model import export_onnx
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.catalog import build_backbone
from graftwork.serving.predict import Predictor

__all__ = ["main", "run"]

COLUMNS = ("modality", "case", "rows", "bare_ms", "graftwork_ms", "ratio", "aim", "met")
AIM = 1.1
TASKS = (
    TaskSpec(name="churn", kind="binary", size=1),
    TaskSpec(name="grade", kind="multiclass", size=5, classes=tuple("abcde")),
    TaskSpec(name="spend", kind="regression", size=1, center=(10.0,), scale=(3.0,)),
    TaskSpec(name="tags", kind="multilabel", size=8, classes=tuple("abcdefgh")),
)


def make_run(folder: Path, encoder: Encoder, example: Mapping[str, np.ndarray]) -> Predictor:
    """Write a run folder with an untrained model (weights do not change the time) and open it."""
    inputs = {encoder.kind: encoder.spec()}
    model = SharedTrunk(TASKS, lambda: build_backbone("scratch", encoder.spec()), inputs=inputs).eval()
    (folder / "model").mkdir(parents=True)
    export_onnx(model, TASKS, example, folder / "model.onnx")
    config = {"encoder": encoder.state(), "tasks": [task.to_json() for task in TASKS]}
    (folder / "model" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return Predictor(folder, threads=1)


def bare_session(folder: Path) -> Any:
    """Return the session that a user without graftwork has."""
    runtime: Any = require("onnxruntime", extra="predict", purpose="The benchmark of prediction")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return runtime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])


def make_table(num_rows: int) -> tuple[pd.DataFrame, Encoder]:
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(draw.normal(size=(num_rows, 16)), columns=[f"x{index}" for index in range(16)])
    for index in range(4):
        frame[f"level {index}"] = draw.choice(list("abcdef"), num_rows)
    return frame, TableEncoder.fit(frame, list(frame.columns))


def make_pictures(folder: Path, num_rows: int) -> tuple[list[Path], Encoder]:
    draw = np.random.default_rng(0)
    folder.mkdir()
    for index in range(num_rows):
        Image.fromarray(draw.integers(0, 256, (72, 72, 3), dtype=np.uint8)).save(folder / f"{index:05d}.png")
    return sorted(folder.glob("*.png")), ImageEncoder(64)


def measure_modality(folder: Path, rows: Any, encoder: Encoder, *, rounds: int) -> list[dict[str, Any]]:
    """Return one row per case."""
    arrays = encoder.transform(rows)
    predictor = make_run(folder, encoder, {name: value[:4] for name, value in arrays.items()})
    session = bare_session(folder)
    names, outputs = [item.name for item in session.get_inputs()], [item.name for item in session.get_outputs()]
    size, step = len(rows), predictor.batch_size
    parts = [{name: arrays[name][start : start + step] for name in names} for start in range(0, size, step)]
    single = {name: arrays[name][:1] for name in names}
    cut = rows.iloc if hasattr(rows, "iloc") else rows

    def bare(fetch: list[str]) -> None:
        collected = [session.run(fetch, part) for part in parts]
        [np.concatenate(values) for values in zip(*collected, strict=True)]

    def bare_source() -> None:
        collected = []
        for start in range(0, size, step):
            encoded = encoder.transform(cut[start : start + step])
            collected.append(session.run(outputs, {name: encoded[name] for name in names}))
        [np.concatenate(values) for values in zip(*collected, strict=True)]

    def repeat(work: Callable[[], object], times: int) -> Callable[[], None]:
        return lambda: [work() for _ in range(times)] and None

    calls = 200 if encoder.kind == "table" else 20
    cases: dict[str, tuple[Callable[[], object], Callable[[], object], int, int]] = {
        "arrays": (lambda: bare(outputs), lambda: predictor.run_arrays(arrays), size, 1),
        "one row": (
            repeat(lambda: session.run(outputs, single), calls),
            repeat(lambda: predictor.run_arrays(single), calls),
            1,
            calls,
        ),
        "one task": (lambda: bare(["churn"]), lambda: predictor.run_arrays(arrays, ["churn"]), size, 1),
        "source": (bare_source, lambda: predictor.predict(rows), size, 1),
    }
    found = []
    for case, (theirs, ours, num_rows, calls_made) in cases.items():
        timings = take_turns({"bare": theirs, "graftwork": ours}, rounds=rounds)
        ratio = timings["graftwork"].ratio(timings["bare"])
        found.append(
            {
                "benchmark": "prediction",
                "modality": encoder.kind,
                "case": case,
                "rows": num_rows,
                "bare_ms": timings["bare"].median * 1e3 / calls_made,
                "graftwork_ms": timings["graftwork"].median * 1e3 / calls_made,
                "ratio": ratio,
                "aim": f"ratio <= {AIM}",
                "met": bool(ratio <= AIM),
            }
        )
    return found


def run(*, quick: bool = False) -> list[dict[str, Any]]:
    """Measure all cases.

    Args:
        quick: Few rows and rounds: shows that it runs, not how fast.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rounds = 3 if quick else 15
    with tempfile.TemporaryDirectory(prefix="graftwork-benchmark-") as name:
        folder = Path(name)
        frame, table_encoder = make_table(2_000 if quick else 50_000)
        pictures, picture_encoder = make_pictures(folder / "pictures", 32 if quick else 256)
        rows = measure_modality(folder / "table", frame, table_encoder, rounds=rounds)
        return rows + measure_modality(folder / "image", pictures, picture_encoder, rounds=rounds)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, and write the rows as JSON if asked."""
    parser = argparse.ArgumentParser(description="Prediction beside a bare ONNX Runtime session.")
    parser.add_argument("--quick", action="store_true", help="few rows and rounds: shows that it runs, not how fast")
    parser.add_argument("--json", type=Path, help="write the rows into this file")
    options = parser.parse_args(arguments)
    rows = run(quick=options.quick)
    print(format_table(rows, COLUMNS))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
