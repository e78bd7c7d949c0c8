"""Predictions on kept-back rows: graftwork beside what people use today, same rows, same cores.

Example::

    python -m benchmarks.quality --time-limit 60 --seeds 2 --json benchmarks/quality/results.json
    python -m benchmarks.quality --suites mpg,news --peers lightgbm,tfidf-linear
    python -m benchmarks.quality --peers autogluon-medium --autogluon OTHER_ENVIRONMENT/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.__main__ import machine
from benchmarks._timing import format_table
from benchmarks.quality.suites import PICTURE, SUITES, TEXT, QualitySuite, split_rows
from graftwork.core.files import write_json

__all__ = ["PEERS_OF", "judge", "main", "mean_ranks"]

OURS = "graftwork"
PEERS_OF = {
    "table": ("extra-trees", "linear", "lightgbm", "autogluon-medium", "autogluon-good"),
    "text": ("tfidf-linear", "embeddings-linear", "autogluon-medium", "autogluon-good"),
    "image": ("embeddings-linear",),
    "mixed": ("lightgbm", "embeddings-linear", "joined-linear", "joined-lightgbm"),
}
"""Which peers take which kind of data."""


def judge(kind: str, truth: pd.Series, answer: Mapping[str, Any]) -> float:
    """Return a loss that the trivial answer brings to about 1: relative RMSE for numbers, relative error rate for classes.

    Args:
        kind: ``number`` or ``class``.
        truth: Labels of the kept-back rows; missing ones do not count.
        answer: As :mod:`benchmarks.quality.peers` writes it.
    """
    known = truth.notna().to_numpy()
    if kind == "number":
        values = truth.to_numpy(dtype=float)[known]
        errors = np.asarray(answer["values"], dtype=float)[known] - values
        return float(np.sqrt(np.mean(errors**2)) / values.std())
    labels = truth.astype(str).to_numpy()[known]
    chosen = np.asarray(answer["classes"])[np.asarray(answer["probabilities"])[known].argmax(1)]
    most = pd.Series(labels).value_counts().iloc[0] / len(labels)
    return float(np.mean(chosen != labels) / (1 - most))


def mean_ranks(losses: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the mean rank of each contender over suites; equal losses share a rank.

    Args:
        losses: ``{suite: {contender: loss}}``; only contenders that answered all suites are ranked.

    Example:
        >>> mean_ranks({"a": {"x": 0.1, "y": 0.2}, "b": {"x": 0.5, "y": 0.5}})
        {'x': 1.25, 'y': 1.75}
    """
    table = pd.DataFrame(losses).dropna()
    return {str(name): float(rank) for name, rank in table.rank().mean(axis=1).items()}


