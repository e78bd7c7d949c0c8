from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from run_builder import write_picture_run, write_table_run

from graftwork.cli.main import main
from graftwork.core.errors import ConfigError, DataError, FileFormatError
from graftwork.serving.delta_engine import DeltaEngine
from graftwork.serving.predict import Predictor
from graftwork.tasks.decode import decode_output


@pytest.fixture
def predictor(run_folder: Path) -> Predictor:
    return Predictor(run_folder, threads=1)


def test_predictions_equal_the_model_decoded_in_torch(predictor, table_model, frame) -> None:
    model, encoder = table_model
    inputs = {name: torch.from_numpy(value) for name, value in encoder.transform(frame).items()}
    with torch.no_grad():
        outputs = model(inputs)
    got = predictor.predict_arrays(frame)
    for task in predictor.tasks:
        expected = decode_output(task, outputs[task.name]).numpy()
        assert got[task.name].shape == expected.shape
        assert_allclose(got[task.name], expected, rtol=1e-5, atol=1e-4 * max(task.scale, default=1.0))


def test_columns_of_every_kind(predictor, frame) -> None:
    table = predictor.predict(frame)
    assert list(table.columns) == [
        "churn", "churn_probability", "plan", "plan_probability", "mood", "mood_probability", "tags[a]", "tags[b]", "spend",
        "colour[red]", "colour[green]",
    ]  # fmt: skip
    assert set(table["churn"]) <= {"no", "yes"}
    assert table["churn_probability"].between(0.5, 1.0).all()
    assert table["plan_probability"].between(1 / 3, 1.0).all()
    assert table["spend"].between(500, 3500).all()
    assert table.index.equals(frame.index)


def test_probabilities_of_all_classes_sum_to_one(predictor, frame) -> None:
    table = predictor.predict(frame, tasks=["plan", "churn"], probabilities=True)
    assert list(table.columns[-3:]) == ["plan[basic]", "plan[plus]", "plan[pro]"]
    assert_allclose(table[["plan[basic]", "plan[plus]", "plan[pro]"]].sum(axis=1), 1.0, rtol=1e-5)
    assert_allclose(table[["churn[no]", "churn[yes]"]].max(axis=1), table["churn_probability"])


def test_small_batches_change_nothing(run_folder, frame) -> None:
    whole, sliced = Predictor(run_folder, threads=1), Predictor(run_folder, threads=1, batch_size=7)
    pd.testing.assert_frame_equal(whole.predict(frame), sliced.predict(frame), rtol=1e-5)
    inputs = whole.encoder.transform(frame)
    for name, values in whole.run_arrays(inputs).items():
        assert_allclose(sliced.run_arrays(inputs)[name], values, rtol=1e-5)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_files_give_the_same_as_the_frame(predictor, frame, tmp_path, ending) -> None:
    path = tmp_path / f"rows.{ending}"
    if ending == "csv":
        frame.to_csv(path, index=False)
    elif ending == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True, double_precision=15)
    from_file = predictor.predict(path)
    assert from_file.index.name == "row"
    assert_allclose(from_file["spend"], predictor.predict(frame)["spend"], rtol=1e-5)


def _nodes_run(folder: Path, prefix: Path, tasks: list[str] | None, frame: pd.DataFrame) -> list[str]:
    """Names of the graph nodes that ONNX Runtime really ran, from its own profile."""
    from graftwork.serving.session import OnnxModel

    predictor = Predictor(folder, threads=1)
    predictor.model = OnnxModel(folder / "model.onnx", threads=1, profile_prefix=str(prefix))
    predictor.predict(frame, tasks=tasks)
    names = tasks or [task.name for task in predictor.tasks]
    events = json.loads(Path(predictor.model.session(names).end_profiling()).read_text())
    return [event["name"] for event in events if event.get("cat") == "Node" and event["name"].endswith("kernel_time")]


def test_heads_that_are_not_asked_do_not_run(run_folder, frame, tmp_path) -> None:
    every = _nodes_run(run_folder, tmp_path / "all", None, frame)
    one = _nodes_run(run_folder, tmp_path / "one", ["churn"], frame)
    assert any("heads.0" in name for name in one)
    assert not any(f"heads.{index}" in name for name in one for index in range(1, 6))
    assert all(any(f"heads.{index}" in name for name in every) for index in range(6))
    assert len(one) < len(every) / 2


