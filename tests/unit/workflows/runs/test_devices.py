"""The device of a run is decided when it begins, and it is the same to its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.machine import available_cores
from graftwork.training import devices as torch_devices
from graftwork.workflows.compare.settings import CompareSettings
from graftwork.workflows.runs import devices
from graftwork.workflows.runs.begin import Call, begun_run, repeat_command
from graftwork.workflows.runs.context import run_facts
from graftwork.workflows.runs.progress import Progress
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.same_run import resumed_settings
from graftwork.workflows.runs.settings import FitSettings


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that there is a GPU."""
    monkeypatch.setattr(devices, "may_have_accelerator", lambda: True)
    monkeypatch.setattr(torch_devices, "available_devices", lambda: ("cuda", "cpu"))
    monkeypatch.setattr(torch_devices, "has_fast_bf16", lambda device: device == "cuda")


def begin(folder: Path, given: FitSettings, *, asked: tuple[str, ...] = (), resume: bool = True) -> tuple[RunFolder, FitSettings]:
    run = RunFolder(folder)

    def resumed(opened: RunFolder) -> FitSettings:
        return resumed_settings(opened, given, asked, may_change=("workers",))

    with begun_run(run, given, resumed, Call(verb="fit", resume=resume)) as settings:
        return run, settings


def test_without_an_accelerator_nothing_of_torch_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "may_have_accelerator", lambda: False)
    monkeypatch.setattr(torch_devices, "available_devices", lambda: pytest.fail("torch was asked"))
    assert devices.device_of_run(FitSettings()) == {"device": "cpu", "precision": "plan"}
    assert devices.device_of_run(FitSettings(precision="bf16")) == {"device": "cpu", "precision": "bf16"}


def test_a_run_is_steered_without_torch() -> None:
    words = "import sys, graftwork.workflows.runs.devices, graftwork.workflows.runs.begin; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", words], check=False).returncode == 0


@pytest.mark.usefixtures("one_gpu")
def test_auto_is_written_down_as_what_it_became_and_two_processes_share_it(tmp_path: Path) -> None:
    run, settings = begin(tmp_path / "run", FitSettings())
    assert (run.state["device"], run.state["precision"], settings.workers) == (
        "cuda",
        "bf16-pretrained",
        min(2, available_cores()),
    )
    facts = run_facts(run, settings)
    assert (facts.device, facts.precision) == ("cuda", "bf16-pretrained")
    # Named again as what it became, or as it was asked for: the same run.
    for name in ("auto", "cuda"):
        begin(tmp_path / "run", FitSettings(device=name), asked=("device",))
    with pytest.raises(ConfigError, match="was begun with other settings") as caught:
        begin(tmp_path / "run", FitSettings(device="cpu", precision="fp32"), asked=("device", "precision"))
    assert list(caught.value.problems) == [
        "device: the run has 'auto', you gave 'cpu'",
        "precision: the run has 'auto', you gave 'fp32'",
    ]
    _, asked = begin(tmp_path / "many", FitSettings(workers=5))
    assert asked.workers == 5


@pytest.mark.usefixtures("one_gpu")
def test_a_run_does_not_go_on_without_its_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = begin(tmp_path / "run", FitSettings(device="cuda"))
    monkeypatch.setattr(torch_devices, "available_devices", lambda: ("cpu",))
    with pytest.raises(ConfigError, match="was begun on cuda; here are: cpu. On another device its numbers would be others"):
        begin(tmp_path / "run", FitSettings())
    with pytest.raises(ConfigError, match="begun on cuda, and the workers of Ray train on CPUs"):
        devices.check_device_of_run(run.state, run.path, CompareSettings(engine="ray", steps=4))
    with pytest.raises(ConfigError, match="cuda is not available on this machine"):
        begin(tmp_path / "new", FitSettings(device="cuda"))
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("one_gpu")
def test_runs_of_older_versions_were_on_the_cpu(tmp_path: Path) -> None:
    run, settings = begin(tmp_path / "run", FitSettings(device="cpu"))
    for key in ("device", "precision"):
        del run.state[key]
    run.save()
    run, settings = begin(tmp_path / "run", FitSettings())
    assert (run_facts(run, settings).device, run_facts(run, settings).precision) == ("cpu", "plan")


def test_a_damaged_device_is_named(tmp_path: Path) -> None:
    run, _ = begin(tmp_path / "run", FitSettings(device="cpu"))
    run.state["device"] = "toaster"
    run.save()
    with pytest.raises(FileFormatError, match="device"):
        begin(tmp_path / "run", FitSettings())


def test_wrong_words_and_ray_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        FitSettings.of_user("x", device="tpu", precision="fp16")
    assert list(caught.value.problems) == [
        "device must be one of auto, cpu, cuda, mps; got 'tpu'",
        "precision must be one of auto, fp32, bf16; got 'fp16'",
    ]
    with pytest.raises(ConfigError, match=r"Some settings cannot be used\.\s+- device must be cpu with the engine ray"):
        CompareSettings(engine="ray", steps=4, device="cuda")
    assert devices.device_of_run(CompareSettings(engine="ray", steps=4)) == {"device": "cpu", "precision": "plan"}


@pytest.mark.parametrize(
    ("device", "precision", "line"),
    [
        ("cuda", "plan", "networks are trained on cuda"),
        ("cuda", "bf16-pretrained", "networks are trained on cuda, forward passes of pretrained backbones in bfloat16"),
        ("cpu", "bf16", "networks are trained on cpu, forward passes in bfloat16, which is rarely faster on a CPU"),
        ("mps", "fp32", "networks are trained on mps, forward passes in float32"),
    ],
)
def test_progress_says_where_networks_are_trained(device: str, precision: str, line: str) -> None:
    assert Progress().handle({"event": "device", "device": device, "precision": precision}) == [line]


def test_the_command_of_a_report_repeats_them() -> None:
    assert repeat_command(FitSettings.of_user("t.csv", device="cuda", precision="bf16")).endswith(
        "--device cuda --precision bf16"
    )
