"""Examples in help texts are commands that can be given, and mistakes are answered with what to do."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from all_verbs import examples_of, parsers

from graftwork.cli.common import first_example
from graftwork.cli.main import find_verbs, main
from graftwork.nn.backbones.catalog import list_backbones

PARSERS = parsers()
EXAMPLES = [(verb, example) for verb, parser in PARSERS.items() for example in examples_of(parser)]
QUICK = [
    "graftwork plans",
    "graftwork plans --modality table",
    "graftwork plans ple",
    "graftwork systems",
    "graftwork systems --room merging",
    "graftwork systems --verdict holds --json",
    "graftwork show ties",
    "graftwork show model merging",
    "graftwork show arXiv:2306.01708",
    "graftwork data",
    "graftwork data digits",
    "graftwork backbones",
    "graftwork backbones --modality text",
    "graftwork completion bash",
]
"""Those that take a second at most and need nothing of the user."""


@pytest.mark.parametrize("verb", sorted(PARSERS))
def test_every_verb_shows_examples_and_how_it_is_called(verb: str) -> None:
    text = PARSERS[verb].format_help()
    assert examples_of(PARSERS[verb])
    usage = text.splitlines()[0]
    assert usage.startswith(f"usage: graftwork {verb} ")
    assert usage.endswith("[options]")


@pytest.mark.parametrize(("verb", "example"), EXAMPLES)
def test_examples_are_understood(verb: str, example: str) -> None:
    words = shlex.split(example)
    assert words[:2] == ["graftwork", verb]
    PARSERS[verb].parse_args(words[2:])


def test_backbones_in_examples_exist() -> None:
    known = {info.name for info in list_backbones()} | {"all", "none", "build"}
    named = 0
    for verb, example in EXAMPLES:
        arguments = vars(PARSERS[verb].parse_args(shlex.split(example)[2:]))
        values = [arguments.get(key) for key in ("backbone", "sources", "student", "teacher")]
        values += [arguments.get("name")] if verb == "backbones" else []
        words = [word for value in values if value for word in (value if isinstance(value, list) else [value])]
        for name in ",".join(words).split(","):
            # Folders, files and names of other libraries are the user's own.
            if name and not set("/:.") & set(name):
                assert name.partition("@")[0] in known, example
                named += 1
    assert named > 10


@pytest.mark.parametrize("example", QUICK)
def test_quick_examples_run(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "completion" in example:
        pytest.importorskip("shtab")
    assert example in [known for _, known in EXAMPLES], "shown in no help text"
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(example)[1:]) == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("verb", sorted(PARSERS))
def test_wrong_use_is_2_and_says_where_to_look(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--no-such-option"]) == 2
    said = capsys.readouterr().err
    assert "--no-such-option" in said or "missing" in said
    assert f"See: graftwork {verb} --help" in said


@pytest.mark.parametrize(
    "verb", [verb for verb, parser in PARSERS.items() if any(a.required and not a.option_strings for a in parser._actions)]
)
def test_what_is_missing_is_named_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb]) == 2
    said = capsys.readouterr().err
    assert "missing:" in said
    example = said.split("For example: ")[1].splitlines()[0]
    assert example in [known for name, known in EXAMPLES if name == verb] or example == first_example(
        PARSERS[verb].epilog or "", f"graftwork {verb}"
    )


def test_what_needs_one_of_several_is_shown_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("reproduce", "distill"):
        assert main([verb]) == 2
        example = capsys.readouterr().err.split("For example: ")[1].strip()
        PARSERS[verb].parse_args(shlex.split(example)[2:])


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["fit", "--device", "gpu"], "--device takes auto, cpu, cuda or mps; got 'gpu'. Did you mean 'cpu'?"),
        (["fit", "--steps", "many"], "--steps takes a whole number; got 'many'."),
        (["serve", "runs/x", "--timeout", "soon"], "--timeout takes a number; got 'soon'."),
        (["compare", "--engine", "rai"], "--engine takes local or ray; got 'rai'. Did you mean 'ray'?"),
        (["tune", "--method"], "--method needs a value: a method of the list below"),
        (["new", "methods", "tuning", "x"], "the argument what takes method; got 'methods'. Did you mean 'method'?"),
        (["predict", "run", "rows.csv", "more.csv"], "too many arguments: more.csv."),
        (["fit", "--plots", "a"], "there is no option --plots. Did you mean '--plans'?"),
    ],
)
def test_wrong_values_are_named(words: list[str], answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert f"graftwork {words[0]}: {answer}" in capsys.readouterr().err


def test_the_overview_says_how_to_begin_and_what_codes_mean(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    begin = text[text.index("start here:") : text.index("verbs:")]
    for line in begin.splitlines()[1:]:
        if line.strip():
            words = shlex.split(line.split("   ")[0])
            PARSERS[words[1]].parse_args(words[2:])
    assert [line.split()[0] for line in text[text.index("exit codes:") :].splitlines()[1:]] == ["0", "1", "2", "3", "130"]


@pytest.mark.parametrize("word", ["report", "export", "train", "evaluate"])
def test_words_of_other_tools_are_answered(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert word not in find_verbs()
    assert main([word]) == 2
    said = capsys.readouterr().err
    assert any(name in said for name in ("report.html", "model.onnx", "'fit'"))