def test_some_tasks_give_the_same_numbers_as_all(predictor, frame) -> None:
    every = predictor.predict(frame)
    some = predictor.predict(frame, tasks=["spend", "plan"])
    assert list(some.columns) == ["plan", "plan_probability", "spend"]
    assert (some["plan"] == every["plan"]).all()
    assert_allclose(some["spend"], every["spend"], rtol=1e-5)


def test_without_the_onnx_package_the_numbers_are_the_same(run_folder, frame, monkeypatch) -> None:
    expected = Predictor(run_folder, threads=1).predict(frame, tasks=["spend"])
    monkeypatch.setattr("graftwork.serving.session.has", lambda _: False)
    pd.testing.assert_frame_equal(Predictor(run_folder, threads=1).predict(frame, tasks=["spend"]), expected, rtol=1e-5)


def test_unknown_task_names_the_nearest(predictor, frame) -> None:
    with pytest.raises(ConfigError, match=r"no task 'chrun'. Did you mean 'churn'\?.*churn, plan, mood"):
        predictor.predict(frame, tasks=["chrun"])
    with pytest.raises(ConfigError, match="No task is named"):
        predictor.predict(frame, tasks=[])


def test_missing_columns_are_all_named(predictor, frame) -> None:
    with pytest.raises(DataError, match=r"(?s)'age'.*'city'"):
        predictor.predict(frame[["income"]])


def test_sources_that_do_not_fit(predictor, tmp_path) -> None:
    with pytest.raises(DataError, match="is a folder, but this run was trained on the rows of a table"):
        predictor.predict(tmp_path)
    with pytest.raises(DataError, match="got list"):
        predictor.predict(["a text"])
    with pytest.raises(DataError, match="no rows to predict"):
        predictor.predict(pd.DataFrame({"age": [], "income": [], "city": []}))
    with pytest.raises(ConfigError, match="batch_size"):
        Predictor(tmp_path, batch_size=0)


def _ways_to(path: Path, tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "symbolic.csv").symlink_to(path)
    (tmp_path / "hard.csv").hardlink_to(path)
    (tmp_path / "folder").symlink_to(path.parent)
    return {
        "same": path,
        "relative": Path(path.name),
        "detour": path.parent / ".." / path.parent.name / path.name,
        "symbolic link": tmp_path / "symbolic.csv",
        "hard link": tmp_path / "hard.csv",
        "link to the folder": tmp_path / "folder" / path.name,
    }


def test_predictions_never_replace_their_input(run_folder, frame, tmp_path, monkeypatch, capsys) -> None:
    source = tmp_path / "data" / "t.csv"
    source.parent.mkdir()
    frame.to_csv(source, index=False)
    content = source.read_bytes()
    monkeypatch.chdir(source.parent)
    for name, out in _ways_to(source, tmp_path).items():
        # the run does not exist: nothing else was looked at before
        assert main(["predict", "no-run", str(source), "--out", str(out)]) == 2, name
        assert "is also an input" in capsys.readouterr().err
        assert source.read_bytes() == content
    assert (tmp_path / "symbolic.csv").is_symlink()
    for _ in range(2):  # predictions of before are replaced
        assert main(["predict", str(run_folder), str(source), "--out", "p.csv"]) == 0
    assert len(pd.read_csv("p.csv")) == len(frame)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_only_predictions_are_replaced(run_folder, predictor, frame, tmp_path, capsys, suffix) -> None:
    """Neither the training table nor a table of labels, whose columns are those of the tasks."""
    frame.to_csv(tmp_path / "t.csv", index=False)
    labels = pd.DataFrame({"row": [0], **{task.name: ["a"] for task in predictor.tasks}})
    for number, other in enumerate((frame, labels)):
        out = tmp_path / f"{number}.{suffix}"
        {"csv": other.to_csv, "parquet": other.to_parquet}.get(
            suffix, lambda path, kept=other: kept.to_json(path, orient="records", lines=True)
        )(out)
        before = out.read_bytes()
        assert main(["predict", str(run_folder), str(tmp_path / "t.csv"), "--out", str(out)]) == 2
        assert "is there already, and it is no earlier result" in capsys.readouterr().err
        assert out.read_bytes() == before
    (tmp_path / f"p.{suffix}").touch()
    for flags in ([], ["--probabilities"], ["--tasks", predictor.tasks[0].name], []):
        assert main(["predict", str(run_folder), str(tmp_path / "t.csv"), "--out", str(tmp_path / f"p.{suffix}"), *flags]) == 0


