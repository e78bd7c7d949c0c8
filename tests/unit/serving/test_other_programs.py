"""No picture, whatever it is called, makes reading, predicting or serving start another program."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import pytest
import run_builder
from app_client import Client
from PIL import EpsImagePlugin, Image

from graftwork.core.errors import DataError
from graftwork.data.reading.ingest import open_suite
from graftwork.serving.engine import Engine
from graftwork.serving.predict import Predictor


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Ghostscript that leaves a trace when it is started."""
    found = tmp_path / "started"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {found}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    Image.init()
    return found


@pytest.fixture
def postscript() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "EPS")
    return content.getvalue()


def test_the_trace_would_be_there(trace: Path, postscript: bytes) -> None:
    with pytest.raises(Exception), Image.open(io.BytesIO(postscript)) as picture:  # noqa: B017 (ours draws nothing)
        picture.load()
    assert trace.exists()


def test_postscript_under_the_name_of_a_picture(trace: Path, postscript: bytes, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "labels.csv").write_text("file,kind\n" + "".join(f"p{index}.png,{index % 2}\n" for index in range(20)))
    for index in range(20):
        (pictures / f"p{index}.png").write_bytes(postscript)
    with pytest.raises(DataError, match="20 of 20 pictures cannot be decoded.*a PostScript file"):
        open_suite(pictures, targets="kind", image_size=8)
    folder = run_builder.write_picture_run(tmp_path / "run")
    with pytest.raises(DataError, match="a PostScript file"):
        Predictor(folder).predict([pictures / "p0.png"])
    engine = Engine(folder, threads=1)
    try:
        client = Client(engine)
        answers = [
            client.predict({"images": [base64.b64encode(postscript).decode()]}),
            client.ask("POST", "/predict", files={"images": ("a.png", postscript)}),
        ]
        assert [answer.status_code for answer in answers] == [422, 422]
    finally:
        engine.close()
    assert not trace.exists()
