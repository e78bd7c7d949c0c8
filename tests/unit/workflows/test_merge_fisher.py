"""``graftwork merge --method fisher`` on model folders of graftwork, as the command line runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from graftwork.cli.main import main
from graftwork.core.records import Plan
from graftwork.core.tensor_files import TensorFile, open_tensors
from graftwork.data.store import save_suite
from graftwork.data.suites.digit_family import digit_family
from graftwork.interfaces.learner import Learner, LearnerContext


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two model folders and the suite that they learned from."""
    folder = tmp_path_factory.mktemp("fisher")
    suite = digit_family("plain", copies=1, seed=0)
    save_suite(suite, folder / "suite")
    sharing = "graftwork.methods.sharing.separate:Separate"
    plan = Plan.from_json({"name": "p", "title": "P", "role": "reference", "modalities": ["table"], "sharing": sharing})
    for name, steps in (("target", 3), ("donor", 40)):
        learner: Learner = plan.train.learner.build(
            LearnerContext(suite=suite, plan=plan, seed=0, max_steps=40, cache=folder / "cache"), seam=Learner
        )
        learner.train(steps)
        learner.export(folder / name)
    return folder


def run(place: Path, *arguments: str, models: tuple[str, ...] = ("target", "donor"), out: str = "out.safetensors") -> int:
    paths = [str(place / name) for name in models]
    return main(["merge", "--models", *paths, "--method", "fisher", "--out", str(place / out), *arguments])


def test_a_suite_and_model_folders_are_enough(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "--suite", str(place / "suite"), "--set", "trials=5", "--set", "num_rows=64") == 0
    assert "2 models" in capsys.readouterr().out
    merged, target = TensorFile(place / "out.safetensors"), open_tensors(place / "target")
    assert {name: merged.shape(name) for name in merged} == {name: target.shape(name) for name in target}
    method = json.loads(merged.metadata["method"])
    assert method["method"] == "fisher-merging"
    assert sum(method["weights"]) == pytest.approx(1.0)
    assert method["weights"][1] > 0.0, "the donor learned for longer, and validation rows show it"


def test_files_of_information_stand_for_data(place: Path) -> None:
    suite = ("--suite", str(place / "suite"), "--set", "num_rows=64")
    for name in ("target", "donor"):
        assert run(place, *suite, "--set", "result=fisher", models=(name,), out=f"{name}.fisher.safetensors") == 0
    files = ",".join(str(place / f"{name}.fisher.safetensors") for name in ("target", "donor"))
    assert run(place, "--statistics", f"fisher={files}", "--weights", "0.3,0.7", out="files.safetensors") == 0
    assert run(place, *suite, "--weights", "0.3,0.7", out="rows.safetensors") == 0
    from_files, from_rows = TensorFile(place / "files.safetensors"), TensorFile(place / "rows.safetensors")
    for name in from_rows:
        np.testing.assert_allclose(from_files[name], from_rows[name], rtol=1e-4, atol=1e-6)
    assert "target.fisher.safetensors" in from_files.metadata["inputs_sha256"]


def test_without_data_it_says_what_it_needs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, out="none.safetensors") != 0
    said = capsys.readouterr().err
    assert "Fisher information of each model" in said
    assert "--suite" in said
    assert "--statistics" in said
    assert not (place / "none.safetensors").exists()


def test_help_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "fisher-merging (also fisher)" in said
    assert "Looks at whole models: give data (--suite) and model folders of graftwork, or files" in said
