"""What happens beside a server changes nothing about its answers: files that are replaced, large requests of others, messages."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import json
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_builder
from app_client import ROW, Client
from live_server import PATIENCE, get_request, live, predict_request
from PIL import Image

from graftwork.core.errors import FileFormatError
from graftwork.serving import asking, bodies, threads
from graftwork.serving.answers import to_json
from graftwork.serving.engine import Engine
from graftwork.serving.limits import ServeLimits
from graftwork.serving.problems import shown
from graftwork.serving.quiet_log import QuietLog, quiet_log
from graftwork.serving.session import OnnxModel


def values(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


@pytest.mark.parametrize("kind", ["table", "controllable"])
@pytest.mark.parametrize("what", ["replaced", "deleted"])
def test_a_model_that_is_replaced_or_deleted_answers_as_before(tmp_path: Path, kind: str, what: str) -> None:
    folder = getattr(run_builder, f"write_{kind}_run")(tmp_path / "run")
    engine = Engine(folder, limits=ServeLimits(max_wait_ms=0), threads=1)
    try:
        client = Client(engine)
        tasks = list(engine.tasks)
        picture = io.BytesIO()
        Image.new("RGB", (8, 8), (200, 30, 60)).save(picture, "PNG")
        content: dict[str, Any] = (
            {"images": [base64.b64encode(picture.getvalue()).decode()]} if kind != "table" else {"rows": [ROW]}
        )
        before = values(client.predict(content))
        for path in folder.rglob("*.onnx"):
            path.write_bytes(b"another model") if what == "replaced" else path.unlink()
        assert values(client.predict(content)) == before
        # Sets of tasks, and sub-networks, are opened when they are first asked: now.
        for task in tasks:
            alone = values(client.predict({**content, "tasks": [task]}))
            assert alone == [{task: row[task]} for row in before]
        if engine.controls is not None:
            assert engine.smallest_budget is not None
            values(client.predict({**content, "budget": engine.smallest_budget}))
    finally:
        engine.close()


def test_a_model_whose_weights_are_in_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a file could be any that this process may read."""
    onnx = pytest.importorskip("onnx")
    weights = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["y"])],
        "graph",
        [onnx.helper.make_tensor_value_info("x", 1, [4])],
        [onnx.helper.make_tensor_value_info("y", 1, [4])],
        [weights],
    )
    (tmp_path / "secret.bin").write_bytes(np.zeros(4, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    for place in ("secret.bin", "../secret.bin", str(tmp_path / "secret.bin")):
        del graph.initializer[0].external_data[:]
        graph.initializer[0].external_data.add(key="location", value=place)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(FileFormatError, match="not a whole ONNX model"):
            OnnxModel(tmp_path / "model.onnx")


def test_others_are_answered_while_a_large_body_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(run_builder.write_table_run(tmp_path), limits=ServeLimits(max_wait_ms=0), threads=1)
    answered, parse = threading.Event(), asking.parse_json

    def late(content: bytes) -> Any:
        if len(content) > 100_000:
            # If this ran in the thread that answers, nobody could set the event.
            assert answered.wait(PATIENCE)
            assert not gc.isenabled(), "looking for garbage among millions of values would hold everything up"
        return parse(content)

    monkeypatch.setattr(bodies, "parse_json", late)
    monkeypatch.setattr(threads, "_LARGE", 50_000)
    client = Client(engine)
    try:
        # Other keys of a row are ignored.
        large = json.dumps({"rows": [{**ROW, "note": "x" * 200_000}]}).encode()

        async def both() -> list[Any]:
            import httpx

            async with httpx.AsyncClient(transport=httpx.ASGITransport(client.app), base_url="http://server") as session:
                slow = asyncio.create_task(
                    session.post("/predict", content=large, headers={"content-type": "application/json"}, timeout=PATIENCE)
                )
                await asyncio.sleep(0.05)
                quick = await session.post("/predict", json={"rows": [ROW]})
                answered.set()
                return [quick, await slow]

        quick, slow = asyncio.run(both())
        assert values(quick) == values(slow)
        assert gc.isenabled()
    finally:
        answered.set()
        engine.close()


def form_with(texts: list[tuple[str, str]]) -> dict[str, Any]:
    """Return a form of a picture and texts, as httpx takes it."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 60)).save(picture, "PNG")
    fields: list[tuple[str, Any]] = [("images", ("a.png", picture.getvalue()))]
    return {"files": fields + [(name, (None, text)) for name, text in texts]}


def test_others_are_answered_while_a_form_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(run_builder.write_controllable_run(tmp_path), limits=ServeLimits(max_wait_ms=0), threads=1)
    answered, parse = threading.Event(), asking.parse_json
    read: list[int] = []

    def late(content: bytes) -> Any:
        # If this ran in the thread that answers, nobody could set the event.
        assert answered.wait(PATIENCE)
        read.append(len(content))
        return parse(content)

    monkeypatch.setattr(bodies, "parse_json", late)
    client = Client(engine)
    weights = json.dumps({"grey": 0.2, "colour": 1.0}) + " " * 60_000
    # One option comes a thousand times, and is read once.
    form = form_with([*[("importance", weights)] * 240, ("budget", "0.7")])

    async def both() -> list[Any]:
        import httpx

        async with httpx.AsyncClient(transport=httpx.ASGITransport(client.app), base_url="http://server") as session:
            slow = asyncio.create_task(session.post("/predict", timeout=PATIENCE, **form))
            await asyncio.sleep(0.05)
            quick = await session.get("/health")
            assert not read, "not yet"
            answered.set()
            return [quick, await slow]

    try:
        quick, slow = asyncio.run(both())
        assert quick.status_code == 200
        assert values(slow)
        assert sorted(read) == [3, len(weights)]
    finally:
        answered.set()
        engine.close()


def test_a_form_is_refused_before_its_fields_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(run_builder.write_picture_run(tmp_path), limits=ServeLimits(max_wait_ms=0), threads=1)
    read: list[bytes] = []

    def noted(content: bytes) -> Any:
        read.append(content)
        return asking.parse_json(content)

    monkeypatch.setattr(bodies, "parse_json", noted)
    client = Client(engine)

    def problems(status: int, texts: list[tuple[str, str]]) -> str:
        answer = client.ask("POST", "/predict", **form_with(texts))
        assert answer.status_code == status, answer.text
        assert len(answer.content) < 20_000
        return str(answer.json())

    try:
        deep = "[" * 20_000
        assert "a999" in problems(422, [(f"a{index}", deep) for index in range(980, 1_000)])
        assert "'rows'" in problems(422, [("rows", deep)]), "a form has no rows of a table"
        assert read == [], "what is no option is not read"
        assert "64KB" in problems(400, [("importance", "1" * 65_537)])
        assert "Too many fields" in problems(400, [("tasks", "colour")] * 1_001)
        names = ",".join(list(engine.tasks) * 4_000)
        assert values(client.ask("POST", "/predict", **form_with([("tasks", names[:60_000].rpartition(",")[0])] * 100)))
        assert read == []
    finally:
        engine.close()


def test_a_large_body_gets_the_answers_and_faults_of_a_small_one(tmp_path: Path) -> None:
    engine = Engine(run_builder.write_table_run(tmp_path), limits=ServeLimits(max_wait_ms=0), threads=1)
    try:
        client = Client(engine)
        fill = {"note": [[index, "x" * 20] for index in range(8_000)]}
        small, large = client.predict({"rows": [ROW, ROW]}), client.predict({"rows": [{**ROW, **fill}, ROW]})
        assert values(small) == values(large)
        wrong = [client.predict({"rows": [{**ROW, **extra, "age": "old"}]}) for extra in ({}, fill)]
        assert [answer.status_code for answer in wrong] == [422, 422]
        assert wrong[0].json() == wrong[1].json()
        text = json.dumps({"rows": [{**ROW, **fill}]})
        for broken in (text[:-1], text + "]", text.replace("[60", "[NaN"), "[" * 200_000):
            answer = client.ask("POST", "/predict", content=broken, headers={"content-type": "application/json"})
            assert answer.status_code == 400, answer.text
            assert len(answer.content) < 1_000
    finally:
        engine.close()


def test_values_are_repeated_in_short_however_large_they_are() -> None:
    deep: Any = "x" * 1_000_000
    for _ in range(7):
        deep = [deep] * 8
    assert len(shown(deep)) <= 120
    assert len(shown("y" * 1_000_000)) == 120
    assert shown({"a": [1, 2]}) == "{'a': [1, 2]}"


def test_answers_are_written_row_by_row() -> None:
    content = {"predictions": [{"a": {"value": 1.5}}, {"a": {"value": "é\ud800"}}], "tasks": ["a"], "notes": []}
    assert json.loads(to_json(content)) == content
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json({"predictions": [{"a": float("nan")}], "tasks": []})


def record(line: int, text: str, *values: Any) -> logging.LogRecord:
    return logging.LogRecord("uvicorn.error", logging.WARNING, "somewhere.py", line, text, values, None)


def test_each_kind_of_message_is_written_some_times_and_then_once_a_minute() -> None:
    now = [0.0]
    quiet = QuietLog(first=3, seconds=60, clock=lambda: now[0])
    assert [quiet.filter(record(1, "bad request")) for _ in range(1_000)] == [True] * 3 + [False] * 997
    assert quiet.filter(record(2, "another fault")), "it does not hide what is new"
    now[0] = 61.0
    last = record(1, "bad request %s", "again")
    assert quiet.filter(last)
    assert last.getMessage() == "bad request again (997 more of this kind since the last one)"
    assert not quiet.filter(record(1, "bad request"))


def test_kinds_and_lengths_of_messages_are_bounded_and_controls_written_out() -> None:
    quiet = QuietLog(first=1, seconds=60, clock=lambda: 0.0)
    assert sum(quiet.filter(record(line, "new")) for line in range(10_000)) <= 300
    long = record(20_000, "%s", "\x1b[31m" + "x" * 100_000)
    QuietLog().filter(long)
    assert len(long.getMessage()) < 4_200
    assert long.getMessage().startswith(r"\x1b[31mxxx")


def test_clients_cannot_fill_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with quiet_log(), live(run_builder.write_table_run(tmp_path)) as server:
        for _ in range(100):
            assert server.ask(b"no HTTP\r\n\r\n")[0] == 400
            assert (
                server.ask(get_request("/health").replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"))[0]
                == 200
            )
        assert server.ask(predict_request())[0] == 200
    assert 1 <= len(capsys.readouterr().err.splitlines()) <= 10
    assert not logging.getLogger("uvicorn.error").filters, "loggers are as they were"


def test_four_large_pictures_at_once_stay_within_the_pixels_of_one_request(tmp_path: Path) -> None:
    engine = Engine(
        run_builder.write_picture_run(tmp_path), limits=ServeLimits(max_pixels=60_000, max_picture_pixels=40_000), threads=1
    )
    lock, at_once, most = threading.Lock(), [0], [0]
    reader: Any = engine.reader
    encode = reader.encoder.encode_one
    let_go = threading.Event()

    def counted(content: bytes, **options: Any) -> Any:
        with lock:
            at_once[0] += 40_000
            most[0] = max(most[0], at_once[0])
        # Long enough for all others to begin, if they could.
        let_go.wait(0.05)
        with lock:
            at_once[0] -= 40_000
        return encode(content, **options)

    file = io.BytesIO()
    Image.new("RGB", (200, 200), (9, 90, 200)).save(file, "PNG")
    reader.encoder.encode_one = counted
    try:
        found: list[Any] = []
        workers = [threading.Thread(target=lambda: found.extend(reader.finish([file.getvalue()]))) for _ in range(4)]
        for thread in workers:
            thread.start()
        for thread in workers:
            thread.join(PATIENCE)
        assert len(found) == 4
        assert most[0] == 40_000, "two would be more than one request may have"
    finally:
        engine.close()
