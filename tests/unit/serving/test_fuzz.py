"""Requests made from the schema, valid and invalid: valid ones are answered, invalid ones refused as the schema says, and
nothing is a 500."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import run_builder
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from graftwork.serving.app import create_app
from graftwork.serving.engine import Engine
from graftwork.serving.limits import ServeLimits

schemathesis = pytest.importorskip("schemathesis", reason="fuzzing the server needs: pip install schemathesis")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EXAMPLES = {"valid": 25, "invalid": 35}
PHASES = (Phase.explicit, Phase.generate)
"""No shrinking: a failing request is printed, and tests stay short."""
KINDS = ("table", "text", "picture", "controllable")


@st.composite
def picture_bytes(draw: Any) -> bytes:
    size = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    mode = draw(st.sampled_from(["RGB", "L", "RGBA", "1"]))
    file = io.BytesIO()
    Image.new(mode, size).save(file, draw(st.sampled_from(["PNG", "TIFF"] if mode == "RGBA" else ["PNG", "BMP", "TIFF"])))
    return file.getvalue()


schemathesis.openapi.format("picture-base64", picture_bytes().map(lambda content: base64.b64encode(content).decode()))
schemathesis.openapi.format("binary", picture_bytes())
schemathesis.openapi.format("number", st.floats(-1e300, 1e300).map(str) | st.sampled_from(["", "?", "-", "n/a", " 7 "]))
schemathesis.openapi.format("importance-json", st.sampled_from(["{}", '{"colour": 0.5}', '{"grey": 0, "colour": 0}']))


@pytest.fixture(scope="module", params=KINDS)
def application(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder: Path = getattr(run_builder, f"write_{request.param}_run")(tmp_path_factory.mktemp("fuzz"))
    engine = Engine(folder, limits=ServeLimits(max_wait_ms=0, max_rows=20, max_body_bytes=200_000), threads=1)
    yield create_app(engine)
    engine.close()


@pytest.mark.parametrize("mode", ["valid", "invalid"])
def test_the_server_does_what_its_schema_says(application: Any, mode: str) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", application)
    chosen = schemathesis.GenerationMode.POSITIVE if mode == "valid" else schemathesis.GenerationMode.NEGATIVE
    seen: list[int] = []
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES[mode], deadline=None, suppress_health_check=list(HealthCheck), database=None, phases=PHASES
        )
        @given(case=operation.as_strategy(generation_mode=chosen))
        def check(case: Any) -> None:
            response = case.call()
            assert response.status_code < 500, response.text[:500]
            if response.status_code == 413:  # schemathesis does not know that a text can be too long for the body as well
                assert set(response.json()) == {"error", "problems"}
            else:
                case.validate_response(response)
            if case.path == "/predict":
                seen.append(response.status_code)

        if mode == "valid" or operation.path == "/predict":
            check()
    assert len(seen) >= 10
    if mode == "valid":
        assert set(seen) == {200}
    else:
        assert 422 in seen
        assert 200 not in seen
