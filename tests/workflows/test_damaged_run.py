"""Run folders in which a file is damaged: each is refused by the name of that file, and a whole one goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from graftwork.cli.main import main
from graftwork.core.errors import FileFormatError
from graftwork.data.store import load_suite
from graftwork.workflows.compare import compare
from graftwork.workflows.fit import fit
from graftwork.workflows.runs.job_data import read_predictions

from .conftest import linear_plan, linear_suite  # type: ignore[import-not-found]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison of learners that take no time, without its result."""
    from graftwork.core.components import components_allowed

    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch, components_allowed("fake_learners"):
        patch.syspath_prepend(str(Path(__file__).parent))
        plans = [linear_plan("alone", "reference"), linear_plan("together", "joint")]
        compare(linear_suite(), plans=["none", *plans], steps=4, seeds=1, workers=0, backbone="none", out=folder, progress=False)
    (folder / "result.json").unlink()
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path, fake_learners: None) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def resumed(run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    words = ["compare", "--resume", str(run), "--workers", "0", "--quiet", "--allow-components", "fake_learners"]
    return main(words), capsys.readouterr().err


def test_a_whole_run_goes_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, words = resumed(run, capsys)
    assert code == 0, words
    assert (run / "result.json").exists()


def change(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    def changed(state: dict[str, Any]) -> None:
        *path, last = key.split("/")
        place: Any = state
        for part in path:
            place = place[part]
        if value is KeyError:
            del place[last]
        else:
            place[last] = value

    return changed


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("settings", KeyError, "settings is missing"),
        ("state", KeyError, "state is missing"),
        ("created", 7, "created must be a text; got 7"),
        ("settings/histores", {}, "settings.histores is not known"),
        ("settings/seeds", "many", "settings.seeds must be an integer; got 'many'"),
        ("settings/time_limit", 10**400, "settings.time_limit must be a finite number or none"),
        ("plans", 3, "plans must be a list of which each is an object"),
        ("schedule/horizons", KeyError, "schedule.horizons is missing"),
        ("schedule/horizons/nobody", 4, "schedule.horizons names 'nobody', which is no plan"),
        ("schedule/refits", 10**18, "schedule.refits is 1000000000000000000"),
        ("schedule/seeds", [10**400], "schedule.seeds[0] is 10000000000000000000"),
        ("schedule/seeds", ["a"], "schedule.seeds must be a list of which each is an integer"),
        ("estimates", {"alone": {"kept": "perhaps"}}, "estimates.alone.kept must be true or false"),
        ("folds", [], "folds must be an integer"),
        ("folds", 2**63 - 1, "folds is 9223372036854775807"),
        ("folds", -1, "folds is -1"),
    ],
)
def test_a_damaged_state_is_refused_by_key(
    run: Path, capsys: pytest.CaptureFixture[str], key: str, value: Any, words: str
) -> None:
    state = json.loads((run / "run.json").read_text())
    change(key, value)(state)
    (run / "run.json").write_text(json.dumps(state))
    code, said = resumed(run, capsys)
    assert code == 2
    assert str(run / "run.json") in said
    assert words in said
    assert "bug" not in said


@pytest.mark.parametrize("content", ["[]", "{}", '{"seconds": "x"}', '{"seconds": NaN}', '{"seconds": -1}', '{"seconds": true}'])
def test_a_damaged_clock_is_refused(run: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (run / "clock.json").write_text(content)
    code, said = resumed(run, capsys)
    assert code == 2
    assert f"{run / 'clock.json'} is damaged" in said


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0{}", b'\x0b\0\0\0\0\0\0\0{"test/99":'])
def test_damaged_predictions_are_refused(run: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    file = next(run.glob("jobs/*together*/predictions.safetensors"))
    file.write_bytes(content)
    if content.endswith(b"{}"):  # a whole file that holds nothing
        assert read_predictions(file, linear_suite()) == {}
        return
    with pytest.raises(FileFormatError, match="missing or damaged"):
        read_predictions(file, linear_suite())
    code, said = resumed(run, capsys)
    assert code == 2
    assert str(file) in said
    assert "is made again" in said


def test_files_that_do_not_fit_together_are_no_bug(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = next(run.glob("jobs/*together*/result.json"))
    result = json.loads(file.read_text())
    file.write_text(json.dumps(result | {"ledger": {"steps": {}}, "validation": 3}))
    code, said = resumed(run, capsys)
    assert code == 2
    assert f"The run in {run} cannot go on: its stored files do not fit together" in said
    assert "This is a bug" not in said


def test_a_folder_in_the_place_of_a_file_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = next(run.glob("jobs/*together*/result.json"))
    file.unlink()
    file.mkdir()
    code, said = resumed(run, capsys)
    assert code == 2
    assert f"{file} cannot be read" in said


def test_an_array_with_a_cut_header_is_refused(run: Path) -> None:
    file = run / "suite" / "000.npy"
    content = file.read_bytes()
    file.write_bytes(content[:8] + b"\x05\0" + content[10:])
    with pytest.raises(FileFormatError, match=r"000\.npy"):
        load_suite(run / "suite")


@pytest.mark.parametrize("count", [2**62, -1, 0])
def test_a_number_of_models_that_was_never_decided_is_refused(tmp_path: Path, fake_learners: None, count: int) -> None:
    plans = [linear_plan("alone", "reference"), linear_plan("together", "joint")]
    fields: dict[str, Any] = {"plans": ["none", *plans], "steps": 4, "seeds": 1, "workers": 0, "backbone": "none", "folds": 0}
    folder = fit(linear_suite(), out=tmp_path / "run", progress=False, **fields).folder
    state = json.loads((folder / "run.json").read_text())
    state["decisions"]["models on all rows"] = count
    (folder / "run.json").write_text(json.dumps(state))
    (folder / "result.json").unlink()
    with pytest.raises(FileFormatError, match="its stored files do not fit together"):
        fit(out=folder, resume=True, progress=False)
