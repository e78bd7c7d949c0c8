"""Nothing that graftwork runs asks the network or leaves an id of the machine behind: fitting, predicting, serving."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import graftwork

STEPS = """
import sys, time
from graftwork.cli.main import main
run, table, tuned = sys.argv[1:]
assert main(["predict", run, table, "--out", table.replace("table.csv", "out.csv")]) == 0
from graftwork.serving.engine import Engine
engine = Engine(run, threads=1)
engine.warm_up()
engine.close()
from graftwork.serving.delta_engine import DeltaEngine
from graftwork.serving.delta_folders import find_delta_folders
deltas = DeltaEngine(find_delta_folders([tuned]), threads=1)
deltas.warm_up()
deltas.close()
time.sleep(1.0)  # what a library reports, it reports from a thread of its own
"""

FIT = """
import sys, time
from pathlib import Path
from graftwork.cli.main import main
run, table, _ = sys.argv[1:]
# Plans of several libraries, in a worker process, with a report and an exported model.
words = ["--plans", "separate,shared-trunk,lightgbm,linear", "--backbone", "none", "--steps", "4", "--seeds", "1", "--folds", "0"]
out = str(Path.home() / "run")
assert main(["fit", table, "--targets", "y,z", *words, "--workers", "1", "--out", out, "--quiet"]) == 0
assert (Path(out) / "model.onnx").exists() and (Path(out) / "report.html").exists()
time.sleep(1.0)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("offline")
    x = np.random.default_rng(0).normal(size=(60, 2))
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": x.sum(1), "z": x[:, 0] - x[:, 1]})
    frame.to_csv(folder / "table.csv", index=False)
    graftwork.fit(frame, targets="y,z", out=folder / "run", steps=4, seeds=1, workers=0, plans="none", backbone="none")
    return folder / "run"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned backbone, whose delta is served alone."""
    from PIL import Image

    folder, random = tmp_path_factory.mktemp("tuned"), np.random.default_rng(0)
    (folder / "images").mkdir()
    names = [f"{number:02}.png" for number in range(40)]
    for number, name in enumerate(names):
        pixels = random.integers(0, 60, (16, 16, 3)).astype(np.uint8)
        pixels[:, :, number % 2] += np.uint8(120)
        Image.fromarray(pixels).save(folder / "images" / name)
    pd.DataFrame({"file": names, "colour": ["red", "green"] * 20}).to_csv(folder / "labels.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graftwork.workflows.tune.costs.METHODS", ())  # what others would cost takes long
        graftwork.tune(
            "conv-mini",
            folder / "images",
            labels=str(folder / "labels.csv"),
            method="bn-only",
            settings={"working_size": 32},
            out=folder / "run",
            steps=4,
            workers=0,
            progress=False,
        )
    return folder / "run"


def _environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_", "GRAFTWORK_"))}
    return {**kept, "HOME": str(home)}


@pytest.fixture(scope="module", params=[STEPS, FIT], ids=["predict and serve", "fit"])
def left(
    request: pytest.FixtureRequest, run: Path, tuned: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path | None]:
    """The home folder after the steps, and the calls they made of the system; None where these cannot be traced."""
    home, trace = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("trace") / "trace.txt"
    command = [sys.executable, "-c", request.param, str(run), str(run.parent / "table.csv"), str(tuned)]
    if shutil.which("strace") is not None:
        tracer = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmmsg", "-o", str(trace)]
        done = subprocess.run([*tracer, *command], env=_environment(home), capture_output=True, timeout=600, check=False)
        if not (done.returncode and b"ptrace" in done.stderr):
            assert done.returncode == 0, done.stderr.decode()
            return home, trace
    subprocess.run(command, env=_environment(home), check=True, capture_output=True, timeout=600)
    return home, None


def test_no_id_of_the_machine_is_kept(left: tuple[Path, Path | None]) -> None:
    home = left[0]
    names = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    assert not [name for name in names if "deviceid" in name or "Microsoft" in name], names


def test_no_address_is_asked(left: tuple[Path, Path | None]) -> None:
    trace = left[1]
    if trace is None:
        pytest.skip("needs strace (apt-get install strace) and a system that lets it trace")
    asked = [line for line in trace.read_text().splitlines() if re.search(r"AF_INET6?\b", line)]
    assert not asked, asked[:5]
