"""A client that calls the application without a network, for the tests of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import run_builder

from graftwork.serving.app import create_app
from graftwork.serving.engine import Engine
from graftwork.serving.limits import ServeLimits

ROW = {"age": 33.0, "city": "Rome", "since": "2021-01-01", "id": 3}
Serve = Callable[..., "Client"]


class Client:
    """A client that calls the application directly."""

    def __init__(self, engine: Engine, token: str | None = None) -> None:
        self.engine = engine
        self.app = create_app(engine, token=token)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.ask_all([(method, path, options)])[0]

    def ask_all(self, calls: list[tuple[str, str, dict[str, Any]]]) -> list[httpx.Response]:
        async def run() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                return await asyncio.gather(*(client.request(method, path, **options) for method, path, options in calls))

        return asyncio.run(run())

    def predict(self, body: Any, **options: Any) -> httpx.Response:
        return self.ask("POST", "/predict", json=body, **options)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    names = ("table", "text", "picture", "controllable")
    return {name: getattr(run_builder, f"write_{name}_run")(root / name) for name in names}


@pytest.fixture
def serve(folders: dict[str, Path]) -> Iterator[Serve]:
    engines: list[Engine] = []

    def start(name: str, *, token: str | None = None, **limits: Any) -> Client:
        engine = Engine(folders[name], limits=ServeLimits(**limits), threads=1)
        engines.append(engine)
        return Client(engine, token)

    yield start
    for engine in engines:
        engine.close()
