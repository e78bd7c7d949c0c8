"""Units aligned before a merge and running statistics measured after it, through ``graftwork merge``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from graftwork.cli.main import main
from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.methods.merging.alignment import permuted
from graftwork.methods.merging.neuron_groups import groups_of_network
from graftwork.workflows.merge import merge

COLOUR = TaskSpec(name="colour", kind="multiclass", size=3, classes=("a", "b", "c"))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, rows: Tensor) -> Tensor:
        return self.second(torch.relu(self.norm(self.first(rows))))  # type: ignore[no-any-return]


def build(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


def make_suite() -> Suite:
    numeric = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    return Suite.of_arrays(
        name="colours",
        input_specs=table_input(4),
        tasks=(COLOUR,),
        inputs={"numeric": numeric, "categorical": np.zeros((60, 0), np.int64)},
        targets={"colour": numeric[:, :3].argmax(axis=1).astype(np.int64)},
        splits={"train": np.arange(33), "val": np.arange(33, 45), "test": np.arange(45, 60)},
    )


def models(folder: Path) -> list[Path]:
    """Write a network, and a copy of it with its units in another order."""
    network = build()
    state = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    groups = groups_of_network(network)
    order = {name: np.random.default_rng(1).permutation(size) for name, size in groups.sizes.items()}
    paths = [folder / "a.safetensors", folder / "b.safetensors"]
    save_file(state, paths[0])
    save_file({**state, **permuted(state, groups, order)}, paths[1])
    return paths


@pytest.mark.parametrize("align", [True, [("first", "norm"), ("first", "second")]])
@pytest.mark.parametrize("method", ["averaging", "fisher"])
def test_a_shuffled_copy_is_the_same_model(align: Any, method: str, tmp_path: Path) -> None:
    paths = models(tmp_path)
    call: dict[str, Any] = {"base": None, "models": paths, "method": method}
    if method == "fisher":
        call["settings"] = {"information": "none"}
    report = merge(
        out=tmp_path / "out.safetensors", align=align, network=functools.partial(build) if align is True else None, **call
    )
    first, merged = load_file(paths[0]), load_file(tmp_path / "out.safetensors")
    for name, value in first.items():
        np.testing.assert_allclose(merged[name], value, rtol=1e-6, atol=1e-7)
    assert "aligned 1 layers" in report.notes[0]
    assert "of 8 units changed places" in report.notes[0]
    merge(out=tmp_path / "plain.safetensors", **call)
    assert not np.allclose(load_file(tmp_path / "plain.safetensors")["first.weight"], first["first.weight"])


def test_statistics_are_those_of_the_merged_network(tmp_path: Path) -> None:
    paths = models(tmp_path)
    save_file({**load_file(paths[1]), "first.bias": np.full(8, 3.0, np.float32)}, paths[1])
    suite = make_suite()
    report = merge(None, paths, tmp_path / "out.safetensors", method="averaging", suite=suite, network=build, repair=True)
    merged = load_file(tmp_path / "out.safetensors")
    rows = suite.inputs["numeric"][suite.splits["train"]]
    inner = rows @ merged["first.weight"].T + merged["first.bias"]
    np.testing.assert_allclose(merged["norm.running_mean"], inner.mean(axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(merged["norm.running_var"], inner.var(axis=0, ddof=1), rtol=1e-3)
    assert any("measured running statistics of 1 BatchNorm layers on 33 train rows" in note for note in report.notes)
    assert report.scores[0].after is not None


def test_what_cannot_be_done_is_named(tmp_path: Path) -> None:
    paths = models(tmp_path)
    call: dict[str, Any] = {"base": None, "models": paths, "out": tmp_path / "out.safetensors", "method": "averaging"}
    with pytest.raises(ConfigError, match=r"a.safetensors holds weights only"):
        merge(align=True, **call)
    with pytest.raises(ConfigError, match="There is no layer 'third'"):
        merge(align=[("first", "third")], **call)
    with pytest.raises(ConfigError, match="measured on training rows. Give data with --suite"):
        merge(repair=True, **call)
    plain = [tmp_path / "c.safetensors", tmp_path / "d.safetensors"]
    for seed, path in enumerate(plain):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            save_file({name: value.numpy() for name, value in nn.Linear(4, 3).state_dict().items()}, path)
    line: dict[str, Any] = {**call, "models": plain, "suite": make_suite(), "network": lambda: nn.Linear(4, 3)}
    with pytest.raises(ConfigError, match="has no BatchNorm whose running statistics could be measured"):
        merge(repair=True, **line)
    with pytest.raises(ConfigError, match="No unit of .*c.safetensors can change its place"):
        merge(align=True, **line)


def test_the_command_line_takes_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(path) for path in models(tmp_path)]
    words = ["merge", "--models", *paths, "--method", "averaging", "--out", str(tmp_path / "out.safetensors")]
    assert main([*words, "--align", "first>norm,first>second"]) == 0
    assert "aligned 1 layers" in capsys.readouterr().err
    np.testing.assert_allclose(load_file(tmp_path / "out.safetensors")["first.weight"], load_file(paths[0])["first.weight"])
    assert main([*words, "--align", "first"]) == 2
    assert "--align takes pairs of layers" in capsys.readouterr().err
