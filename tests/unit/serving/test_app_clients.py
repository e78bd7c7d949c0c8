"""Many clients at once."""

from __future__ import annotations

import asyncio

import httpx
import numpy as np
import pandas as pd
import pytest
from app_client import Serve


def test_many_clients_get_their_own_answers(serve: Serve) -> None:
    """64 clients at once, each with several requests of several rows and varying tasks: every answer belongs to its question."""
    client = serve("table", max_batch=16, max_wait_ms=1)
    encoder = client.engine.reader.encoder
    draw = np.random.default_rng(0)
    levels = list(encoder.columns[1].levels)  # type: ignore[attr-defined]

    async def one_client(number: int, calls: httpx.AsyncClient) -> int:
        seen = 0
        for turn in range(4):
            size = int(draw.integers(1, 6))
            rows = [
                {"age": 40 + (24 * number + 6 * turn + row) / 20, "city": levels[(number + row) % 3], "since": None, "id": 0}
                for row in range(size)
            ]
            tasks = [["number"], ["number", "city class"], ["city class", "number", "third"]][turn % 3]
            answer = (await calls.post("/predict", json={"rows": rows, "tasks": tasks})).json()
            expected = encoder.transform(pd.DataFrame(rows).assign(since=None, age=[float(row["age"]) for row in rows]))[
                "numeric"
            ][:, 0]
            assert [row["number"]["value"] for row in answer["predictions"]] == pytest.approx(expected.tolist(), abs=1e-6)
            if "city class" in tasks:
                assert [row["city class"]["value"] for row in answer["predictions"]] == [row["city"] for row in rows]
            assert set(answer["tasks"]) == set(tasks)
            seen += len(answer["predictions"])
        return seen

    async def run() -> list[int]:
        transport = httpx.ASGITransport(client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server", timeout=60) as calls:
            return await asyncio.gather(*(one_client(number, calls) for number in range(64)))

    seen = asyncio.run(run())
    metrics = client.ask("GET", "/metrics").text
    assert f"graftwork_rows_total {float(sum(seen))}" in metrics
    batches = float(next(line for line in metrics.splitlines() if line.startswith("graftwork_batch_rows_count")).split()[1])
    assert batches < 64 * 4, "requests did run together"
