"""Run folders from somebody else: links in them lead nowhere, and files that they alone name are not read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from graftwork.cli.main import main
from graftwork.workflows.fit import fit

from .conftest import received  # type: ignore[import-not-found]


def _contents(folder: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("verb", ["fit", "compare"])
@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("log.jsonl", "mine.txt"), (".lock", "new"), ("run.json", "run.json"), ("clock.json", "new"), ("logs", ""), ("logs/worker-0.log", "mine.txt"),
        ("jobs", ""), ("jobs/estimate-shared-trunk", ""), ("suite", ""), ("suite/suite.json", "mine.txt"), ("delta", ""), ("model", ""), ("plans", ""),
        ("report.html", "mine.txt"), ("anything/at/all", "../../../outside"),
    ],
)  # fmt: skip
def test_a_run_folder_with_links_is_refused_and_nothing_elsewhere_is_changed(
    scheduled: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, name: str, target: str
) -> None:
    run, outside = received(scheduled[verb], tmp_path / "run", lambda state: None), tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("mine")
    shutil.copy(run / "run.json", outside / "run.json")
    path = run / name
    if path.is_dir():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target if target.startswith("..") else outside / target)
    before = _contents(outside), _contents(run)
    for words in (["--resume", str(run)], ["--resume", str(run), "--workers", "1"], ["--out", str(run)]):
        assert main([verb, *words]) == 2
        # Without --resume, a folder whose marker is a link is not one of ours.
        said = (
            "is not empty and is not a run"
            if words[0] == "--out" and name == "run.json"
            else f"{path} is a link. A run of graftwork holds none"
        )
        assert said in capsys.readouterr().err
    assert (_contents(outside), _contents(run)) == before


def test_a_pipe_in_a_run_folder_is_refused_and_not_waited_for(
    scheduled: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("run.json", "log.jsonl", "clock.json"):
        run = received(scheduled["fit"], tmp_path / name, lambda state: None)
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)
        assert main(["fit", "--resume", str(run)]) == 2
        assert f"{run / name} is a pipe, device or socket" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["fit", "compare"])
def test_a_run_without_its_suite_reads_no_file_that_it_alone_names(
    scheduled: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    secret, labels, plans = (tmp_path / name for name in ("secret.csv", "labels.csv", "plans.toml"))
    rows = "".join(f"{i % 7},{i % 7 + i * 0.01},{i * 0.5 + 0.1}\n" for i in range(60))
    secret.write_text(f"a,y,z\n{rows}", encoding="utf-8")
    labels.write_text("file,y\n", encoding="utf-8")
    plans.write_text("", encoding="utf-8")

    def change(state: dict[str, Any]) -> None:
        state["settings"] |= {"source": str(secret), "targets": ["y", "z"], "labels": str(labels), "plans": [str(plans)]}
        del state["schedule"], state["plans"]
        state["state"] = "created"

    run = received(scheduled[verb], tmp_path / "run", change)
    shutil.rmtree(run / "suite")
    before = _contents(run)
    assert main([verb, "--resume", str(run), "--workers", "0"]) == 2
    said = capsys.readouterr().err
    assert "which only its run.json names" in said
    assert f"graftwork {verb} --plans {plans} {secret} --labels {labels} --resume {run}" in said
    assert _contents(run) == before or set(_contents(run)) - set(before) <= {".lock"}
    # A name of an embedded suite is no file; what is named again is read.
    state = json.loads((run / "run.json").read_text())
    state["settings"] |= {"labels": None, "plans": ["shared-trunk"]}
    (run / "run.json").write_text(json.dumps(state))
    assert main([verb, "--resume", str(run), "--workers", "0"]) == 2
    assert f"graftwork {verb} {secret} --resume {run}" in capsys.readouterr().err
    words = [verb, str(secret), "--resume", str(run), "--workers", "0", "--quiet"]
    assert main([*words, *(["--dry-run"] if verb == "fit" else [])]) == 0


@pytest.mark.parametrize("name", ["hf:/models/mine", "hf:../mine", "ttm:mine", "hf:who/ever", "timm:resnet18"])
def test_a_run_folder_chooses_no_backbone_elsewhere(
    scheduled: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", connect)
    for number, changes in enumerate(({"backbone": name}, {"settings": {"backbone": name}})):

        def change(state: dict[str, Any], changes: dict[str, Any] = changes) -> None:
            state |= {key: value for key, value in changes.items() if key != "settings"}
            state["settings"] |= changes.get("settings", {})

        run = received(scheduled["fit"], tmp_path / f"run{number}", change)
        assert main(["fit", "--resume", str(run), "--workers", "0"]) == 2
        assert f"graftwork fit --backbone {name} --resume {run}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "value", ["/secret/weights.safetensors", "weights.safetensors", "timm:resnet18", "hf:../mine", "/etc/hostname"]
)
def test_components_of_a_received_plan_read_no_file_and_no_hub(
    scheduled: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    path = "graftwork.methods.distillation.guidance:Guidance"
    for number, settings in enumerate(({"weights": value}, {"deep": [{"source": value}]})):

        def change(state: dict[str, Any], settings: dict[str, Any] = settings) -> None:
            state["plans"] = [
                {**plan, "stages": [{**stage, "objectives": [{"path": path, "settings": settings}]} for stage in plan["stages"]]}
                for plan in state["plans"]
            ]

        run = received(scheduled["fit"], tmp_path / f"run{number}", change)
        assert main(["fit", "--resume", str(run), "--workers", "0"]) == 2
        assert f"would go on to read {value!r}, which only its run.json names" in capsys.readouterr().err


def test_a_log_under_two_names_is_not_appended_to(
    scheduled: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An archive can hold hard links, which land on files beside it."""
    run = received(scheduled["fit"], tmp_path / "run", lambda state: None)
    (tmp_path / "mine.txt").write_text("mine")
    (run / "log.jsonl").unlink()
    (run / "log.jsonl").hardlink_to(tmp_path / "mine.txt")
    assert main(["fit", "--resume", str(run), "--workers", "0"]) == 3
    assert "log.jsonl has other names as well (hard links)" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_run_folder_under_a_link_of_the_user_goes_on(scheduled: dict[str, Path], tmp_path: Path) -> None:
    run = received(scheduled["fit"], tmp_path / "disk", lambda state: None)
    (tmp_path / "run").symlink_to(run)
    assert fit(out=tmp_path / "run", resume=True, workers=0).result["plans"]
    assert not [path for path in run.rglob("*") if path.is_symlink()]
