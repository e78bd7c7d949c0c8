"""What a merge says of its models before and after, by flags and by YAML: stored types, quantised weights, running statistics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from graftwork.core.errors import DataError
from graftwork.workflows.merge import merge
from graftwork.workflows.merge_report import MergeReport
from graftwork.workflows.mergekit import merge_from_yaml

Way = Callable[[Path], MergeReport]


def by_flags(root: Path) -> MergeReport:
    return merge(None, [root / "a", root / "b"], root / "out.safetensors", method="averaging")


def by_yaml(root: Path) -> MergeReport:
    file = root / "merge.yml"
    models = [{"model": name, "parameters": {"weight": 1}} for name in ("a", "b")]
    file.write_text(json.dumps({"merge_method": "linear", "models": models}))
    return merge_from_yaml(file, root / "out")


both = pytest.mark.parametrize("way", [by_flags, by_yaml])


def put(root: Path, name: str, tensors: dict[str, torch.Tensor], config: dict[str, object] | None = None) -> None:
    (root / name).mkdir()
    save_file(tensors, root / name / "model.safetensors")
    if config is not None:
        (root / name / "config.json").write_text(json.dumps(config))


@both
def test_other_stored_types_are_noted(way: Way, tmp_path: Path) -> None:
    put(tmp_path, "a", {"w": torch.ones(2), "v": torch.ones(2)})
    put(tmp_path, "b", {"w": torch.ones(2).half(), "v": torch.ones(2)})
    notes = [note for note in way(tmp_path).notes if "no config.json" not in note]
    assert len(notes) == 1
    assert "b stores 1 tensors as F16 that are F32 in " in notes[0]
    out = tmp_path / "out" / "model.safetensors" if way is by_yaml else tmp_path / "out.safetensors"
    assert load_file(out)["w"].dtype == torch.float32


@both
@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        ({"l.qweight": torch.ones(2, dtype=torch.int32)}, None, r"b is quantised: it holds l\.qweight"),
        ({"l.weight_scale": torch.ones(2)}, {}, r"it holds l\.weight_scale"),
        ({"l.weight.absmax": torch.ones(2)}, None, r"it holds l\.weight\.absmax"),
        ({}, {"quantization_config": {"quant_method": "fp8"}}, r"its config\.json has a quantization_config \(fp8\)"),
        ({"w": torch.ones(2, dtype=torch.int8)}, None, "holds I8"),
        ({"n": torch.arange(3) + 1}, None, "(holds I64 that differ|integers that differ)"),
    ],
)
def test_quantised_models_are_refused_before_anything_is_written(
    way: Way, tensors: dict[str, torch.Tensor], config: dict[str, object] | None, message: str, tmp_path: Path
) -> None:
    plain = {"w": torch.ones(2), "n": torch.arange(3)}
    put(tmp_path, "a", plain)
    put(tmp_path, "b", {**plain, **tensors}, config)
    with pytest.raises(DataError, match=message):
        way(tmp_path)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.safetensors").exists()


@both
def test_averaged_statistics_of_batch_norm_are_noted_if_they_differ(way: Way, tmp_path: Path) -> None:
    tensors = {f"{layer}.{name}": torch.ones(2) for layer in ("bn1", "bn2") for name in ("weight", "running_mean", "running_var")}
    put(tmp_path, "a", tensors)
    put(tmp_path, "b", {**tensors, "bn1.weight": torch.zeros(2)})
    assert not any("BatchNorm" in note for note in way(tmp_path).notes)
    save_file(
        {**tensors, "bn1.running_mean": torch.zeros(2), "bn1.running_var": torch.zeros(2)}, tmp_path / "b" / "model.safetensors"
    )
    (note,) = [note for note in way(tmp_path).notes if "BatchNorm" in note]
    assert "running statistics of 1 BatchNorm layers are the mean of the models'" in note
    assert "--repair" in note
    if way is by_flags:
        again = merge(None, [tmp_path / "a", tmp_path / "b"], tmp_path / "o.safetensors", method="averaging", buffers="base")
        assert not any("BatchNorm" in note for note in again.notes)


def test_adapters_in_a_yaml_file_are_refused_with_their_line(tmp_path: Path) -> None:
    put(tmp_path, "a", {"w": torch.ones(2)})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "adapter_config.json").write_text("{}")
    with pytest.raises(Exception, match=r"b is a change of a base.*Put its base before it: base\+.*b") as caught:
        by_yaml(tmp_path)
    assert "merge.yml, line 1" in str(caught.value)
    assert np.array_equal(load_file(tmp_path / "a" / "model.safetensors")["w"], [1, 1])
