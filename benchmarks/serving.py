"""The HTTP server beside a bare ONNX Runtime session: 1, 8 and 64 clients at once, latency and throughput, and whether every
answer is right.

The server runs in a process of its own with one thread for the model; clients are one process with plain asyncio connections
that are kept open, so that nothing but the server is measured as far as possible. Every request is one row, its answer is
compared with what the bare
session says for this row: a lost or mixed-up answer fails the run. Beside it stands a loop in one process that encodes a row and
calls the bare session. ``one task`` asks a model whose tasks have trunks of their own for one task of four, and shows what that
saves.

Times are wall times: look at the load of the machine. There is no target: HTTP has a price, and this says which.

Run: ``python -m benchmarks --only serving [--quick]``
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks._rows import Row, as_rows
from benchmarks._timing import take_turns
from benchmarks.prediction import TASKS, make_run, make_table
from graftwork.data.encoders import Encoder
from graftwork.export.onnx_model import export_onnx
from graftwork.methods.sharing.separate import Separate
from graftwork.nn.backbones.catalog import build_backbone
from graftwork.serving.costs import graph_costs
from graftwork.serving.predict import Predictor

__all__ = ["load", "rows", "server"]

CLIENTS = (1, 8, 64)
SERVER = (
    "import sys; from graftwork.serving.serve import serve; "
    "serve(sys.argv[1], port=0, threads=1, on_ready=lambda address: print(address, flush=True))"
)


@contextlib.contextmanager
def server(folder: Path) -> Iterator[int]:
    """Run a server in a process of its own and give its port."""
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line:
            raise RuntimeError("the server did not start")
        yield int(line.rpartition(":")[2])
    finally:
        process.terminate()
        process.communicate(timeout=30)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> dict[str, Any]:
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode("ascii") + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    content: dict[str, Any] = json.loads(await reader.readexactly(length))
    if b" 200 " not in answer.partition(b"\r\n")[0]:
        raise RuntimeError(f"refused: {content}")
    return content


async def load(
    port: int, bodies: Sequence[bytes], expected: Sequence[float], clients: int
) -> tuple[list[float], float, int, float]:
    """Ask every body once, from ``clients`` connections at once.

    Returns:
        Seconds of each request, seconds of all, answers that were wrong or missing, and rows per batch as the answers say.
    """
    waiting = list(range(len(bodies)))[::-1]
    seconds: list[float] = []
    batches: list[int] = []
    right = [False] * len(bodies)

    async def one_client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while waiting:
            index = waiting.pop()
            begin = time.perf_counter()
            answer = await _ask(reader, writer, bodies[index])
            seconds.append(time.perf_counter() - begin)
            batches.append(answer["batch_rows"])
            right[index] = bool(np.isclose(answer["predictions"][0]["spend"]["value"], expected[index], rtol=1e-4, atol=1e-4))
        writer.close()

    begin = time.perf_counter()
    await asyncio.gather(*(one_client() for _ in range(clients)))
    return seconds, time.perf_counter() - begin, right.count(False), float(np.mean(batches))


def questions(frame: pd.DataFrame, predictor: Predictor, count: int) -> tuple[list[dict[str, Any]], list[float]]:
    part = frame.head(count)
    expected = predictor.run_arrays(predictor.encoder.transform(part))["spend"][:, 0].tolist()
    if len({round(value, 3) for value in expected}) < 0.5 * len(expected):
        raise RuntimeError("the answers are too alike to see a mix-up")
    return part.to_dict("records"), expected


def measure_load(folder: Path, frame: pd.DataFrame, predictor: Predictor, count: int) -> list[Row]:
    records, expected = questions(frame, predictor, count)
    bodies = [json.dumps({"rows": [record]}).encode() for record in records]
    session = predictor.model.session([task.name for task in predictor.tasks])
    names, outputs = [item.name for item in session.get_inputs()], [item.name for item in session.get_outputs()]
    times = []
    for record in records:
        begin = time.perf_counter()
        encoded = predictor.encoder.transform(pd.DataFrame([record]))
        session.run(outputs, {name: encoded[name] for name in names})
        times.append(time.perf_counter() - begin)
    bare = {"p50": 1e3 * float(np.median(times)), "p99": 1e3 * float(np.quantile(times, 0.99)), "per_second": count / sum(times)}
    found = []
    with server(folder) as port:
        asyncio.run(load(port, bodies[:50], expected[:50], 4))
        for clients in CLIENTS:
            seconds, total, wrong, batch = asyncio.run(load(port, bodies, expected, clients))
            if wrong:
                raise RuntimeError(f"{wrong} of {count} answers were lost or mixed up with {clients} clients")
            details = {
                "p50_ms": 1e3 * float(np.median(seconds)),
                "p99_ms": 1e3 * float(np.quantile(seconds, 0.99)),
                "requests_per_second": count / total,
                "rows_per_batch": batch,
                "requests": count,
                "wrong": wrong,
                "bare": bare,
            }
            many = "client" if clients == 1 else "clients"
            common: dict[str, Any] = {"benchmark": "serving", "unit": "ms", "beside": "bare loop", "details": details}
            found += [
                Row(what=f"{clients} {many}, p50", ours=details["p50_ms"], peer=bare["p50"], **common),
                Row(what=f"{clients} {many}, p99", ours=details["p99_ms"], peer=bare["p99"], **common),
                Row(
                    what=f"{clients} {many}, time per request", ours=1e3 * total / count, peer=1e3 / bare["per_second"], **common
                ),
            ]
    return found


def measure_one_task(folder: Path, encoder: Encoder, arrays: dict[str, np.ndarray], rounds: int) -> Row:
    """Ask a model with a trunk for each task for one task, beside all of them."""
    inputs = {encoder.kind: encoder.spec()}
    torch.manual_seed(0)
    model = Separate(TASKS, lambda: build_backbone("scratch", encoder.spec()), inputs=inputs).eval()
    (folder / "model").mkdir(parents=True)
    export_onnx(model, TASKS, {name: value[:4] for name, value in arrays.items()}, folder / "model.onnx")
    config = {"encoder": encoder.state(), "tasks": [task.to_json() for task in TASKS]}
    (folder / "model" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    predictor = Predictor(folder, threads=1)
    whole, part = [task.name for task in TASKS], [TASKS[0].name]
    only = predictor.model.only(part)
    timings = take_turns(
        {"all": lambda: predictor.model.run(arrays, whole), "one": lambda: only.run(arrays, part)}, rounds=rounds
    )
    costs = graph_costs(predictor.model.path, predictor.model.outputs)
    assert costs is not None
    return Row(
        benchmark="serving",
        what="one task of four, model alone",
        ours=1e3 * timings["one"].median,
        peer=1e3 * timings["all"].median,
        beside="all tasks",
        ratio=timings["one"].ratio(timings["all"]),
        unit="ms",
        details={"flops_share": costs.share(part), "rows": len(next(iter(arrays.values())))},
    )


def rows(quick: bool) -> list[dict[str, Any]]:
    """Measure all cases.

    Args:
        quick: Few requests: shows that it runs and that answers are right, not how fast.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="graftwork-benchmark-") as name:
        folder = Path(name)
        frame, encoder = make_table(2_000)
        arrays = encoder.transform(frame.head(256))
        predictor = make_run(folder / "run", encoder, {key: value[:4] for key, value in arrays.items()})
        found = measure_load(folder / "run", frame, predictor, 128 if quick else 1_500)
        return as_rows([*found, measure_one_task(folder / "separate", encoder, arrays, 3 if quick else 15)])
