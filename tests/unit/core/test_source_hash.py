from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.source_hash import bytes_hash, module_file, syntax_hash


def hash_of(folder: Path, code: str) -> str:
    file = folder / "code.py"
    file.write_text(code, encoding="utf-8")
    return syntax_hash(["claim"], [file])


BASE = "def add(a, b):\n    return a + b\n\nclass Box:\n    size: int = 3\n"


@pytest.mark.parametrize(
    "same",
    [
        "# comment\n" + BASE,
        BASE.replace("return a + b", "return (a\n            + b)"),
        BASE.replace("    return", '    """Add."""\n    return'),
        BASE + '    """Number of things."""\n',
        '"""Module."""\n' + BASE.replace("\n\n", "\n\n\n\n"),
    ],
)
def test_what_does_nothing_does_not_count(tmp_path: Path, same: str) -> None:
    assert hash_of(tmp_path, same) == hash_of(tmp_path, BASE)


@pytest.mark.parametrize(
    "other",
    [
        BASE.replace("a + b", "b + a"),
        BASE.replace("a + b", "a - b"),
        BASE.replace("3", "4"),
        BASE.replace("3", "3.0"),
        BASE.replace("add", "plus"),
        BASE.replace("3", "'3'"),
        BASE + "    weight: int = 0\n",
        BASE.replace("(a, b)", "(a, b=None)"),
    ],
)
def test_what_does_something_counts(tmp_path: Path, other: str) -> None:
    assert hash_of(tmp_path, other) != hash_of(tmp_path, BASE)


@given(st.integers(), st.integers())
def test_constants_count(tmp_path_factory: pytest.TempPathFactory, first: int, second: int) -> None:
    folder = tmp_path_factory.mktemp("hash")
    assert (hash_of(folder, f"x = {first}\n") == hash_of(folder, f"x = {second}\n")) == (first == second)


def test_texts_count_but_their_line_breaks_do_not(tmp_path: Path) -> None:
    assert syntax_hash(["one two"], []) == syntax_hash(["one\n  two"], [])
    assert syntax_hash(["one two"], []) != syntax_hash(["one", "two"], [])


def test_bytes_count_all(tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    file.write_text(BASE, encoding="utf-8")
    before = bytes_hash([], [file])
    file.write_text("# comment\n" + BASE, encoding="utf-8")
    assert bytes_hash([], [file]) != before


def test_finds_files_of_modules_without_importing() -> None:
    assert module_file("graftwork.core.errors:DataError").name == "errors.py"
    assert module_file("graftwork.core").name == "__init__.py"
    assert module_file("json.decoder").name == "decoder.py"
    assert not module_file("no_such_package.part").exists()


MODULE = """
from graftwork.nn.moe import MoE
from graftwork.core.errors import ConfigError
import torch

PATH = "graftwork.nn.moe:MoE"

def build():
    from graftwork.nn.lora import LoRA
    return MoE, LoRA, ConfigError, torch.nn
"""


@pytest.mark.parametrize(
    "moved",
    [
        MODULE.replace("graftwork.nn.moe", "graftwork.nn.experts.layer"),
        MODULE.replace(
            "from graftwork.nn.moe import MoE\nfrom graftwork.core.errors import ConfigError",
            "from graftwork.a import ConfigError, MoE",
        ),
        MODULE.replace("import torch\n", "").replace("\nPATH", "import torch\nPATH"),
        MODULE.replace("    from graftwork.nn.lora import LoRA", "    from graftwork.nn.tuning.lora import LoRA"),
    ],
)
def test_where_a_module_stands_does_not_count(tmp_path: Path, moved: str) -> None:
    assert hash_of(tmp_path, moved) == hash_of(tmp_path, MODULE)


@pytest.mark.parametrize(
    "other",
    [
        MODULE.replace("import MoE", "import SparseMoE as MoE"),
        MODULE.replace(":MoE", ":SoftMoE"),
        MODULE.replace("import torch", "import jax as torch"),
        MODULE.replace("from graftwork.nn.lora", "from peft.lora"),
    ],
)
def test_what_is_imported_counts(tmp_path: Path, other: str) -> None:
    assert hash_of(tmp_path, other) != hash_of(tmp_path, MODULE)


def test_the_name_of_a_file_does_not_count(tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(BASE, encoding="utf-8")
    assert syntax_hash([], [tmp_path / "a.py"]) == syntax_hash([], [tmp_path / "b.py"])
    assert bytes_hash([], [tmp_path / "a.py"]) == bytes_hash([], [tmp_path / "b.py"])


def test_blocks_for_type_checkers_count_as_their_names_only(tmp_path: Path) -> None:
    at_run = "from typing import TYPE_CHECKING\nfrom graftwork.a import Suite\nx = 1\n"
    for_types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from graftwork.b import Suite\nx = 1\n"
    assert hash_of(tmp_path, at_run) == hash_of(tmp_path, for_types)
