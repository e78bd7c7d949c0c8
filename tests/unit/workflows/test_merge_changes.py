"""Adapters and deltas as models of a merge, and merged with each other: the numbers of peft, and of merging the folded models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from graftwork.cli.main import main
from graftwork.core.errors import ConfigError, DataError, FileFormatError
from graftwork.core.files import hash_file
from graftwork.core.tensor_files import TensorFile
from graftwork.math.fingerprint import tensor_prints
from graftwork.methods.tuning.peft_delta import delta_from_peft
from graftwork.nn import delta_file
from graftwork.nn.weight_delta import Dense, LowRank, WeightDelta
from graftwork.training import tuned_folder
from graftwork.workflows import merge_changes
from graftwork.workflows.merge import merge
from graftwork.workflows.merge_folder import MERGE_KIND
from graftwork.workflows.merge_naming import stored_print

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
IDS = torch.arange(12).reshape(2, 6)
ADAPTERS: dict[str, dict[str, Any]] = {
    "one": {"r": 2, "lora_alpha": 8, "target_modules": ["query", "value"]},
    "two": {"r": 3, "lora_alpha": 3, "target_modules": ["query", "value"], "use_rslora": True},
}


def tiny() -> nn.Module:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.BertConfig(vocab_size=20, max_position_embeddings=8, **sizes)
    return transformers.BertModel(config, add_pooling_layer=False).eval()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, two adapters of peft, and the models with the adapters folded in."""
    root = tmp_path_factory.mktemp("world")
    tiny().save_pretrained(root / "base")
    for number, (name, settings) in enumerate(ADAPTERS.items()):
        torch.manual_seed(number + 1)
        model = peft.get_peft_model(tiny(), peft.LoraConfig(init_lora_weights=False, **settings))
        model.save_pretrained(root / name)
        model.merge_and_unload().save_pretrained(root / f"{name}-folded")
    return root


def weights_of(model: Path) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in load_file(model).items()}


def answers(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).last_hidden_state  # type: ignore[no-any-return]


def loaded(folder: Path) -> nn.Module:
    return peft.PeftModel.from_pretrained(tiny(), folder).eval()  # type: ignore[no-any-return]


def together(world: Path, **options: Any) -> torch.Tensor:
    """Return the answers of peft's own combination of the two adapters."""
    model = peft.PeftModel.from_pretrained(tiny(), world / "one", adapter_name="one")
    model.load_adapter(world / "two", adapter_name="two")
    model.add_weighted_adapter(["one", "two"], adapter_name="both", **options)
    model.set_adapter("both")
    return answers(model.eval())


@pytest.mark.parametrize("method", ["averaging", "task-arithmetic", "ties", "slerp", "dare", "breadcrumbs", "karcher", "della"])
def test_with_a_base_it_is_the_merge_of_the_folded_models(method: str, world: Path, tmp_path: Path) -> None:
    settings = {"t": 0.3} if method == "slerp" else {}
    names = [world / "one", world / "two"]
    merge(world / "base", names, tmp_path / "a.safetensors", method=method, settings=settings)
    merge(world / "base", [f"{name}-folded" for name in names], tmp_path / "b.safetensors", method=method, settings=settings)
    merge(world / "base", [names[0], f"{names[1]}-folded"], tmp_path / "c.safetensors", method=method, settings=settings)
    first, second, mixed = (weights_of(tmp_path / f"{name}.safetensors") for name in "abc")
    base = weights_of(world / "base" / "model.safetensors")
    assert first.keys() == second.keys() == base.keys()
    assert any(np.abs(first[name] - base[name]).max() > 0.01 for name in base)
    for name in base:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-4, atol=2e-6, err_msg=name)
        np.testing.assert_allclose(mixed[name], second[name], rtol=1e-4, atol=2e-6, err_msg=name)


