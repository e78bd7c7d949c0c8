"""The HTTP side, called without a network: answers, limits, errors as JSON, token, metrics, schema."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from app_client import ROW, Client, Serve
from PIL import EpsImagePlugin, Image
from run_builder import write_table_run

from graftwork.serving.engine import Engine
from graftwork.serving.predict import Predictor


def picture(colour: tuple[int, int, int], size: int = 20) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(file, "PNG")
    return file.getvalue()


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def check_error(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    content: dict[str, Any] = response.json()
    assert set(content) == {"error", "problems"}
    assert all(set(problem) == {"field", "value", "allowed"} for problem in content["problems"])
    return content


def test_a_table_is_predicted_as_by_the_predictor(serve: Serve, folders: dict[str, Path]) -> None:
    rows = [
        ROW,
        {"age": None, "city": None, "since": None, "id": 1, "more": "ignored"},
        {"age": 50, "city": "Nowhere", "since": "2022-05-06T07:08:09", "id": True},
    ]
    answer = serve("table").predict({"rows": rows, "probabilities": True}).json()
    frame = pd.DataFrame(rows).drop(columns="more").astype({"id": float})
    expected = Predictor(folders["table"], threads=1).predict(frame, probabilities=True)
    assert answer["tasks"] == ["number", "third", "city class"]
    for index, row in enumerate(answer["predictions"]):
        assert row["number"]["value"] == pytest.approx(expected["number"][index], abs=1e-6)
        assert row["third"]["value"] == pytest.approx(expected["third"][index], abs=1e-6)
        assert row["city class"]["value"] == expected["city class"][index]
        assert row["city class"]["probabilities"]["Rome"] == expected["city class[Rome]"][index]
    assert answer["batch_rows"] == 3
    assert answer["milliseconds"]["total"] >= answer["milliseconds"]["model"] > 0


def test_only_what_is_asked_is_computed_and_what_it_saves_is_shown(serve: Serve) -> None:
    client = serve("table")
    answer = client.predict({"rows": [ROW], "tasks": ["third"]}).json()
    assert list(answer["predictions"][0]) == answer["tasks"] == ["third"]
    assert answer["cost"]["saved"] == pytest.approx(0.5), "number and third cost a product each, city class none"
    full = client.predict({"rows": [ROW, ROW]}).json()["cost"]
    assert full["saved"] == 0.0
    metrics = client.ask("GET", "/metrics").text
    assert f"graftwork_saved_flops_total {answer['cost']['full_flops'] - answer['cost']['flops']}" in metrics
    assert 'graftwork_task_flops_share{task="third"} 0.5' in metrics
    assert "graftwork_rows_total 3.0" in metrics
    assert 'graftwork_model_seconds_count{tasks="third"} 1.0' in metrics
    assert 'graftwork_model_seconds_count{tasks="all"} 1.0' in metrics


def test_texts_and_rows_of_texts(serve: Serve) -> None:
    client = serve("text")
    answer = client.predict({"texts": ["good day to you", "night"]}).json()
    assert [row["length"]["value"] for row in answer["predictions"]] == [4.0, 1.0]
    assert [row["long"]["value"] for row in answer["predictions"]] == ["yes", "no"]
    assert client.predict({"rows": [{"body": "bad night"}, {"body": None}]}).json()["predictions"][0]["length"]["value"] == 2.0
    both = check_error(client.predict({"texts": ["a"], "rows": [{"body": "b"}]}), 422)
    assert both["problems"][0]["allowed"] == "exactly one of the keys texts, rows"


def test_pictures_in_base64_and_as_upload(serve: Serve) -> None:
    client = serve("picture")
    red, green = picture((255, 0, 10)), picture((0, 128, 0))
    expected = [{"red": 255.0, "green": 0.0, "blue": 10.0}, {"red": 0.0, "green": 128.0, "blue": 0.0}]
    coded = client.predict({"images": [in_base64(red), f"data:image/png;base64,{in_base64(green)}"]}).json()
    assert [row["colour"]["values"] for row in coded["predictions"]] == expected
    assert np.shape(coded["predictions"][0]["grey"]["map"]) == (8, 8)
    assert coded["predictions"][1]["grey"]["map"][3][3] == pytest.approx(128 / 3, abs=1e-4)
    files = [("images", ("a.png", red)), ("images", ("b.png", green))]
    sent = client.ask("POST", "/predict", files=files, data={"tasks": "colour", "probabilities": "false"}).json()
    assert [row["colour"]["values"] for row in sent["predictions"]] == expected
    assert sent["tasks"] == ["colour"]
    assert sent["cost"]["saved"] == 1.0, "the mean colour needs no convolution"


def test_pictures_that_are_none_or_too_large(serve: Serve) -> None:
    client = serve("picture", max_pixels=1000)
    bad = check_error(client.predict({"images": [in_base64(b"no picture"), "%%%", 3]}), 422)
    assert [problem["field"] for problem in bad["problems"]] == ["images[1]", "images[2]"]
    bad = check_error(client.predict({"images": [in_base64(picture((0, 0, 0))[:40]), in_base64(b"no")]}), 422)
    assert [problem["field"] for problem in bad["problems"]] == ["images[0]", "images[1]"]
    large = check_error(client.predict({"images": [in_base64(picture((0, 0, 0)))] * 3}), 413)
    assert large["problems"][0]["field"] == "images[2]"
    check_error(client.ask("POST", "/predict", files={"images": ("a.png", b"")}), 422)
    client = serve("picture", max_picture_pixels=399)
    large = check_error(client.predict({"images": [in_base64(picture((0, 0, 0), 8)), in_base64(picture((0, 0, 0)))]}), 413)
    assert large["problems"] == [
        {"field": "images[1]", "value": "20 x 20 pixels, the limit is 399", "allowed": "a smaller picture"}
    ]


def test_postscript_is_no_picture(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    Image.init()
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "EPS")
    bad = check_error(serve("picture").predict({"images": [in_base64(file.getvalue())]}), 422)
    assert "a PostScript file, which is not read" in bad["problems"][0]["value"]


def test_every_fault_is_listed_with_field_value_and_what_is_allowed(serve: Serve) -> None:
    rows = [
        {"age": "old", "city": ["x"], "since": "yesterday", "id": 1e301},
        {"agee": 3, "city": "\ud800", "since": 3, "id": 1},
        7,
    ]
    client = serve("table")
    body = {"rows": rows, "tasks": ["nmber"], "budget": 0.5, "probabilities": 1}
    content = json.dumps(body).encode()
    response = client.ask("POST", "/predict", content=content, headers={"Content-Type": "application/json"})
    problems = {problem["field"]: problem for problem in check_error(response, 422)["problems"]}
    assert set(problems) == {
        "rows[0].age", "rows[0].city", "rows[0].since", "rows[0].id", "rows[1].age", "rows[1].city", "rows[1].since", "rows[2]",
        "tasks[0]", "budget", "probabilities",
    }  # fmt: skip
    assert problems["rows[0].age"]["value"] == "old"
    assert "a number" in problems["rows[0].age"]["allowed"]
    assert "with a value or null; the row has no such key. Did you mean 'agee'?" in problems["rows[1].age"]["allowed"]
    assert "Did you mean 'number'?" in problems["tasks[0]"]["allowed"]
    assert "not controllable" in problems["budget"]["allowed"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"rows": [{"age": NaN}]}', 400),
        (b"[" * 100_000, 400),
        (b'{"rows": ' + b"9" * 5000 + b"}", 400),
        (b"[]", 422),
        (b"3", 422),
        (b'{"rows": []}', 422),
        (b'{"rows": {}}', 422),
        (b'{"tasks": []}', 422),
        (b'{"rows": [{"age": ' + b"9" * 4000 + b', "city": 1, "since": null, "id": 1}]}', 422),
    ],
)
def test_bodies_that_are_no_request(serve: Serve, content: bytes, status: int) -> None:
    check_error(serve("table").ask("POST", "/predict", content=content, headers={"Content-Type": "application/json"}), status)


def test_paths_methods_and_content_types(serve: Serve) -> None:
    client = serve("table")
    assert "/predict" in check_error(client.ask("GET", "/nothing"), 404)["problems"][0]["allowed"]
    wrong = client.ask("GET", "/predict")
    assert "POST" in check_error(wrong, 405)["problems"][0]["allowed"]
    assert wrong.headers["allow"] == "POST"
    check_error(client.ask("POST", "/predict", content=b"a,b"), 415)
    check_error(client.ask("POST", "/predict", files={"images": ("a.png", b"x")}), 415)
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x; charset=no-such"):
        response = serve("picture").ask("POST", "/predict", content=b"--x\r\n", headers={"Content-Type": kind})
        assert check_error(response, response.status_code)["problems"]
        assert response.status_code in (400, 422)


def test_limits_of_size(serve: Serve) -> None:
    client = serve("table", max_rows=2, max_body_bytes=2000)
    assert check_error(client.predict({"rows": [ROW] * 3}), 422)["problems"][0]["allowed"] == "a list of 1 to 2 items"
    assert client.predict({"rows": [ROW] * 2}).status_code == 200
    for size in (3_000, 100_000):
        body = {"rows": [{**ROW, "city": "x" * size}]}
        assert "at most 2000 bytes" in check_error(client.predict(body), 413)["problems"][0]["allowed"]


def slow(engine: Engine, seconds: float) -> None:
    """Make every batch of an engine take time."""
    encode = engine.reader.encode

    def late(rows: Any) -> Any:
        import time

        time.sleep(seconds)
        return encode(rows)

    engine.reader.encode = late  # type: ignore[method-assign]


def test_a_request_that_takes_too_long_is_504(serve: Serve) -> None:
    client = serve("table", timeout=0.05)
    slow(client.engine, 0.3)
    assert "an answer in 0.05 s" in check_error(client.predict({"rows": [ROW]}), 504)["problems"][0]["allowed"]
    assert client.engine.requests_in_work == 0


def test_a_full_queue_is_503_with_retry_after(serve: Serve) -> None:
    client = serve("table", max_queue=2, max_batch=1)
    slow(client.engine, 1.0)  # all have asked by then, on a busy machine too
    answers = client.ask_all([("POST", "/predict", {"json": {"rows": [ROW]}})] * 6)
    states = sorted(answer.status_code for answer in answers)
    assert states == [200, 200, 503, 503, 503, 503]
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.headers["retry-after"] == "1"
    check_error(refused, 503)


def test_a_stopped_engine_is_503(serve: Serve) -> None:
    client = serve("table")
    client.engine.close()
    assert "is stopping" in check_error(client.predict({"rows": [ROW]}), 503)["error"]


def test_a_token_locks_everything_but_the_empty_page_and_health(serve: Serve) -> None:
    client = serve("table", token="secret-1")
    for path in ("/", "/docs", "/health", "/assets/try.js"):
        assert client.ask("GET", path).status_code == 200
    for path in ("/model", "/metrics", "/openapi.json"):
        check_error(client.ask("GET", path), 401)
        assert client.ask("GET", path, headers={"Authorization": "Bearer secret-1"}).status_code == 200
    for header in ("Bearer secret-2", "Bearer", "secret-1", "Basic secret-1", "Bearer secret-1x", "Bearer sécret".encode()):
        wrong = client.predict({"rows": [ROW]}, headers={"Authorization": header})
        assert "secret" not in json.dumps(check_error(wrong, 401))
        assert wrong.headers["www-authenticate"] == "Bearer"
    assert client.predict({"rows": [ROW]}, headers={"Authorization": "bearer secret-1"}).status_code == 200
    schema = client.ask("GET", "/openapi.json", headers={"Authorization": "Bearer secret-1"}).json()
    assert schema["paths"]["/predict"]["post"]["security"] == [{"token": []}]
    assert schema["paths"]["/health"]["get"]["security"] == []


def test_budget_and_importance_pick_a_sub_network(serve: Serve) -> None:
    client = serve("controllable")
    body = {"images": [in_base64(picture((200, 100, 40)))]}
    full = client.predict(body).json()
    assert full["configuration"] is None
    assert full["predictions"][0]["colour"]["values"]["red"] == 200.0
    half = client.predict(body | {"budget": 0.7}).json()  # 500 + 400 of 1400
    assert half["configuration"] == {"encoder": 0.5, "decoders": {"colour": 1.0, "grey": 1.0}}
    assert half["predictions"][0]["colour"]["values"]["red"] == 100.0
    assert half["cost"] == {"flops": 900.0, "full_flops": 1400.0, "saved": pytest.approx(1 - 900 / 1400, abs=1e-4)}
    files = {"images": ("a.png", picture((200, 100, 40)))}
    form = {"budget": "0.65", "importance": '{"grey": 0.2}'}
    sent = client.ask("POST", "/predict", files=files, data=form).json()
    assert sent["configuration"] == {"encoder": 0.5, "decoders": {"colour": 1.0, "grey": 0.5}}
    for wrong in ({"budget": 0.1}, {"budget": 0}, {"budget": "much"}, {"importance": {"gray": 1}}, {"importance": {"grey": -1}}):
        check_error(client.predict(body | wrong), 422)
    assert client.predict(body | {"importance": {"grey": 0, "colour": 0}}).status_code == 200


def test_the_description_shows_what_the_page_needs(serve: Serve) -> None:
    table = serve("table").ask("GET", "/model").json()
    assert [item["type"] for item in table["inputs"]] == ["numeric", "categorical", "date", "numeric"]
    assert sorted(table["inputs"][1]["levels"]) == ["Lima", "Oslo", "Rome"]
    assert table["inputs"][2]["typical"].startswith("202")
    assert table["controls"] is None
    assert table["cost"]["shares"] == {"number": 0.5, "third": 0.5, "city class": 0.0}
    controls = serve("controllable").ask("GET", "/model").json()["controls"]
    assert controls["smallest_budget"] == 0.322
    assert controls["shares"][-1] == 1.0


def test_the_schema_is_valid_and_says_what_a_row_needs(serve: Serve) -> None:
    jsonschema_rs = pytest.importorskip("jsonschema_rs")
    schema = serve("table").ask("GET", "/openapi.json").json()
    body = schema["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = jsonschema_rs.validator_for(body)
    assert validator.is_valid({"rows": [ROW]})
    assert not validator.is_valid({"rows": [{"age": 3}]})
    assert not validator.is_valid({"rows": [ROW], "budget": 0.5})
    answer = schema["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    given = serve("table").predict({"rows": [ROW], "probabilities": True}).json()
    assert jsonschema_rs.validator_for(answer).is_valid(given)


def test_pages_load_nothing_from_elsewhere(serve: Serve) -> None:
    client = serve("table")
    for path in ("/", "/docs"):
        page = client.ask("GET", path)
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "http://" not in page.text
        assert "https://" not in page.text
        for name in ("page.css", "shared.js"):
            assert client.ask("GET", f"/assets/{name}").status_code == 200


def test_metrics_can_be_read_by_prometheus(serve: Serve) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    client = serve("table")
    client.predict({"rows": [ROW]})
    client.predict({"rows": []})
    client.ask("GET", "/secret/path")
    families = {family.name: family for family in text_string_to_metric_families(client.ask("GET", "/metrics").text)}
    counted = {
        (s.labels["path"], s.labels["status"]): s.value
        for s in families["graftwork_requests"].samples
        if s.name.endswith("_total")
    }
    assert counted == {("/predict", "200"): 1.0, ("/predict", "422"): 1.0, ("other", "404"): 1.0}
    assert families["graftwork_requests_in_work"].samples[0].value == 0.0
    assert {s.value for s in families["graftwork_batch_rows"].samples if s.name.endswith("_count")} == {1.0}


def test_intervals_around_numbers(tmp_path: Path) -> None:
    run = write_table_run(tmp_path / "run")
    path = run / "model" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    engine = Engine(run, threads=1)
    try:
        client = Client(engine)
        row = client.predict({"rows": [ROW], "interval": 0.9, "tasks": ["number", "city class"]}).json()["predictions"][0]
        assert row["number"]["high"] - row["number"]["value"] == pytest.approx(18.0)
        assert row["number"]["value"] - row["number"]["low"] == pytest.approx(18.0)
        assert "low" not in row["city class"]
        assert "low" not in client.predict({"rows": [ROW]}).json()["predictions"][0]["number"]
        for level in (0, 1, 1.5, "0.9", True):
            fault = check_error(client.predict({"rows": [ROW], "interval": level}), 422)
            assert fault["problems"][0]["field"] == "interval"
        # Each of the tasks must have rows for it.
        config["kept_errors"]["third"] = [[0.5, 1.0, 1.5]]
        path.write_text(json.dumps(config), encoding="utf-8")
        few = Engine(run, threads=1)
        try:
            fault = check_error(Client(few).predict({"rows": [ROW], "interval": 0.9}), 422)
            assert fault["problems"][0]["allowed"].endswith("at most 0.75")
            both = Client(few).predict({"rows": [ROW], "interval": 0.75}).json()["predictions"][0]
            assert both["third"]["high"] - both["third"]["value"] == pytest.approx(1.5)
            classes = Client(few).predict({"rows": [ROW], "interval": 0.75, "tasks": ["city class"]}).json()["predictions"][0]
            assert "low" not in classes["city class"]
        finally:
            few.close()
    finally:
        engine.close()


def test_a_model_without_kept_errors_has_no_intervals(serve: Serve) -> None:
    fault = check_error(serve("text").predict({"texts": ["a day"], "interval": 0.9}), 422)
    assert "leave it out" in fault["problems"][0]["allowed"]
