from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from graftwork.claims.experiment import Recipe
from graftwork.core.cards import load_cards, read_card
from graftwork.core.errors import ConfigError, GraftworkError
from graftwork.core.source_hash import PACKAGE_FOLDER
from graftwork.workflows.new_method import new_method, source_root
from graftwork.workflows.seam_source import seam_source, seams

DETAILS = {"title": 'A "new" one', "year": "2024", "link": "https://example.org", "summary": "Does it.", "claim": "Better by 1."}
PLANNED = next(card for card in load_cards().values() if not card.is_built and card.room == "tuning")


@pytest.fixture
def root(tmp_path: Path, repository: Path) -> Path:
    (tmp_path / "src" / "graftwork" / "cards").mkdir(parents=True)
    (tmp_path / "src" / "graftwork" / "__init__.py").write_text('"""Package."""\n', encoding="utf-8")
    shutil.copy(repository / "pyproject.toml", tmp_path)
    shutil.copy(PACKAGE_FOLDER / "cards" / f"{PLANNED.slug}.toml", tmp_path / "src" / "graftwork" / "cards")
    return tmp_path


def test_a_planned_card_gets_its_parts_and_keeps_the_rest(root: Path) -> None:
    done = new_method("tuning", PLANNED.slug, root=root)
    card = read_card(done.card)
    stem = PLANNED.slug.replace("-", "_")
    assert card.is_built
    assert card.recipe == f"graftwork.recipes.tuning.{stem}"
    assert (card.claim, card.essentials, card.seams) == (PLANNED.claim, PLANNED.essentials, ("Tuner",))
    assert all(path.exists() for path in done.written)
    assert not done.evidence.exists(), "only a full run writes evidence"


def test_a_new_system_gets_a_card(root: Path) -> None:
    card = read_card(new_method("merging", "brand-new", root=root, details=DETAILS).card)
    assert (card.title, card.year, card.components) == ('A "new" one', 2024, ("graftwork.methods.merging.brand_new:BrandNew",))


@pytest.mark.parametrize(
    "room", ["merging", "optimization", "sharing", "selection", "tuning", "backbones", "benchmarks", "continual", "studies"]
)
def test_files_pass_the_linter(root: Path, room: str) -> None:
    new_method(room, "brand-new", root=root, details=DETAILS)
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("ruff is not installed beside this Python")
    for command in (["check", "."], ["format", "--check", "."]):
        done = subprocess.run([ruff, *command, "--no-cache"], cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("seam", sorted(seams()))
def test_the_parts_can_be_imported_and_fit_their_seam(root: Path, seam: str) -> None:
    done = new_method("sharing", "brand-new", root=root, seam=seam, details=DETAILS)
    module, recipe = (path for path in done.written[:2])
    names: dict[str, object] = {}
    exec(compile(module.read_text("utf-8"), str(module), "exec"), names)
    base = getattr(importlib.import_module(f"graftwork.interfaces.{seams()[seam]}"), seam)
    made = names["BrandNew"]
    assert isinstance(made, type)
    assert issubclass(made, base)
    assert not getattr(made, "__abstractmethods__", ()), "every abstract method has a body to fill"
    exec(compile(recipe.read_text("utf-8"), str(recipe), "exec"), names)
    assert isinstance(names["RECIPE"], Recipe)


def test_the_class_is_spelt_as_in_the_paper(root: Path) -> None:
    new_method("sharing", "brand-new", root=root, details={**DETAILS, "title": "BRAND-new: a title"})
    assert "class BRANDNew(" in (root / "src" / "graftwork" / "methods" / "sharing" / "brand_new.py").read_text("utf-8")


def test_the_test_fails_until_the_method_is_written(root: Path) -> None:
    done = new_method("merging", "brand-new", root=root, details=DETAILS)
    test_file = done.written[2]
    overlay = "import sys, graftwork.methods.merging as room; room.__path__.append(sys.argv[1]);"
    code = overlay + "import pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', sys.argv[2]]))"
    folder = root / "src" / "graftwork" / "methods" / "merging"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(test_file)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=root,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Show on a tiny input: Does it." in result.stdout


def test_nothing_is_overwritten(root: Path) -> None:
    new_method("merging", "brand-new", root=root, details=DETAILS)
    with pytest.raises(ConfigError, match="'brand-new' is built already"):
        new_method("merging", "brand-new", root=root, details=DETAILS)
    (root / "tests" / "unit" / "methods" / "merging" / "test_other.py").write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(
        GraftworkError, match=r"Nothing was written, because these files exist: tests/unit/methods/merging/test_other\.py"
    ):
        new_method("merging", "other", root=root, details=DETAILS)
    assert not (root / "src" / "graftwork" / "methods" / "merging" / "other.py").exists()


@pytest.mark.parametrize(
    ("room", "slug", "options", "message"),
    [
        ("mergin", "new", {}, "no room 'mergin'; the rooms are adaptation"),
        ("merging", "New One", {}, "lower case letters, digits and single hyphens; got 'New One'"),
        ("merging", "new", {}, "no card of 'new' yet, so these are needed: --title, --year"),
        ("merging", "new", {"details": {**DETAILS, "year": "soon"}}, "--year is a number; got 'soon'"),
        ("merging", "new", {"details": DETAILS, "seam": "Nothing"}, "no seam 'Nothing'; the seams are Backbone"),
        ("merging", PLANNED.slug, {}, "belongs to the room 'tuning'"),
        ("applications", "new", {"details": DETAILS}, "needs a field: give --field vision"),
        ("applications", "new", {"details": DETAILS, "field": "../x"}, r"a field is one lower case word; got '\.\./x'"),
    ],
)
def test_wrong_names_are_explained(root: Path, room: str, slug: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?i){message}"):
        new_method(room, slug, root=root, **options)  # type: ignore[arg-type]


def test_fields_go_to_domains(root: Path) -> None:
    done = new_method("applications", "new-app", root=root, field="vision", details=DETAILS)
    assert done.written[0] == root / "src" / "graftwork" / "domains" / "vision" / "new_app.py"


def test_installed_packages_are_no_place_for_new_systems(tmp_path: Path) -> None:
    with pytest.raises(GraftworkError, match=r"source checkout, but graftwork runs from .*pip install -e \."):
        source_root(tmp_path / "site-packages" / "graftwork")


@pytest.mark.parametrize("seam", list(seams()))
def test_every_seam_becomes_source(seam: str) -> None:
    imports, base, methods = seam_source(seam)
    tree = ast.parse(f"{imports}\n\nclass New{base}:\n{methods}\n")
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert [ast.unparse(item) for item in classes[0].bases] == [seam]
    assert all(ast.get_docstring(node) for node in classes[0].body if isinstance(node, ast.FunctionDef))
    assert "NotImplementedError" in methods
    written = {node.name for node in classes[0].body if isinstance(node, ast.FunctionDef)}
    interface = getattr(importlib.import_module(f"graftwork.interfaces.{seams()[seam]}"), seam)
    assert written == interface.__abstractmethods__  # those of base classes as well, and nothing that a base class has already