def test_the_lineage_has_the_hashes_of_the_adapters(world: Path, tmp_path: Path) -> None:
    assert main(["merge", "--base", str(world / "base"), "--models", str(world / "one"), str(world / "two"), "--method", "averaging",
                 "--out", str(tmp_path / "m.safetensors"), "--quiet"]) == 0  # fmt: skip
    found = json.loads(TensorFile(tmp_path / "m.safetensors").metadata["inputs_sha256"])
    for name in ("one", "two"):
        for file in ("adapter_model.safetensors", "adapter_config.json"):
            assert found[f"{name}/{file}"] == hash_file(world / name / file)
    assert "base/model.safetensors" in found
    merge(world / "base", [world / "one" / "adapter_model.safetensors"], tmp_path / "n.safetensors", method="averaging")
    again = json.loads(TensorFile(tmp_path / "n.safetensors").metadata["inputs_sha256"])
    assert hash_file(world / "one" / "adapter_config.json") in again.values()


@pytest.mark.parametrize("weights", [None, [0.5, 2.0]])
def test_cat_of_peft_is_task_arithmetic_over_adapters(weights: list[float] | None, world: Path, tmp_path: Path) -> None:
    merge(None, [world / "one", world / "two"], tmp_path / "both", scaling=1.0, weights=weights)
    expected = together(world, weights=weights or [1.0, 1.0], combination_type="cat")
    torch.testing.assert_close(answers(loaded(tmp_path / "both")), expected, rtol=1e-4, atol=1e-5)
    assert json.loads((tmp_path / "both" / "adapter_config.json").read_text())["r"] == 5


def test_linear_of_peft_is_ours_for_one_adapter_only(world: Path, tmp_path: Path) -> None:
    # peft sums A and B apart: (sum_i sqrt(w_i) A_i)(sum_i sqrt(w_i) B_i) has terms A_1 B_2. With one adapter there are none.
    model = peft.PeftModel.from_pretrained(tiny(), world / "one", adapter_name="one")
    model.add_weighted_adapter(["one"], [0.7], "scaled", combination_type="linear")
    model.set_adapter("scaled")
    merge(None, [world / "one"], tmp_path / "scaled", scaling=0.7)
    torch.testing.assert_close(answers(loaded(tmp_path / "scaled")), answers(model.eval()), rtol=1e-4, atol=1e-5)


def test_svd_of_peft_is_a_sum_of_lower_rank(world: Path, tmp_path: Path) -> None:
    report = merge(None, [world / "one", world / "two"], tmp_path / "both", scaling=1.0, weights=[1.0, 0.5], rank=2)
    expected = together(world, weights=[1.0, 0.5], combination_type="svd", svd_rank=2)
    torch.testing.assert_close(answers(loaded(tmp_path / "both")), expected, rtol=1e-3, atol=1e-4)
    (note,) = report.notes
    parts = [delta_from_peft(world / name) for name in ("one", "two")]
    kept, lost, whole = delta_from_peft(tmp_path / "both"), 0.0, 0.0
    for name in parts[0].names():
        change = parts[0].tensor(name) + 0.5 * parts[1].tensor(name)
        lost += float((change - kept.tensor(name)).square().sum())
        whole += float(change.square().sum())
    assert f"rank 2 leaves a relative error of {(lost / whole) ** 0.5:.2%}" in note


@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.7, 0.3]])
def test_ties_svd_of_peft(weights: list[float], world: Path, tmp_path: Path) -> None:
    """Signs are elected before changes are weighed: weights that differ tell this from `elect=weighted`."""
    call = {"method": "ties", "density": 0.4, "weights": weights, "settings": {"trim": "per-tensor"}}
    report = merge(None, [world / "one", world / "two"], tmp_path / "both", **call)
    assert "rank 3 leaves a relative error" in report.notes[0]
    expected = together(world, weights=weights, combination_type="ties_svd", density=0.4, svd_rank=3)
    torch.testing.assert_close(answers(loaded(tmp_path / "both")), expected, rtol=2e-3, atol=2e-4)