def _ours(job: Mapping[str, Any], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run the command line as a user would, and predict the kept-back rows with what it hands over."""
    words = [sys.executable, "-m", "graftwork", "fit", str(folder / "train.csv"), "--targets", ",".join(job["targets"])]
    words += ["--time-limit", f"{job['seconds']}s", "--out", str(folder / "run"), "--quiet"]
    words += ["--text", TEXT] if job["kind"] == "text" else []
    words += ["--image-column", PICTURE] if job["kind"] in ("image", "mixed") else []
    # As the peers are told: scores such as 1 to 5 would be read as an order of classes.
    for target, kind in job["targets"].items():
        words += ["--task-kind", f"{target}=regression"] if kind == "number" else []
    words += options.ours
    started = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError("\n".join(done.stderr.strip().splitlines()[-5:]))
    from graftwork.serving.predict import Predictor

    predictor = Predictor(folder / "run", threads=1)
    test = pd.read_csv(folder / "test.csv")
    found = predictor.predict(test, probabilities=True)
    answers: dict[str, Any] = {}
    for task in predictor.tasks:
        if job["targets"][task.name] == "number" and not task.classes:
            answers[task.name] = {"values": found[task.name].astype(float).tolist()}
        elif job["targets"][task.name] == "number":  # read as steps of a scale
            answers[task.name] = {"values": pd.to_numeric(found[task.name]).tolist()}
        else:
            columns = [f"{task.name}[{name}]" for name in task.classes]
            shares = found[columns].to_numpy()
            answers[task.name] = {"classes": list(task.classes), "probabilities": shares.tolist()}
    size = sum(
        file.stat().st_size for file in [folder / "run" / "model.onnx", *(folder / "run" / "model").rglob("*")] if file.is_file()
    )
    row = test.iloc[:1]
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        predictor.predict(row)
        times.append(time.perf_counter() - begun)
    return {"seconds": seconds, "answers": answers, "bytes": size, "one_row_seconds": float(np.median(times))}


def _peer(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    python = options.autogluon if name.startswith("autogluon") else sys.executable
    script = Path(__file__).with_name("peers.py")
    threads = {"OMP_NUM_THREADS": str(options.cores)}
    done = subprocess.run(
        [python, str(script), name, str(folder)], capture_output=True, text=True, check=False, env=os.environ | threads
    )
    if done.returncode:
        raise RuntimeError("\n".join(done.stderr.strip().splitlines()[-3:]))
    found: dict[str, Any] = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    return found


def _store_features(suite: QualitySuite, parts: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Write what a pretrained encoder makes of the rows, for the peer that puts a linear model on it."""
    import torch

    from graftwork.core.input_spec import InputSpec
    from graftwork.data.reading.ingest import open_suite
    from graftwork.nn.backbones.catalog import build_backbone

    name = "minilm" if suite.kind == "text" else "efficientnet_lite0@224"
    keyword: dict[str, Any] = {"text": TEXT} if suite.kind == "text" else {"image_column": PICTURE, "image_size": 224}
    both = pd.concat(parts.values(), ignore_index=True)
    opened = open_suite(both[[TEXT if suite.kind == "text" else PICTURE, *suite.targets]], targets=list(suite.targets), **keyword)
    if suite.kind == "text":
        from graftwork.nn.backbones.transformers_bridge import prepare_suite

        opened = prepare_suite(opened, name)
    spec: InputSpec = opened.only_input
    backbone = build_backbone(name, spec).eval()
    made = []
    with torch.no_grad():
        for start in range(0, len(both), 64):
            batch = {key: torch.as_tensor(np.asarray(array[start : start + 64])) for key, array in opened.inputs.items()}
            made.append(backbone(spec.own(batch)).numpy())
    features = np.concatenate(made)
    cut = len(parts["train"])
    np.savez(folder / "features.npz", train=features[:cut], test=features[cut:])


def measure(suite: QualitySuite, seed: int, peers: Sequence[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for every contender on one division of a suite."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        train, test = split_rows(suite.load(folder / "files"), seed)
        train.to_csv(folder / "train.csv", index=False)
        test.drop(columns=list(suite.targets)).to_csv(folder / "test.csv", index=False)
        job = {"targets": dict(suite.targets), "kind": suite.kind, "seconds": options.time_limit, "cores": options.cores}
        write_json(folder / "job.json", job)
        rows = []
        for name in [OURS, *peers]:
            row: dict[str, Any] = {"suite": suite.name, "kind": suite.kind, "rows": len(train), "seed": seed, "contender": name}
            try:
                if name.startswith(("embeddings", "joined")) and not (folder / "features.npz").exists():
                    _store_features(suite, {"train": train, "test": test}, folder)
                done = _ours(job, folder, options) if name == OURS else _peer(name, folder, options)
            except RuntimeError as error:
                rows.append({**row, "failed": str(error)})
                continue
            row["losses"] = {target: judge(kind, test[target], done["answers"][target]) for target, kind in suite.targets.items()}
            row["loss"] = float(np.mean(list(row["losses"].values())))
            rows.append(row | {key: value for key, value in done.items() if key != "answers"})
        return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, store; 1 if a contender failed somewhere."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description=__doc__.partition("\n")[0] if __doc__ else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--suites", metavar="A,B", help=f"some of {', '.join(SUITES)} (default: all that are installed)")
    parser.add_argument("--peers", metavar="A,B", help="some of the peers (default: all but AutoGluon, and it with --autogluon)")
    parser.add_argument(
        "--time-limit", metavar="SECONDS", type=float, default=60.0, help="for us and for AutoGluon, per suite (default 60)"
    )
    parser.add_argument("--seeds", metavar="N", type=int, default=1, help="divisions into learned and kept-back rows (default 1)")
    parser.add_argument("--cores", metavar="N", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--autogluon", metavar="PYTHON", help="interpreter of an environment with autogluon.tabular")
    parser.add_argument("--ours", metavar="WORDS", default=[], type=str.split, help="more words for graftwork fit, in quotes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="store rows and machine")
    options = parser.parse_args(arguments)
    chosen = [name for name, suite in SUITES.items() if suite.available()] if not options.suites else options.suites.split(",")
    for name in chosen:
        if name not in SUITES:
            parser.error(f"there is no suite {name!r}; there are {', '.join(SUITES)}")
        if not SUITES[name].available():
            parser.error(f"the suite {name!r} needs: pip install --no-deps {SUITES[name].needs}")
    rows: list[dict[str, Any]] = []
    described = machine()
    for name in chosen:
        suite = SUITES[name]
        peers = [peer for peer in PEERS_OF[suite.kind] if options.autogluon or not peer.startswith("autogluon")]
        if options.peers:
            peers = [peer for peer in peers if peer in options.peers.split(",")]
        for seed in range(options.seeds):
            rows += measure(suite, seed, peers, options)
            print(_line(rows, name, seed), file=sys.stderr, flush=True)
            if options.json:
                write_json(options.json, {"machine": described, "time_limit": options.time_limit, "rows": rows})
    print(report(rows))
    return 1 if any("failed" in row for row in rows) else 0


def report(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return losses by suite and contender, and the mean ranks within each kind of data."""
    frame = pd.DataFrame([row for row in rows if "loss" in row])
    parts = []
    for kind, part in frame.groupby("kind", sort=False):
        means = part.pivot_table(index="suite", columns="contender", values="loss", sort=False)
        ranks = mean_ranks({str(suite): dict(line) for suite, line in means.iterrows()})
        lines = [{"suite": suite, **{name: f"{value:.3f}" for name, value in line.items()}} for suite, line in means.iterrows()]
        lines.append({"suite": "mean rank", **{name: f"{rank:.2f}" for name, rank in ranks.items()}})
        parts.append(
            f"{kind}: loss on kept-back rows (1 is the trivial answer)\n" + format_table(lines, ("suite", *means.columns))
        )
    failed = [f"{row['contender']} failed on {row['suite']}: {row['failed']}" for row in rows if "failed" in row]
    return "\n\n".join([*parts, *failed])


def _line(rows: Sequence[Mapping[str, Any]], suite: str, seed: int) -> str:
    own = [row for row in rows if row["suite"] == suite and row["seed"] == seed]
    return f"{suite} {seed}: " + ", ".join(
        f"{row['contender']} {row.get('loss', float('nan')):.3f} ({row.get('seconds', 0):.0f} s)" for row in own
    )


if __name__ == "__main__":
    raise SystemExit(main())
