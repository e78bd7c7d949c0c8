"""Run folders, models, plans and suites from somebody else: nothing that they name is run, and the error says what was
refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from graftwork.cli.main import main
from graftwork.core.components import Component, components_allowed
from graftwork.core.errors import ComponentError, GraftworkError
from graftwork.core.records import Plan
from graftwork.workflows.fit import fit
from graftwork.workflows.runs.execution import execute
from graftwork.workflows.runs.job import RunFacts
from graftwork.workflows.runs.jobs import job_kinds, read_job
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.ray_worker import RemoteExecutor

from .conftest import linear_plan, linear_suite, received  # type: ignore[import-not-found]

PLACES = ("learner", "sharing", "tuning", "optimization", "objectives", "transforms")
FOREIGN = ("os:system", "strange.parts:Part", "graftwork_parts.x:Part")
OWN = ("graftwork.core.files:write_text", "graftwork.core.optional:require", "graftwork.core.files:Path")


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that exists as soon as something of a stranger has run; packages on the import path that write it."""
    trace = tmp_path / "it-ran"
    for module in ("strange/parts", "graftwork_parts/x"):
        file = tmp_path / "path" / f"{module}.py"
        file.parent.mkdir(parents=True)
        file.write_text(f"open({str(trace)!r}, 'w').close()\nclass Part:\n    pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    yield trace
    assert not trace.exists()
    assert not [name for name in sys.modules if name.startswith(("strange", "graftwork_parts"))]


def poison(path: str, trace: Path) -> dict[str, Any]:
    settings = {"command": f"touch {trace}"} if path == "os:system" else {"path": str(trace), "text": "x"}
    return {"path": path, "settings": settings}


def poisoned(plan: dict[str, Any], place: str, component: Any) -> dict[str, Any]:
    changed = {place: [component] if place in ("objectives", "transforms") else component}
    if "stages" not in plan:
        return {**plan, **changed}
    return {**plan, "stages": [{**stage, **changed} for stage in plan["stages"]]}


@pytest.mark.parametrize("verb", ["fit", "compare"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("path", FOREIGN)
def test_a_run_folder_is_refused_on_resume(
    scheduled: dict[str, Path], tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str], verb: str, place: str, path: str
) -> None:
    def change(state: dict[str, Any]) -> None:
        state["plans"] = [poisoned(plan, place, poison(path, trace)) for plan in state["plans"]]

    run = received(scheduled[verb], tmp_path / "run", change)
    # Named again, since settings of the parts name a file; without that nothing is looked at.
    assert main([verb, "--resume", str(run), "--workers", "1", "--plans", "shared-trunk"]) == 2
    text = capsys.readouterr().err
    assert f"plan 'shared-trunk', {place}: The component {path!r} is not part of graftwork" in text
    assert f"--allow-components {path.partition(':')[0].partition('.')[0]}" in text
    assert not (run / "result.json").exists()


@pytest.mark.parametrize("path", OWN)
def test_helpers_of_graftwork_itself_do_not_run_as_parts_of_a_plan(
    scheduled: dict[str, Path], tmp_path: Path, trace: Path, path: str
) -> None:
    for number, place in enumerate(PLACES):

        def change(state: dict[str, Any], place: str = place) -> None:
            state["plans"] = [poisoned(plan, place, poison(path, trace)) for plan in state["plans"]]

        run = received(scheduled["fit"], tmp_path / f"run{number}", change)
        with pytest.raises(ComponentError, match=f"plan 'shared-trunk', {place}: {path!r} is no component of the seam"):
            fit(out=run, resume=True, workers=0, plans="shared-trunk")


def test_plans_that_were_handed_in_are_looked_at_again(scheduled: dict[str, Path], tmp_path: Path, trace: Path) -> None:
    def change(state: dict[str, Any]) -> None:
        extra = {"name": "mine", "title": "t", "role": "joint", "modalities": ["table"]}
        state["extra_plans"] = [poisoned(extra, "sharing", poison("strange.parts:Part", trace))]
        del state["schedule"], state["plans"]
        state["state"] = "suite"

    run = received(scheduled["fit"], tmp_path / "run", change)
    with pytest.raises(
        ComponentError, match=r"plan 'mine', sharing: The component 'strange\.parts:Part' is not part of graftwork"
    ):
        fit(out=run, resume=True, workers=0, plans="shared-trunk")


@pytest.mark.parametrize(
    ("kind", "path"),
    # Costs of tuners are measured in a process of their own, which takes seconds to start: one of each sort there.
    [(kind, path) for kind in job_kinds() for path in (*FOREIGN, *OWN) if kind != "tune_cost" or path in (FOREIGN[0], OWN[0])],
)
def test_no_job_runs_what_its_plan_may_not_name(
    scheduled: dict[str, Path], tmp_path: Path, trace: Path, kind: str, path: str
) -> None:
    run = received(scheduled["fit"], tmp_path / "run", lambda state: None)
    plan = next(plan for plan in json.loads((run / "run.json").read_text())["plans"] if plan["name"] == "shared-trunk")
    for place in PLACES:
        fields = {
            "kind": kind,
            "id": f"{kind}-{place}",
            "plan": poisoned(plan, place, poison(path, trace)),
            "facts": {"cache": str(tmp_path / "cache")},
            "until": 2,
            "max_steps": 4,
        }
        needed: dict[str, dict[str, Any]] = {
            "export": {"source": "x", "folder": "model"},
            "assemble": {"sources": ["x"], "folder": "model"},
            "curve": {"part": 0.5},
            "kept": {"source": "x"},
            "teach": {"teacher": "x"},
            # Its members are built, each with a plan of its own.
            "importance": {"members": [{"job": {**fields, "kind": "train"}, "weights": {}}]},
        }
        more = needed.get(kind, {})
        result = execute(read_job({**fields, **more}), run)
        if kind == "teach":  # builds nothing of its plan: what it opens is the teacher, which is not there
            assert (result["status"], result["error"]) == ("failed", "ConfigError"), result
            continue
        assert (result["status"], result["error"]) == ("failed", "ComponentError"), result
        assert repr(path) in result["message"]


def test_a_component_inside_of_settings_is_held_to_the_same_rule(trace: Path) -> None:
    from graftwork.interfaces.balancer import Balancer

    asam = "graftwork.methods.optimization.sam:ASAM"
    for path in (*FOREIGN, *OWN, "graftwork.methods.sharing.separate:Separate"):
        with pytest.raises(ComponentError):
            Component(asam, {"balancer": poison(path, trace)}).build(seam=Balancer)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a model of its own."""
    import pandas as pd

    folder = tmp_path_factory.mktemp("finished")
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"a": draw.normal(size=80), "b": draw.normal(size=80)})
    frame["y"], frame["z"] = 2 * frame.a + 0.1 * draw.normal(size=80), frame.b - frame.a + 0.1 * draw.normal(size=80)
    frame.to_csv(folder / "table.csv", index=False)
    run = fit(
        folder / "table.csv",
        targets="y,z",
        plans=["shared-trunk"],
        steps=4,
        seeds=1,
        workers=0,
        backbone="none",
        single=True,
        out=folder / "run",
    )
    assert (run.folder / "model" / "config.json").exists()
    return run.folder


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("path", ["os:system", "strange.parts:Part", "graftwork.core.files:write_text"])
def test_a_model_folder_is_refused_by_load_and_harmless_to_prediction(
    finished: Path, tmp_path: Path, trace: Path, place: str, path: str
) -> None:
    from graftwork.serving.predict import Predictor
    from graftwork.training.model_loading import load_model

    run = tmp_path / "run"
    shutil.copytree(finished, run)
    config = json.loads((run / "model" / "config.json").read_text())
    config["plan"] = poisoned(config["plan"], place, poison(path, trace))
    (run / "model" / "config.json").write_text(json.dumps(config))
    rows = finished.parent / "table.csv"
    with components_allowed(None):
        assert Predictor(run).predict(rows).equals(Predictor(finished).predict(rows))
    if path in FOREIGN or place in ("sharing", "tuning"):
        with pytest.raises(ComponentError, match=re.escape(repr(path))):
            load_model(run / "model")
    else:  # the other places are for training; a model is rebuilt without them
        load_model(run / "model")


@pytest.mark.parametrize("kind", ["os:system", "strange.parts", "..strange", "__init__", "table.TableEncoder", None, ["table"]])
def test_an_encoder_is_one_of_ours(finished: Path, tmp_path: Path, trace: Path, kind: Any) -> None:
    from graftwork.serving.engine import Engine
    from graftwork.serving.predict import Predictor

    run = tmp_path / "run"
    shutil.copytree(finished, run)
    config = json.loads((run / "model" / "config.json").read_text())
    config["input_specs"]["table"]["encoder"]["kind"] = kind
    (run / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(GraftworkError, match="encoder state has the kind"):
        Predictor(run).predict(finished.parent / "table.csv")
    with pytest.raises(GraftworkError, match="encoder state has the kind"):
        Engine(run)
    config["input_specs"]["table"]["kind"] = kind
    (run / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(GraftworkError, match="no input kind|description of an input cannot be read"):
        Predictor(run)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("path", FOREIGN)
def test_a_plan_file_is_refused_by_validate_and_by_fit(
    tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str], place: str, path: str
) -> None:
    file, settings = tmp_path / "plans.toml", json.dumps(poison(path, trace)["settings"]).replace('": "', '" = "')
    value = f'{{ path = "{path}", settings = {settings} }}'
    line = f"{place} = [{value}]" if place in ("objectives", "transforms") else f"{place} = {value}"
    file.write_text(f'[[plans]]\nname = "mine"\ntitle = "T"\nrole = "joint"\nmodalities = ["table"]\n{line}\n', encoding="utf-8")
    table = tmp_path / "table.csv"
    table.write_text("a,y,z\n" + "".join(f"{i % 7},{i % 7 + i * 0.01},{i * 0.5 + 0.1}\n" for i in range(60)), encoding="utf-8")
    assert main(["validate", str(file)]) == 2
    assert f"The component {path!r} is not part of graftwork" in capsys.readouterr().err
    words = ["fit", str(table), "--targets", "y,z", "--plans", str(file), "--steps", "4", "--workers", "0", "--backbone", "none"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert f"The component {path!r} is not part of graftwork" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_suite_file_names_data_and_no_code(tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("a,y\n1,2\n", encoding="utf-8")
    for text in (
        "datasets:\n- source: os:system\n  targets: [y]\n",
        "datasets:\n- source: t.csv\n  targets: {y: {metric: 'strange.parts:Part'}}\n",
        "datasets:\n- source: t.csv\n  targets: {y: {kind: 'strange.parts:Part'}}\n",
        "modality: strange.parts:Part\ndatasets:\n- source: t.csv\n  targets: [y]\n",
        "encoder: strange.parts:Part\ndatasets:\n- source: t.csv\n  targets: [y]\n",
        "mixing: strange.parts:Part\ndatasets:\n- source: t.csv\n  targets: [y]\n",
        "datasets: !!python/object/apply:os.system ['true']\n",
    ):
        (tmp_path / "suite.yaml").write_text(text, encoding="utf-8")
        assert main(["validate", str(tmp_path / "suite.yaml")]) == 2, text
        assert main(["fit", str(tmp_path / "suite.yaml"), "--out", str(tmp_path / "run"), "--steps", "4"]) == 2, text
        assert "bug" not in capsys.readouterr().err


def test_an_allowed_package_races_here_and_in_worker_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, table = tmp_path / "mine.toml", tmp_path / "table.csv"
    line = 'modalities = ["table"]\nlearner = { path = "fake_learners:LinearLearner", settings = { rate = 0.3 } }\n'
    file.write_text(
        f'[[plans]]\nname = "mine"\ntitle = "T"\nrole = "joint"\n{line}'
        f'[[plans]]\nname = "alone"\ntitle = "T"\nrole = "reference"\n{line}',
        encoding="utf-8",
    )
    draw = np.random.default_rng(1)
    rows = [(x, 2 * x + 0.1 * e, 0.1 * e - x) for x, e in draw.normal(size=(80, 2))]
    table.write_text("a,y,z\n" + "".join(f"{a},{y},{z}\n" for a, y, z in rows), encoding="utf-8")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr("graftwork.core.components._allowed", [])
    words = ["compare", str(table), "--targets", "y,z", "--plans", f"{file},mine,alone", "--steps", "4", "--seeds", "1"]
    words += ["--workers", "1", "--backbone", "none", "--quiet", "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "--allow-components fake_learners" in capsys.readouterr().err
    assert main([*words, "--allow-components", "fake_learners"]) == 0
    assert {row["plan"] for row in json.loads((tmp_path / "run" / "result.json").read_text())["leaderboard"]} >= {"mine", "alone"}
    assert "fake_learners" not in json.dumps(
        json.loads((tmp_path / "run" / "run.json").read_text())["settings"].get("allowed", "")
    )
    assert not [key for key in json.loads((tmp_path / "run" / "run.json").read_text()) if "allow" in key]


def test_an_actor_gets_the_allowed_packages_from_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graftwork.data.store import save_suite

    save_suite(linear_suite(), tmp_path / "suite")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr("graftwork.core.components._allowed", [])
    facts = RunFacts(cache=str(tmp_path / "cache"))
    for number, allowed in enumerate(([], ["fake_learners"])):
        executor = RemoteExecutor(json.dumps({"run_folder": str(tmp_path), "token": "other", "path": [], "allowed": allowed}))
        executor.receive(_suite_of(tmp_path))
        job = TrainJob(id=f"job{number}", plan=linear_plan("fast", "joint"), facts=facts, until=4, max_steps=4)
        result = json.loads(executor.execute(json.dumps(job.to_json()))[0])["result"]
        assert result["status"] == ("ok" if allowed else "failed"), result
        executor.close()


def _suite_of(folder: Path) -> bytes:
    from graftwork.workflows.runs.ray_worker import pack_folders

    return pack_folders(folder, ["suite"])


def test_workers_import_nothing_from_the_working_folder(tmp_path: Path) -> None:
    """A received folder may hold files called like modules, and its reader may stand in it."""
    trace = tmp_path / "it-ran"
    for name in ("graftwork/__init__.py", "json/__init__.py", "numpy.py", "torch.py", "runpy.py"):
        file = tmp_path / "received" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"open({str(trace)!r}, 'w').close()\n", encoding="utf-8")
    script = (
        "import queue, sys\n"
        "sys.path[:] = [part for part in sys.path if part]\n"
        "from pathlib import Path\n"
        "from graftwork.workflows.runs.pool_worker import ProcessWorker\n"
        "answers = queue.Queue()\n"
        "worker = ProcessWorker(0, Path('.').resolve(), 1, answers)\n"
        "worker.send({'type': 'job', 'job': {'id': 'x', 'kind': 'none'}})\n"
        "print(answers.get(timeout=60)[1]['result']['message'])\n"
        "worker.send({'type': 'exit'}); worker.wait(10)\n"
    )
    paths = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=tmp_path / "received",
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "There is no job of kind 'none'" in done.stdout, done.stderr
    assert not trace.exists()


def test_a_cluster_is_started_outside_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would put the folder in which it is started first on the import path of its workers."""
    from graftwork.workflows.runs import ray_worker

    seen: list[Path] = []

    class Cluster:
        is_initialized, shutdown = staticmethod(lambda: False), staticmethod(lambda: None)
        init = staticmethod(lambda **settings: seen.append(Path.cwd()))

    monkeypatch.setattr(ray_worker, "_ray", lambda: Cluster)
    monkeypatch.chdir(tmp_path)
    ray_worker.ray_pool_parts(2)
    assert len(seen) == 1
    assert (seen[0] / "graftwork" / "__init__.py").exists()
    assert Path.cwd() == tmp_path


def test_a_plan_record_can_be_read_without_resolving_it(trace: Path) -> None:
    value = {"name": "x", "title": "t", "role": "joint", "modalities": ["table"], "sharing": "strange.parts:Part"}
    assert Plan.from_json(value).train.sharing.path == "strange.parts:Part"