@pytest.mark.parametrize("place", ["model/p.csv", "suite/p.csv", "jobs/a/p.csv", "log.jsonl"])
def test_predictions_do_not_go_among_the_files_of_the_run(run_folder, frame, tmp_path, capsys, place) -> None:
    folder = _copy(run_folder, tmp_path)
    (folder / "log.jsonl").write_text("{}")
    frame.to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "link").symlink_to(folder)
    for out in (folder / place, tmp_path / "link" / place):
        assert main(["predict", str(folder), str(tmp_path / "t.csv"), "--out", str(out)]) == 2
        assert "lies among the files of the run" in capsys.readouterr().err
    assert not (folder / place).exists() or place == "log.jsonl"
    assert (folder / "log.jsonl").read_text() == "{}"
    assert main(["predict", str(folder), str(tmp_path / "t.csv"), "--out", str(folder / "predictions.csv")]) == 0


def test_arrays_that_do_not_fit(predictor) -> None:
    with pytest.raises(DataError, match="needs the input 'categorical'"):
        predictor.run_arrays({"numeric": np.zeros((2, 2), np.float32)})
    with pytest.raises(DataError, match=r"cannot run on these inputs.*numeric.*\[2, 9\]"):
        predictor.run_arrays({"numeric": np.zeros((2, 9), np.float32), "categorical": np.zeros((2, 1), np.int64)})


def _copy(run_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_folder, tmp_path / "copy"))


@pytest.mark.parametrize("content", [b"garbage" * 100, b"\x80\x04\x95pickle"])
def test_garbage_onnx(run_folder, tmp_path, content) -> None:
    folder = _copy(run_folder, tmp_path)
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"model.onnx is not a whole ONNX model.*Restore"):
        Predictor(folder)


def test_truncated_and_empty_onnx(run_folder, tmp_path) -> None:
    folder = _copy(run_folder, tmp_path)
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match="not a whole ONNX model"):
        Predictor(folder)
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(FileFormatError, match="zero bytes"):
        Predictor(folder)


