"""What a server says about the costs of a model whose experts are routed by task."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
import run_builder
import torch
from PIL import Image
from starlette.testclient import TestClient

from graftwork.core.input_spec import image_input
from graftwork.core.records import TaskSpec
from graftwork.export.onnx_model import export_onnx
from graftwork.methods.sharing.m3vit import M3ViT
from graftwork.serving.app import create_app
from graftwork.serving.engine import Engine


def test_a_task_of_a_mixture_of_experts_is_charged_for_its_experts_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tasks = tuple(TaskSpec(name=name, kind="regression", size=1, center=(0.0,), scale=(1.0,)) for name in "abcd")
    model = M3ViT(tasks, None, inputs=image_input(8), num_experts=8, top_k=2, width=64, depth=2, head_hidden=0).eval()
    inputs = {"image": torch.randint(0, 256, (3, 8, 8, 3), dtype=torch.uint8)}
    run_builder.describe(tmp_path, {"kind": "image", "size": 8}, tasks)
    export_onnx(model, tasks, inputs, tmp_path / "model.onnx")
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(picture, "PNG")
    body = {"images": [base64.b64encode(picture.getvalue()).decode()], "tasks": ["b"]}
    engine = Engine(tmp_path, threads=1)
    try:
        client = TestClient(create_app(engine))
        answer = client.post("/predict", json=body).json()["cost"]
        text = client.get("/metrics").text
    finally:
        engine.close()
    # FLOPs of 64 tokens: two a weight, of patches, keys and so on of attention, and both halves of attention itself
    attention = 64 * 2 * (4 * 64 * 64 + 2 * 64 * 64)
    before = 64 * 2 * 3 * 64 + attention + 64 * 2 * (2 * 64 * 128)
    routed = 64 * 2 * (64 * 8 + 2 * (2 * 64 * 64)) + 2 * 128  # router, two of eight experts, head on mean and maximum
    assert answer["flops"] == before + attention + routed
    # The exporter writes once for all tasks what of the second attention no router changes.
    assert before + attention + 4 * routed <= answer["full_flops"] <= before + 4 * (attention + routed)
    assert answer["saved"] == pytest.approx(1 - answer["flops"] / answer["full_flops"], abs=1e-4)
    assert 0.3 < answer["saved"] < 0.6
    metrics = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    assert float(metrics["graftwork_saved_flops_total"]) == answer["full_flops"] - answer["flops"]
    assert float(metrics['graftwork_task_flops_share{task="b"}']) == answer["flops"] / answer["full_flops"]