def test_nan_in_an_adapter_is_named(world: Path, tmp_path: Path) -> None:
    """A linear method writes sums of factors, at whose values nothing else looks; others need an approximation, of NaN there is none."""
    shutil.copytree(world / "one", tmp_path / "one")
    tensors = load_file(tmp_path / "one" / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, tmp_path / "one" / "adapter_model.safetensors")
    models = [tmp_path / "one", world / "two"]
    for method, out in (("averaging", "both"), ("averaging", "both.safetensors"), ("ties", "ties.safetensors")):
        report = merge(None, models, tmp_path / out, method=method)
        assert len(report.not_finite) == 1
        assert report.not_finite[0].endswith(f"(from {tmp_path / 'one'})")
        assert not any("nan" in note for note in report.notes)
    for call in ({"method": "ties"}, {"method": "averaging", "rank": 1}):
        with pytest.raises(DataError, match="holds NaN or infinity, so it has no best approximation of low rank"):
            merge(None, models, tmp_path / "low", **call)
    assert not (tmp_path / "low" / "adapter_model.safetensors").exists()
    assert not merge(None, [world / "one", world / "two"], tmp_path / "fine", method="averaging").not_finite


def test_a_delta_file_holds_the_whole_change(world: Path, tmp_path: Path) -> None:
    models = [world / "one", world / "two"]
    settings = {"density": 0.4, "settings": {"trim": "per-tensor"}}
    merge(None, models, tmp_path / "ties.safetensors", method="ties", **settings)
    merge(world / "base", models, tmp_path / "whole.safetensors", method="ties", **settings)
    delta = WeightDelta.load(tmp_path / "ties.safetensors")
    base, whole = load_file(world / "base" / "model.safetensors"), load_file(tmp_path / "whole.safetensors")
    assert {type(part) for part in delta.parts.values()} == {Dense}
    for name in delta.names():
        torch.testing.assert_close(base[name] + delta.tensor(name), whole[name], rtol=1e-4, atol=1e-6)
    # A mean keeps factors, also in a file; a delta is a model of a merge again.
    merge(None, models, tmp_path / "mean.safetensors", method="averaging", weights=[1.0, 3.0])
    mean = WeightDelta.load(tmp_path / "mean.safetensors")
    assert {type(part) for part in mean.parts.values()} == {LowRank}
    one, two = map(delta_from_peft, models)
    for name in mean.names():
        torch.testing.assert_close(mean.tensor(name), 0.25 * one.tensor(name) + 0.75 * two.tensor(name))
    merge(world / "base", [tmp_path / "mean.safetensors"], tmp_path / "m.safetensors", method="averaging")
    torch.testing.assert_close(load_file(tmp_path / "m.safetensors")[name], base[name] + mean.tensor(name))
    metadata = TensorFile(tmp_path / "mean.safetensors").metadata
    assert json.loads(metadata["inputs_sha256"])["one/adapter_model.safetensors"] == hash_file(
        models[0] / "adapter_model.safetensors"
    )


def test_a_pickled_adapter_is_told_how_to_save_it(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "one", tmp_path / "one")
    (tmp_path / "one" / "adapter_model.safetensors").rename(tmp_path / "one" / "adapter_model.bin")
    with pytest.raises(FileFormatError, match="adapter_model.bin is pickled and was not opened.*safe_serialization=True"):
        merge(None, [tmp_path / "one", world / "two"], tmp_path / "both")


def test_an_adapter_folder_is_written_as_a_merge(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "merge",
        "--models",
        str(world / "one"),
        str(world / "two"),
        "--method",
        "ties",
        "--rank",
        "2",
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(words) == 0
    assert "note: rank 2 leaves a relative error of" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "o").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", MERGE_KIND.marker
    }  # fmt: skip
    assert main([*words, "--quiet"]) == 0  # ours, so it is replaced
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "adapter_model.safetensors").write_text("theirs")
    assert main([*words[:-1], str(tmp_path / "theirs")]) == 2
    assert (tmp_path / "theirs" / "adapter_model.safetensors").read_text() == "theirs"
    assert main([*words[:-1], str(world / "one")]) == 2


