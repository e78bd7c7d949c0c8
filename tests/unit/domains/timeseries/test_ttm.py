"""TTM forecasts in the user's units, starts from what was trained, and tunes nothing but decoder and heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from graftwork.claims.plan_arms import card_plan
from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import read_json, write_json
from graftwork.core.input_spec import InputSpec, table_input
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.domains.timeseries.ttm import TTM
from graftwork.interfaces.learner import LearnerContext
from graftwork.nn.backbones.scratch import scratch_backbone
from graftwork.nn.backbones.ttm_folder import load_ttm
from graftwork.nn.series_scale import RATES
from graftwork.training.assembly import assemble
from graftwork.training.learner import NeuralLearner
from graftwork.training.model_loading import load_model

LENGTH, HORIZON = 16, 4
SMALL = {"width": 16, "patch": 4, "levels": 2, "layers": 1, "decoder_width": 6, "decoder_layers": 1}


def inputs_of(channels: int, rows: int = 5, *, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "series": torch.randn(rows, LENGTH, channels, generator=generator),
        "series_mask": torch.ones(rows, LENGTH, channels, dtype=torch.bool),
        "series_times": 3600.0 * torch.arange(LENGTH).expand(rows, -1),
    }


def spec_of(channels: int, **sizes: object) -> dict[str, InputSpec]:
    return {"series": InputSpec(kind="series", sizes={"length": LENGTH, "channels": channels, "horizon": HORIZON, **sizes})}


def task_of(channels: int, **fields: object) -> TaskSpec:
    return TaskSpec(name="next", kind="regression", size=channels * HORIZON, **fields)  # type: ignore[arg-type]


def new_model(channels: int, task: TaskSpec | None = None, **settings: object) -> TTM:
    torch.manual_seed(0)
    specs = spec_of(channels)
    tasks, chosen = [task or task_of(channels)], {**SMALL, **settings}
    return TTM(tasks, lambda: scratch_backbone(specs), inputs=specs, **chosen).eval()  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = new_model(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.save_pretrained(tmp_path / "trained")


def tuned(folder: Path, channels: int) -> TTM:
    built = assemble(card_plan("ttm", "ttm-tuned"), [task_of(channels)], spec_of(channels), backbone=f"ttm:{folder}")
    assert isinstance(built.model, TTM)
    return built.model


def make_suite(rows: int = 60, channels: int = 2) -> Suite:
    random = np.random.default_rng(0)
    steps = np.arange(LENGTH + HORIZON) + random.uniform(0, 8, size=(rows, 1))
    waves = np.sin(2 * np.pi * steps / 8)[..., None] * np.array([1.0, 30.0])[:channels] + 5.0
    context, future = waves[:, :LENGTH], waves[:, LENGTH:]
    return Suite.of_arrays(
        name="waves",
        input_specs=spec_of(channels),
        tasks=[task_of(channels)],
        inputs={
            "series": context.astype(np.float32),
            "series_mask": np.ones(context.shape, dtype=bool),
            "series_times": np.tile(3600.0 * np.arange(LENGTH, dtype=np.float32), (rows, 1)),
        },
        targets={"next": np.moveaxis(future, 2, 1).reshape(rows, -1).astype(np.float32)},
        splits={"train": np.arange(40), "val": np.arange(40, 50), "test": np.arange(50, rows)},
    )


def test_each_channel_is_forecast_by_itself_and_in_its_own_units(folder: Path) -> None:
    inputs = inputs_of(3)
    together = tuned(folder, 3).eval()(inputs)["next"].unflatten(1, (3, HORIZON))
    single = tuned(folder, 1).eval()
    for channel in range(3):
        own = {name: tensor[..., channel : channel + 1] if name != "series_times" else tensor for name, tensor in inputs.items()}
        torch.testing.assert_close(single(own)["next"], together[:, channel])
    moved = {**inputs, "series": 40.0 + 7.0 * inputs["series"]}
    torch.testing.assert_close(
        tuned(folder, 3).eval()(moved)["next"].unflatten(1, (3, HORIZON)), 40.0 + 7.0 * together, rtol=1e-3, atol=1e-3
    )


def test_outputs_are_standardised_as_the_task_asks() -> None:
    task = task_of(2, center=tuple(range(8)), scale=tuple(range(1, 9)))
    specs = spec_of(2, center=[10.0, 20.0], scale=[3.0, 4.0])
    torch.manual_seed(0)
    plain = new_model(2)
    model = TTM([task], lambda: plain.backbone, inputs=specs, **SMALL).eval()  # type: ignore[arg-type]
    model.load_state_dict(plain.state_dict())
    arrays = plain(inputs_of(2))["next"].unflatten(1, (2, HORIZON))  # without center and scale: in the units of the arrays
    users = arrays * torch.tensor([3.0, 4.0])[:, None] + torch.tensor([10.0, 20.0])[:, None]
    wanted = (users.flatten(1) - torch.arange(8.0)) / torch.arange(1.0, 9.0)
    torch.testing.assert_close(model(inputs_of(2))["next"], wanted)


def test_the_rate_counts_only_with_the_prefix() -> None:
    inputs = inputs_of(1)
    daily = {**inputs, "series_times": 24.0 * inputs["series_times"]}
    silent = {name: tensor for name, tensor in inputs.items() if name != "series_times"}
    model = new_model(1)
    torch.nn.init.normal_(model.backbone.rate.weight)  # type: ignore[union-attr, arg-type]
    assert not torch.allclose(model(inputs)["next"], model(daily)["next"])
    assert not torch.allclose(model(inputs)["next"], model(silent)["next"])
    assert model.backbone.rate.num_embeddings == len(RATES) + 1  # type: ignore[union-attr]
    plain = new_model(1, prefix=False)
    assert torch.equal(plain(inputs)["next"], plain(silent)["next"])


def test_tuning_starts_from_the_zero_shot_forecast_and_leaves_the_trunk_alone(folder: Path) -> None:
    model, inputs = tuned(folder, 3), inputs_of(3)
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    zero_shot = model.eval()(inputs)["next"]
    assert any(layer.channels is not None for layer in model.decoder.layers)  # type: ignore[union-attr]
    model.train()
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(inputs)["next"].square().mean().backward()
        optimizer.step()
    assert all(parameter.grad is None for parameter in model.backbone.parameters()), "no gradient reaches the frozen trunk"
    for part in (model.decoder, model.heads):
        assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in part.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.backbone.state_dict().items())
    assert not any(module.training for module in model.backbone.modules()), "dropout would blur what the decoder reads"
    assert not torch.allclose(model.eval()(inputs)["next"], zero_shot)


def test_the_trained_folder_gives_the_same_forecasts(folder: Path, tmp_path: Path) -> None:
    model = tuned(folder, 1).eval()
    again = TTM([task_of(1)], lambda: load_ttm(folder, spec_of(1)["series"]), inputs=spec_of(1)).eval()
    torch.testing.assert_close(again(inputs_of(1))["next"], model(inputs_of(1))["next"])
    assert again.settings == {"width": 6, "layers": 1}
    other_horizon = {"series": InputSpec(kind="series", sizes={"length": LENGTH, "channels": 1, "horizon": 2})}
    shorter = TTM([TaskSpec(name="next", kind="regression", size=2)], lambda: load_ttm(folder), inputs=other_horizon)
    torch.testing.assert_close(shorter.decoder.adapter.weight, again.decoder.adapter.weight)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_tuned_model_starts_from_all_trained_weights_whatever_the_dropout(dropout: float, tmp_path: Path) -> None:
    model = new_model(1, dropout=dropout)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    inputs = inputs_of(1)
    again = tuned(model.save_pretrained(tmp_path / "trained"), 1).eval()
    # The plan's own dropout is 0.1: the trained model's wins, since layers without dropout name their weights differently.
    # The weights are equal to the bit; sums may be taken in another order where tensors lie elsewhere in memory.
    torch.testing.assert_close(again(inputs)["next"], model(inputs)["next"], rtol=1e-6, atol=1e-6)


def test_trained_weights_without_a_place_are_refused(folder: Path) -> None:
    trunk = load_ttm(folder)
    tensors = dict(trunk.forecaster["tensors"])
    tensors["decoder.layers.0.patches.mlp.9.weight"] = torch.zeros(1)
    trunk.forecaster = {**trunk.forecaster, "tensors": tensors}
    with pytest.raises(ConfigError, match=r"no place for: decoder\.layers\.0\.patches\.mlp\.9\.weight"):
        TTM([task_of(1)], lambda: trunk, inputs=spec_of(1))


def test_folders_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"holds no TTM"):
        load_ttm(tmp_path)
    with pytest.raises(ConfigError, match="reads 16 steps, but the series of this suite have 20"):
        load_ttm(folder, InputSpec(kind="series", sizes={"length": 20, "channels": 1}))
    config = read_json(folder / "config.json")
    for wrong in (
        {**config, "format": "other"},
        {**config, "backbone": {}},
        {**config, "backbone": {**config["backbone"], "width": "x"}},
    ):
        write_json(folder / "config.json", wrong)
        with pytest.raises(FileFormatError, match="Save the model again"):
            load_ttm(folder)
    write_json(folder / "config.json", {**config, "backbone": {**config["backbone"], "width": 32}})
    with pytest.raises(FileFormatError, match="does not fit its config"):
        load_ttm(folder)
    write_json(folder / "config.json", config)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(FileFormatError, match="does not fit its config"):
        load_ttm(folder)


def test_the_plan_learns_waves_and_is_exported(tmp_path: Path) -> None:
    suite = make_suite()
    plan = card_plan("ttm", "ttm")
    context = LearnerContext(
        plan=plan, suite=suite, seed=0, max_steps=120, cache=tmp_path / "cache", overrides={"learning_rate": 5e-3}
    )
    learner = NeuralLearner(context)
    learner.train(120)
    rows = suite.splits["test"]
    truth = suite.targets["next"][rows]
    error = np.abs(learner.predict(rows)["next"] - truth).mean()
    assert error < 0.3 * np.abs(truth - suite.targets["next"][suite.splits["train"]].mean(axis=0)).mean()
    learner.export(tmp_path / "model")
    assert (tmp_path / "model" / "model.onnx").exists()
    model = load_model(tmp_path / "model")[0]
    found = model({name: torch.from_numpy(array[rows]) for name, array in suite.inputs.items()})["next"]
    spec = suite.tasks[0]
    np.testing.assert_allclose(
        found.detach().numpy() * np.array(spec.scale) + np.array(spec.center), learner.predict(rows)["next"], rtol=1e-3, atol=1e-3
    )


def test_what_it_cannot_read_or_answer_is_refused() -> None:
    with pytest.raises(ConfigError, match="TTM reads one input of the kind 'series'"):
        TTM([task_of(1)], lambda: None, inputs=table_input(3))  # type: ignore[arg-type, return-value]
    steps = TaskSpec(name="fault", kind="binary", size=1, positions="steps")
    with pytest.raises(ConfigError, match="TTM gives one answer a row; fault asks for one for each of its positions"):
        new_model(1, steps)
    with pytest.raises(ConfigError, match="decoder_width and decoder_layers must be at least 1"):
        new_model(1, decoder_layers=0)
    with pytest.raises(ConfigError, match="patches of 32: there must be at least one"):
        new_model(1, patch=32)
    with pytest.raises(ConfigError, match="needs the size 'channels'"):
        short = {"a": InputSpec(kind="series", sizes={"length": 4})}
        TTM([task_of(1)], lambda: None, inputs=short)  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigError, match="train it with mix_channels off"):
        new_model(2, mix_channels=True).save_pretrained("unused")
