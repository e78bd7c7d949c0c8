"""``fit`` and ``compare`` never change a folder that is the user's: whatever the flags, every file and every time stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from graftwork.cli.main import main


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Time of change, kind and content of a folder and everything below it."""
    paths = [folder, *folder.rglob("*")]
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in paths
    }


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose folders have the names that a run uses."""
    folder = tmp_path / "project"
    for name in ("logs", "jobs", "suite", "model"):
        (folder / name / "deep").mkdir(parents=True)
        (folder / name / "deep" / "mine.txt").write_text(f"mine: {name}")
    for name in ("log.jsonl", "clock.json", "result.json", "report.html", "model.onnx"):
        (folder / name).write_text("{}")
    rows = "\n".join(f"{number},{number % 2},{number * 2}" for number in range(60))
    (folder / "table.csv").write_text(f"x,kind,price\n{rows}\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("verb", ["fit", "compare"])
@pytest.mark.parametrize("target", ["kind", "knid"])
@pytest.mark.parametrize("out", [".", "../project", "link"])
@pytest.mark.parametrize("more", [(), ("--resume",), ("--seeds", "1")])
def test_a_project_folder_is_refused_and_stays_as_it_is(
    project: Path, capsys: pytest.CaptureFixture[str], verb: str, target: str, out: str, more: tuple[str, ...]
) -> None:
    if out == "link":
        (project.parent / "link").symlink_to(project)
        out = str(project.parent / "link")
    before = snapshot(project)
    words = [verb, "table.csv", "--targets", target, "--steps", "8", "--plans", "none", "--out", out]
    assert main([*words, *more]) == 2
    error = capsys.readouterr().err
    assert f"{out} is not empty and is not a run of graftwork" in error
    assert "clock.json, jobs/, log.jsonl, logs/, model.onnx and 5 more" in error
    assert "Give --out a folder that is empty or does not exist yet" in error
    assert snapshot(project) == before


@pytest.mark.parametrize("content", ['{"name": "my run"}', "no json", '{"format": "graftwork-run-999"}'])
@pytest.mark.parametrize("more", [(), ("--resume", ".")])
def test_a_run_json_of_another_program_makes_no_run(
    project: Path, capsys: pytest.CaptureFixture[str], content: str, more: tuple[str, ...]
) -> None:
    (project / "run.json").write_text(content)
    before = snapshot(project)
    assert main(["fit", "table.csv", "--targets", "kind", "--out", ".", *more]) == 2
    assert "run.json" in capsys.readouterr().err
    assert snapshot(project) == before


def test_wrong_settings_leave_an_empty_folder_empty(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project.parent / "empty").mkdir()
    for out in ("../empty", "../absent"):
        assert main(["fit", "table.csv", "--targets", "knid", "--out", out]) == 2
        assert "knid" in capsys.readouterr().err
    assert list((project.parent / "empty").iterdir()) == []
    assert not (project.parent / "absent").exists()
