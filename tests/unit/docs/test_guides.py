"""What the guides tell people to type exists."""

from __future__ import annotations

import argparse
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from graftwork.cli.main import find_verbs
from graftwork.core.records import Plan
from graftwork.workflows.plan_check import plan_problems

DOCS = Path(__file__).resolve().parents[3] / "docs"
GUIDES = sorted(path for path in DOCS.glob("*.md"))


def commands() -> list[tuple[str, str]]:
    found = []
    for guide in GUIDES:
        text = guide.read_text(encoding="utf-8")
        for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL):
            found += [(guide.name, line.split(" #")[0].strip()) for line in block.splitlines() if line.startswith("graftwork ")]
        found += [(guide.name, code) for code in re.findall(r"`(graftwork [a-z][^`]*)`", text)]
    return found


def test_guides_have_commands() -> None:
    assert len(commands()) > 10


@pytest.mark.parametrize(("guide", "command"), commands(), ids=lambda value: str(value))
def test_commands_exist_with_their_options(guide: str, command: str) -> None:
    verb, *words = shlex.split(command)[1:]
    verbs = find_verbs()
    assert verb in verbs, f"{guide}: no verb {verb!r}"
    parser = argparse.ArgumentParser(exit_on_error=False)
    verbs[verb].add_arguments(parser)
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    known = {flag for action in parser._actions for flag in action.option_strings}
    assert set(options) <= known, f"{guide}: {command}"


def test_toml_of_the_plan_guide_is_a_plan() -> None:
    text = (DOCS / "adding-a-plan.md").read_text(encoding="utf-8")
    tables = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)]
    plans = [Plan.from_json(plan) for table in tables for plan in table["plans"]]
    assert plans
    for plan in plans:
        assert plan_problems(plan) == []


def test_suite_file_of_the_data_guide_has_no_fault(tmp_path: Path) -> None:
    from graftwork.data.reading.suite_yaml import validate_suite_yaml

    text = (DOCS / "data-formats.md").read_text(encoding="utf-8")
    path = tmp_path / "suite.yaml"
    path.write_text(re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)[0], encoding="utf-8")
    (tmp_path / "web.csv").write_text("user,stars,price,age\n1,2,3.5,20\n2,3,4.5,30\n", encoding="utf-8")
    (tmp_path / "phone.parquet").write_bytes(b"PAR1" + b"\0" * 16 + b"PAR1")
    problems = [str(problem) for problem in validate_suite_yaml(path)]
    assert not problems, problems


def test_files_named_in_guides_exist() -> None:
    root = DOCS.parent
    named = {name for guide in GUIDES for name in re.findall(r"`(src/graftwork/[\w/.]+)`", guide.read_text(encoding="utf-8"))}
    examples = {name for name in named if "rep-mtl" in name or "rep_mtl" in name}
    assert named - examples
    missing = [name for name in sorted(named - examples) if not (root / name).exists()]
    assert not missing
