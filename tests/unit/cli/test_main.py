"""The command line: help, verbs, misspellings, errors without tracebacks, no heavy imports."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest

from graftwork.cli import main as cli
from graftwork.cli.common import did_you_mean, parse_assignments
from graftwork.core.errors import ConfigError, StorageError

HEAVY = ("torch", "numpy", "pandas", "yaml", "rich", "scipy", "sklearn", "lightgbm", "onnxruntime")


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, module in cli.find_verbs().items():
        assert name in text
        assert module.HELP in text
    assert {"fit", "predict", "validate"} <= set(cli.find_verbs())
    assert cli.main([]) == 0


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("graftwork 0.")


@pytest.mark.parametrize(("word", "nearest"), [("fti", "fit"), ("prdict", "predict"), ("valdate", "validate")])
def test_a_misspelt_verb_names_the_nearest(word: str, nearest: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word]) == 2
    assert f"there is no verb {word!r}. Did you mean {nearest!r}?" in capsys.readouterr().err


def test_a_misspelt_flag_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit", "table.csv", "--tragets", "a", "--time-limt=5m"]) == 2
    text = capsys.readouterr().err
    assert "there is no option --tragets. Did you mean '--targets'?" in text
    assert "there is no option --time-limt. Did you mean '--time-limit'?" in text


@pytest.mark.parametrize("verb", ["fit", "predict", "validate"])
def test_every_verb_has_help_with_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert f"graftwork {verb} " in text


def verb_that(action: object) -> types.ModuleType:
    module = types.ModuleType("verb")
    module.NAME, module.HELP = "test", "test"  # type: ignore[attr-defined]
    module.add_arguments = lambda parser: None  # type: ignore[attr-defined]
    module.run = action  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError("Wrong.", ["line 3: no"]), 2, "graftwork test: Wrong.\n  - line 3: no"),
        (StorageError("Full."), 3, "graftwork test: Full."),
        (KeyboardInterrupt("Stopped. Go on with x"), 130, "Stopped. Go on with x"),
        (ZeroDivisionError("oh"), 1, "unexpected error: ZeroDivisionError: oh"),
        (OSError(36, "File name too long", "a" * 5_000), 3, f"{'a' * 200}: File name too long. Check the names"),
    ],
)
def test_errors_are_messages_and_exit_codes(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_find", lambda word: verb_that(fail))
    assert cli.main(["test"]) == code
    shown = capsys.readouterr().err
    assert text in shown
    assert "Traceback" not in shown


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: object) -> int:
        raise ConfigError("Wrong.")

    monkeypatch.setattr(cli, "_find", lambda word: verb_that(fail))
    with pytest.raises(ConfigError):
        cli.main(["test", "--debug"])


@pytest.mark.parametrize("words", [["--help"], ["fit", "--help"], ["predict", "--help"], ["validate", "{card}"]])
def test_nothing_heavy_is_imported(words: list[str], tmp_path: Path) -> None:
    card = Path(cli.__file__).parents[1] / "cards" / "ties.toml"
    words = [word.format(card=card) for word in words]
    code = f"import sys; from graftwork.cli.main import main; main({words!r}); print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_assignments() -> None:
    assert parse_assignments(["a=1", "b=x=y", "c=true"], flag="--set") == {"a": 1, "b": "x=y", "c": True}
    assert parse_assignments(["a=1"], flag="--task-kind", plain=True) == {"a": "1"}
    with pytest.raises(ConfigError, match=r"--set takes key=value; got 'a'"):
        parse_assignments(["a"], flag="--set")
    with pytest.raises(ConfigError, match=r"--set gives 'a' twice"):
        parse_assignments(["a=1", "a=2"], flag="--set")
    assert did_you_mean("zzz", ["fit"]) == ""
