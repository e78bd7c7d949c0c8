"""A run of two real finalists: each predicts as it was judged, by name, on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("torch")

import graftwork as gw  # noqa: E402
from graftwork.cli.main import main  # noqa: E402
from graftwork.workflows.runs.job_data import read_predictions  # noqa: E402

pytestmark = pytest.mark.slow
FEW: dict[str, Any] = {
    "plans": "shared-trunk",
    "steps": 12,
    "seeds": 1,
    "folds": 0,
    "single": True,
    "workers": 0,
    "backbone": "none",
}


def table() -> Any:
    draw = np.random.default_rng(5)
    x = draw.normal(size=(240, 3))
    frame = pd.DataFrame(x, columns=list("abc"))
    frame["price"] = 50 + 4 * x[:, 0] + draw.normal(size=240)
    frame["late"] = np.where(x[:, 0] + x[:, 1] + 0.5 * draw.normal(size=240) > 0, "yes", "no")
    return frame


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("runs") / "run"
    return gw.fit(table(), targets=["price", "late"], out=out, **FEW)


def test_the_plan_that_was_not_chosen_predicts_what_was_judged(run: Any, tmp_path: Path) -> None:
    (other,) = {"separate", "shared-trunk"} - {run.choice}
    suite = run.suite()
    rows = suite.splits["test"]
    table().drop(columns=["price", "late"]).iloc[rows].to_csv(tmp_path / "rows.csv", index=False)
    out = tmp_path / "answers.csv"
    words = ["predict", str(run.folder), str(tmp_path / "rows.csv"), "--out", str(out), "--probabilities", "--threads", "1"]
    assert main([*words, "--plan", other]) == 0
    answers = pd.read_csv(out)
    judged = read_predictions(run.folder / "jobs" / f"final-{other}-s0" / "predictions.safetensors", suite)["test"]
    np.testing.assert_allclose(answers["price"], judged["price"].ravel(), rtol=1e-4)
    np.testing.assert_allclose(answers["late[yes]"], judged["late"].ravel(), atol=1e-4)
    assert main(words) == 0
    chosen = pd.read_csv(out)
    assert np.abs(chosen["price"] - answers["price"]).max() > 1e-3, "it is another model"
    pd.testing.assert_frame_equal(run.predict(tmp_path / "rows.csv", plan=run.choice), run.predict(tmp_path / "rows.csv"))
    # Its intervals come from its own errors.
    assert (
        gw.Predictor(run.folder, plan=other).interval_widths(0.8)["price"]
        != gw.Predictor(run.folder).interval_widths(0.8)["price"]
    ).all()


def test_an_unknown_plan_is_refused(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table().to_csv(tmp_path / "rows.csv", index=False)
    assert main(["predict", str(run.folder), str(tmp_path / "rows.csv"), "--plan", "shared-trunc"]) == 2
    told = capsys.readouterr().err
    assert "separate" in told
    assert "shared-trunk" in told
    assert f"{run.choice} (the chosen one)" in told