def test_folders_that_are_no_finished_run(run_folder, tmp_path) -> None:
    with pytest.raises(FileFormatError, match="does not exist"):
        Predictor(tmp_path / "nowhere")
    with pytest.raises(FileFormatError, match="not a run folder"):
        Predictor(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(FileFormatError, match="has not finished.*--resume"):
        Predictor(tmp_path)
    folder = _copy(run_folder, tmp_path)
    (folder / "model.onnx").unlink()
    with pytest.raises(FileFormatError, match="no model.onnx"):
        Predictor(folder)
    (folder / "model" / "config.json").write_text('{"tasks": []}')
    shutil.copy(run_folder / "model.onnx", folder / "model.onnx")
    with pytest.raises(FileFormatError, match="lacks 'encoder'"):
        Predictor(folder)


def test_model_and_config_of_different_runs(run_folder, tmp_path) -> None:
    folder = _copy(run_folder, tmp_path)
    config = json.loads((folder / "model" / "config.json").read_text())
    config["tasks"].append({"name": "other", "kind": "binary", "size": 1})
    (folder / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileFormatError, match=r"no outputs for the tasks \['other'\].*different runs"):
        Predictor(folder)


def test_predicting_imports_no_torch(run_folder, frame, tmp_path) -> None:
    frame.to_csv(tmp_path / "rows.csv", index=False)
    code = (
        "import sys; from graftwork.serving.predict import Predictor; "
        f"p = Predictor({str(run_folder)!r}, threads=1); print(len(p.predict({str(tmp_path / 'rows.csv')!r}, tasks=['churn']))); "
        "assert not [m for m in sys.modules if m.partition('.')[0] in ('torch', 'sklearn', 'timm', 'transformers')]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "60"


def test_intervals_stand_beside_the_numbers(tmp_path) -> None:
    run = write_table_run(tmp_path / "run")
    path = run / "model" / "config.json"
    config = json.loads(path.read_text())
    config["kept_errors"] = {"number": [[float(n) for n in range(1, 20)]], "third": [[0.5, 1.0, 1.5]]}
    path.write_text(json.dumps(config))
    found = Predictor(run, threads=1)
    rows = pd.DataFrame([{"age": 40.0, "city": "Rome", "since": "2021-01-01", "id": 3.0}] * 2)
    wide = found.predict(rows, ["number", "city class"], interval=0.9)
    assert list(wide.columns) == ["number", "number_low", "number_high", "city class", "city class_probability"]
    np.testing.assert_allclose(wide["number_high"] - wide["number"], 18.0, rtol=1e-6)
    np.testing.assert_allclose(wide["number"] - wide["number_low"], 18.0, rtol=1e-6)
    plain = found.predict(rows, ["number"])
    np.testing.assert_array_equal(plain["number"], wide["number"])
    with pytest.raises(ConfigError, match="'third' has no interval for 0.9"):
        found.predict(rows, interval=0.9)


def test_a_table_that_names_pictures_is_predicted_as_it_was_trained(tmp_path) -> None:
    from PIL import Image

    run = write_picture_run(tmp_path / "run")
    path = run / "model" / "config.json"
    config = json.loads(path.read_text())
    config["encoder"]["column"] = "photo"
    path.write_text(json.dumps(config))
    for number in range(3):
        Image.new("RGB", (8, 8), (90 * number, 0, 0)).save(tmp_path / f"{number}.png")
    frame = pd.DataFrame({"photo": ["2.png", "0.png", "1.png"], "other": [1, 2, 3]})
    frame.to_csv(tmp_path / "new.csv", index=False)
    predictor = Predictor(run, threads=1)
    found = predictor.predict(tmp_path / "new.csv", ["colour"])
    files = predictor.predict([tmp_path / "2.png", tmp_path / "0.png", tmp_path / "1.png"], ["colour"])
    np.testing.assert_array_equal(found.to_numpy(), files.to_numpy())
    absolute = frame.assign(photo=[str(tmp_path / name) for name in frame["photo"]])
    np.testing.assert_array_equal(predictor.predict(absolute, ["colour"]).to_numpy(), files.to_numpy())
    with pytest.raises(DataError, match="photo"):
        predictor.predict(frame.drop(columns="photo"))


@pytest.mark.parametrize("note", ["{", "[]", "[" * 5_000, '{"a": "nobody"}', "7" * 6_000])
def test_a_damaged_list_of_outputs(tmp_path: Path, note: str) -> None:
    import onnx

    folder = write_table_run(tmp_path / "run")
    model = onnx.load(folder / "model.onnx")
    model.metadata_props.add(key="graftwork.outputs", value=note)
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(FileFormatError, match="has a damaged list of outputs|has no outputs") as caught:
        Predictor(folder, threads=1)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda config: config["tasks"].append(config["tasks"][0]), "two of its tasks have one name"),
        (lambda config: config.update(thresholds={config["tasks"][0]["name"]: "p"}), "thresholds of task .* are numbers"),
        (lambda config: config.update(thresholds={config["tasks"][0]["name"]: 3}), "thresholds of task .* are numbers"),
    ],
)
def test_a_damaged_description_of_tasks(tmp_path: Path, change: Any, words: str) -> None:
    folder = write_table_run(tmp_path / "run")
    path = folder / "model" / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    with pytest.raises(FileFormatError, match=f"is damaged.* {words}"):
        Predictor(folder, threads=1)


def test_a_number_of_threads_that_there_cannot_be(run_folder) -> None:
    for threads in (0, -3):
        with pytest.raises(ConfigError, match=f"threads must be at least 1; got {threads}"):
            Predictor(run_folder, threads=threads)
        with pytest.raises(ConfigError, match=f"threads must be at least 1; got {threads}"):
            DeltaEngine((), threads=threads)
