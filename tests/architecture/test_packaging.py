"""What an index shows of the package, and what `make demo` installs."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("index_readme", ROOT / "src" / "index_readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_of_an_index_leads_nowhere_outside_of_it() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert "](docs/" in text
    shown = hook().index_readme(text)
    assert not re.search(r"\]\((?!https?://|#)", shown)
    assert "![" not in shown
    assert "data formats" in shown
    assert "graftwork fit houses.csv" in shown
    # With a repository everything leads there, the picture to its file.
    linked = hook().index_readme(text, "https://example.org/g")
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", linked)
    assert pictures == ["https://example.org/g/raw/HEAD/docs/assets/report.png"]
    assert linked.count("https://example.org/g/") == text.count("](") - len(re.findall(r"\]\((?:https?:|#)", text))


def test_the_metadata_takes_it() -> None:
    made = hook().IndexReadme.__new__(hook().IndexReadme)
    made.__dict__["root"] = str(ROOT)
    metadata: dict[str, object] = {"name": "graftwork"}
    hook().IndexReadme.update(made, metadata)
    assert metadata["readme"] == {
        "content-type": "text/markdown",
        "text": hook().index_readme((ROOT / "README.md").read_text("utf-8")),
    }
    assert "readme" in PROJECT["dynamic"]
    assert "readme" not in PROJECT


def test_the_demo_installs_no_tools() -> None:
    extras = PROJECT["optional-dependencies"]
    [needed] = extras["demo"]
    names = re.fullmatch(r"graftwork\[([a-z,]+)\]", needed)
    assert names is not None
    assert not {"dev", "docs", "ray", "nash", "all"} & set(names[1].split(","))
    asked = (ROOT / "requirements" / "demo.txt").read_text("utf-8").split("\n")
    wanted = {line for line in asked if line and not line.startswith("#")}
    assert wanted < set((ROOT / "requirements" / "data.txt").read_text("utf-8").split("\n"))
    from graftwork.data.suites.emoji_files import INSTALL

    assert set(re.findall(r"\S+==\S+", INSTALL)) <= wanted


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_names_the_demo_extra_and_the_index(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path / "Makefile")
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")

    def steps(*words: str) -> str:
        return subprocess.run(["make", "-n", *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    plain = steps("demo")
    assert "--editable '.[demo]'" in plain
    assert "'.[dev]'" not in plain
    assert "--index-url" not in plain
    assert "--index-url 'https://example.org/cpu' torch torchvision" in steps("demo", "TORCH_INDEX=https://example.org/cpu")
    assert "'.[dev]'" in steps("install")


def test_supported_versions_and_systems_are_named() -> None:
    named = PROJECT["classifiers"]
    for minor in range(11, 15):
        assert f"Programming Language :: Python :: 3.{minor}" in named
    assert PROJECT["requires-python"] == ">=3.11"
    assert sum(line.startswith("Operating System ::") for line in named) == 3
