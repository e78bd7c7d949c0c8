from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from graftwork.core.input_spec import image_input
from graftwork.core.records import TaskSpec
from graftwork.data.suites.scenes import scenes
from graftwork.export.configurations import BUDGETS, export_configurations, standard_grid
from graftwork.interfaces.learner import LearnerContext
from graftwork.methods.sharing.ecmt import ECMT
from graftwork.serving.controls import find_controls
from graftwork.tasks.decode import decode_output
from graftwork.training.learner import NeuralLearner
from graftwork.training.model_loading import load_model
from graftwork.workflows.portfolio import load_catalogue

TASKS = (TaskSpec(name="edges", kind="dense_binary", size=1), TaskSpec(name="kind", kind="multiclass", size=3))


@pytest.fixture(scope="module")
def model() -> ECMT:
    torch.manual_seed(0)
    return ECMT(TASKS, inputs=image_input(16), channels=(16,) * 4, decoder_width=16, ratios=(0.25, 0.5, 1.0)).eval()


def pictures(count: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"image": torch.randint(0, 256, (count, 16, 16, 3), dtype=torch.uint8, generator=generator)}


def test_the_grid_holds_every_budget_and_lean_once(model: ECMT) -> None:
    grid = standard_grid(model)
    assert grid[0] == model.full
    assert len({configuration.key() for configuration in grid}) == len(grid)
    least = model.flops(model.uniform(0.25)) / model.flops(model.full)
    for budget in BUDGETS:
        if budget >= least:
            for importance in (None, {"edges": 4.0}, {"kind": 4.0}):
                assert model.choose(budget=budget, importance=importance) in grid


def test_every_file_computes_its_configuration(model: ECMT, tmp_path: Path) -> None:
    grid = [model.uniform(0.25), model.choose(budget=0.5, importance={"kind": 3.0})]
    entries = export_configurations(model, TASKS, pictures(4), tmp_path, grid)
    assert len(entries) == 3, "the full network is always in"
    assert json.loads((tmp_path / "controls.json").read_text())["configurations"] == entries
    feed = pictures(5)
    for entry, configuration in zip(entries, [model.full, *grid], strict=True):
        assert entry["encoder"] == configuration.encoder
        assert entry["decoders"] == dict(configuration.decoders)
        assert entry["flops"] == model.flops(configuration)
        network = model.slice(configuration)
        assert entry["parameters"] == sum(parameter.numel() for parameter in network.parameters())
        session = onnxruntime.InferenceSession(tmp_path / entry["file"])
        outputs = session.run(["edges", "kind"], {"image": feed["image"].numpy()})
        with torch.no_grad():
            wanted = network(feed)
        for task, output in zip(TASKS, outputs, strict=True):
            np.testing.assert_allclose(output, decode_output(task, wanted[task.name]).numpy(), atol=1e-5)


def test_the_full_graph_is_not_written_twice_and_serving_reads_the_index(model: ECMT, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"the graph of the full network")
    entries = export_configurations(model, TASKS, pictures(4), tmp_path, [model.uniform(0.25)])
    assert entries[0]["file"] == "model.onnx"
    assert (tmp_path / "model.onnx").read_bytes() == b"the graph of the full network"
    controls = find_controls(tmp_path / "model.onnx")
    assert controls is not None
    small = controls.choose(budget=0.5)
    assert small.encoder == 0.25
    assert small.file.is_file()
    assert controls.choose(budget=1.0).file.name == "model.onnx"


def learner_of(cache: Path) -> NeuralLearner:
    suite = scenes(num_train=24, num_val=8, num_test=4, size=16, tasks=("depth", "main_body"))
    plan = load_catalogue()["ecmt"].plan
    return NeuralLearner(LearnerContext(suite=suite, plan=plan, cache=cache, seed=0, max_steps=6, overrides={"batch_size": 8}))


def test_the_plan_of_the_card_trains_resumes_and_is_exported_with_its_configurations(tmp_path: Path) -> None:
    whole, first, second = (learner_of(tmp_path / "cache") for _ in range(3))
    whole.train(6)
    first.train(4)
    first.save(tmp_path / "checkpoint")
    second.load(tmp_path / "checkpoint")
    second.train(6)
    state = whole.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in second.model.state_dict().items())
    best = whole.best_model
    assert isinstance(best, ECMT)
    best.configure(budget=0.4)
    whole.export(tmp_path / "model")
    loaded, tasks, _ = load_model(tmp_path / "model")
    assert isinstance(loaded, ECMT)
    assert loaded.configuration == loaded.full
    controls = find_controls(tmp_path / "model" / "model.onnx")
    assert controls is not None
    session = onnxruntime.InferenceSession(tmp_path / "model" / "model.onnx")
    feed = pictures(2)
    outputs = session.run([task.name for task in tasks], {"image": feed["image"].numpy()})
    with torch.no_grad():
        wanted = loaded(feed)  # the full network, although another configuration was set when it was exported
    for task, output in zip(tasks, outputs, strict=True):
        np.testing.assert_allclose(output, decode_output(task, wanted[task.name]).numpy(), atol=1e-3)
    assert controls.choose(budget=0.5).flops <= 0.5 * loaded.flops(loaded.full)