def renamed(world: Path, folder: Path, change: Any) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes((world / "one" / "adapter_config.json").read_bytes())
    tensors = load_file(world / "one" / "adapter_model.safetensors")
    save_file({change(name): tensor for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    return folder


def test_one_prefix_more_or_less_is_found(world: Path, tmp_path: Path) -> None:
    base = load_file(world / "base" / "model.safetensors")
    merge(world / "base", [world / "one"], tmp_path / "plain.safetensors", method="averaging")
    expected = load_file(tmp_path / "plain.safetensors")
    more = renamed(world, tmp_path / "more", lambda name: name.replace("base_model.model.", "base_model.model.bert."))
    report = merge(world / "base", [more], tmp_path / "more.safetensors", method="averaging")
    assert report.notes == (f"{more}: 'bert.' is left out of its names.",)
    found = load_file(tmp_path / "more.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    save_file({f"net.{name}": tensor for name, tensor in base.items()}, tmp_path / "net.safetensors")
    report = merge(tmp_path / "net.safetensors", [world / "one"], tmp_path / "less.safetensors", method="averaging")
    assert report.notes == (f"{world / 'one'}: 'net.' put before its names.",)
    assert (
        torch.equal(load_file(tmp_path / "less.safetensors")[f"net.{name}"], expected[name])
        if (name := next(iter(expected)))
        else 0
    )
    with pytest.raises(DataError, match=r"bert\..*begin differently. Name the base with --base"):
        merge(None, [world / "one", more], tmp_path / "x.safetensors", method="averaging")
    two = {f"{tower}.{name}": tensor.clone() for name, tensor in base.items() for tower in ("text", "image")}
    save_file(two, tmp_path / "towers.safetensors")
    with pytest.raises(DataError, match=r"could be any of '(text|image)\.encoder.*'(text|image)\.encoder"):
        merge(tmp_path / "towers.safetensors", [world / "one"], tmp_path / "x.safetensors", method="averaging")
    save_file({f"text.{name}": tensor for name, tensor in base.items()}, tmp_path / "text.safetensors")
    # Without prints nothing would say that one tower is not the other.
    with pytest.raises(DataError, match=r"4 of the 4 tensors that it changes are not there.*bert\.encoder"):
        merge(tmp_path / "text.safetensors", [more], tmp_path / "x.safetensors", method="averaging")


def test_a_delta_of_another_base_is_refused_by_its_tensors(world: Path, tmp_path: Path) -> None:
    base = load_file(world / "base" / "model.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"
    tuned = {**base, name: base[name] + 1}
    delta = WeightDelta.between({f"model.{key}": t for key, t in base.items()}, {f"model.{key}": t for key, t in tuned.items()})
    delta.save(tmp_path / "d.safetensors")
    merge(world / "base", [tmp_path / "d.safetensors"], tmp_path / "m.safetensors", method="averaging")
    assert torch.equal(load_file(tmp_path / "m.safetensors")[name], tuned[name])
    # With prints a prefix may also be exchanged.
    save_file({f"bert.{key}": tensor for key, tensor in base.items()}, tmp_path / "bert.safetensors")
    merge(tmp_path / "bert.safetensors", [tmp_path / "d.safetensors"], tmp_path / "m.safetensors", method="averaging")
    assert torch.equal(load_file(tmp_path / "m.safetensors")[f"bert.{name}"], tuned[name])
    other = "embeddings.word_embeddings.weight"
    save_file({**base, other: base[other] + 1}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=rf"tuned from another base: 1 of {len(base)} tensors have other values.*{other}"):
        merge(tmp_path / "other.safetensors", [tmp_path / "d.safetensors"], tmp_path / "x.safetensors", method="averaging")


def test_prints_are_those_of_torch(tmp_path: Path) -> None:
    tensors = {
        "f": torch.randn(3, 4), "b": torch.randn(5).bfloat16(), "h": torch.randn(2, 2).half(), "i": torch.arange(3), "n": torch.tensor(4),
        "t": torch.tensor([True, False]), "d": torch.randn(2).double(), "e": torch.zeros(0, 3),
    }  # fmt: skip
    save_file(tensors, tmp_path / "t.safetensors")
    source = TensorFile(tmp_path / "t.safetensors")
    assert {name: stored_print(source, name) for name in source} == tensor_prints(tensors)


def halves(world: Path, root: Path) -> Iterator[tuple[list[Path], Path | None, str]]:
    alone = root / "alone"
    alone.mkdir()
    (alone / "adapter_model.safetensors").write_bytes((world / "one" / "adapter_model.safetensors").read_bytes())
    yield [alone], world / "base", r"adapter_config\.json is missing"
    (root / "any.safetensors").write_bytes((world / "one" / "adapter_model.safetensors").read_bytes())
    yield [root / "any.safetensors"], world / "base", r"without the adapter_config\.json"
    yield [world / "one", world / "two-folded"], None, "one is a change of a base and no whole model.*--base"
    yield [world / "two-folded"], world / "one", "Give the model that it was tuned from with --base"
    both = root / "both"
    both.mkdir()
    for name in ("base/model.safetensors", "one/adapter_model.safetensors", "one/adapter_config.json"):
        (both / name.rpartition("/")[2]).write_bytes((world / name).read_bytes())
    yield [both], world / "base", "holds a model and an adapter"


def test_half_an_adapter_is_refused_by_name(world: Path, tmp_path: Path) -> None:
    for models, base, message in halves(world, tmp_path):
        with pytest.raises((ConfigError, FileFormatError), match=message):
            merge(base, models, tmp_path / "x.safetensors", method="averaging")
    with pytest.raises(ConfigError, match="--repair needs whole models"):
        merge(None, [world / "one"], tmp_path / "x", repair=True)
    with pytest.raises(ConfigError, match="--rank belongs to adapters that are merged"):
        merge(world / "base", [world / "one"], tmp_path / "x.safetensors", rank=2)
    with pytest.raises(ConfigError, match="a delta file keeps the whole change"):
        merge(None, [world / "one"], tmp_path / "x.safetensors", rank=2)
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "x.safetensors").exists()


def test_what_an_adapter_folder_cannot_hold_is_said(tmp_path: Path) -> None:
    shape = torch.Size([4])
    WeightDelta({"a.bias": Dense(torch.ones(4))}, {"a.bias": shape}).save(tmp_path / "d.safetensors")
    with pytest.raises(ConfigError, match="None of these changes is low rank.*--rank"):
        merge(None, [tmp_path / "d.safetensors"], tmp_path / "x")
    with pytest.raises(ConfigError, match=r"'a\.bias' has one dimension.*Write a delta file"):
        merge(None, [tmp_path / "d.safetensors"], tmp_path / "x", rank=1)
    assert not (tmp_path / "x").exists()
    merge(None, [tmp_path / "d.safetensors"], tmp_path / "sum.safetensors", scaling=3.0)
    assert WeightDelta.load(tmp_path / "sum.safetensors").tensor("a.bias").tolist() == [3.0] * 4


def test_a_small_change_of_a_bfloat16_base_is_not_rounded_away(tmp_path: Path) -> None:
    save_file({"w.weight": torch.ones(4, 4, dtype=torch.bfloat16)}, tmp_path / "base.safetensors")
    part = LowRank(torch.full((1, 4), 1.0), torch.full((4, 1), 0.001))
    WeightDelta({"w.weight": part}, {"w.weight": torch.Size([4, 4])}).save(tmp_path / "d.safetensors")
    merge(tmp_path / "base.safetensors", [tmp_path / "d.safetensors"] * 8, tmp_path / "m.safetensors", scaling=1.0)
    merged = load_file(tmp_path / "m.safetensors")["w.weight"]
    assert merged.dtype == torch.bfloat16
    assert merged.unique().tolist() == [1.0078125]


def test_formats_are_called_as_their_writers_call_them() -> None:
    assert merge_changes.DELTA_FORMAT == delta_file.FORMAT
    assert merge_changes.TUNED_FORMAT == tuned_folder.FORMAT
