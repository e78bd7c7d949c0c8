"""Chat templates of merged models: as transformers reads and renders them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_mergekit_union import make_model, make_tokenizer

from graftwork.core.errors import ConfigError
from graftwork.workflows.merge_beside import SideFiles
from graftwork.workflows.mergekit import merge_from_yaml
from graftwork.workflows.mergekit.templates import own_template

transformers = pytest.importorskip("transformers")
TEXT = "merge_method: linear\nmodels: [{model: a}, {model: b}, {model: c}]\nparameters: {weight: 1}\n"
PLAIN, LOUD = "{% for m in messages %}{{ m['content'] }}{% endfor %}", "{{ messages[0]['content'] | upper }}"
TALK = [{"role": "user", "content": "red green"}, {"role": "assistant", "content": "blue"}]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name, template in (("a", None), ("b", PLAIN), ("c", PLAIN), ("d", LOUD)):
        make_model("chat").save_pretrained(root / name)
        tokenizer = make_tokenizer("chat")
        tokenizer.chat_template = template
        tokenizer.save_pretrained(root / name)
    return root


def merged(models: Path, text: str, out: Path) -> Any:
    (models / "merge.yml").write_text(text)
    report = merge_from_yaml(models / "merge.yml", out)
    return report, transformers.AutoTokenizer.from_pretrained(out) if out.is_dir() else None


def test_auto_takes_the_template_that_most_models_have(models: Path, tmp_path: Path) -> None:
    _, tokenizer = merged(models, TEXT + "chat_template: auto\n", tmp_path / "out")
    assert tokenizer.chat_template == PLAIN
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["chat_template"] == PLAIN
    _, tokenizer = merged(models, TEXT, tmp_path / "without")
    assert tokenizer.chat_template is None, "that of the first model, which has none"
    first = TEXT.replace("{model: a}", "{model: d}").replace(", {model: c}", "")
    assert merged(models, first + "chat_template: auto\n", tmp_path / "first")[1].chat_template == LOUD, "the first of equals"
    report, _ = merged(models, first.replace("{model: d}, {model: b}", "{model: a}") + "chat_template: auto\n", tmp_path / "none")
    assert "chat_template: auto finds none, since no model has one." in report.notes


def test_a_template_that_is_written_out_counts_more_than_that_of_the_base(models: Path, tmp_path: Path) -> None:
    text = TEXT.replace("{model: a}", "{model: d}")
    own = "{{ messages | length }} of {{ bos_token }}"
    _, tokenizer = merged(models, text + f"chat_template: '{own}'\ntokenizer_source: union\n", tmp_path / "out")
    assert tokenizer.chat_template == own
    assert tokenizer.apply_chat_template(TALK, tokenize=False) == "2 of <s>"


def test_chatml_is_rendered_as_it_is_known(models: Path, tmp_path: Path) -> None:
    _, tokenizer = merged(models, TEXT + "chat_template: chatml\n", tmp_path / "out")
    expected = "<|im_start|>user\nred green<|im_end|>\n<|im_start|>assistant\nblue<|im_end|>\n"
    assert tokenizer.apply_chat_template(TALK, tokenize=False) == expected
    assert tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True) == f"{expected}<|im_start|>assistant\n"


@pytest.mark.parametrize("value", ["alpaca", "3", "[a]"])
def test_other_names_are_refused_with_their_line(value: str, models: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 4, chat_template: must be auto .*, chatml, or the template itself, in Jinja"):
        merged(models, TEXT + f"chat_template: {value}\n", tmp_path / "out")


def test_weights_without_a_tokenizer_have_no_template(models: Path, tmp_path: Path) -> None:
    make_model("chat").save_pretrained(tmp_path / "bare")
    text = f"merge_method: linear\nmodels: [{{model: {tmp_path}/bare}}]\nparameters: {{weight: 1}}\nchat_template: chatml\n"
    (models / "merge.yml").write_text(text)
    report = merge_from_yaml(models / "merge.yml", tmp_path / "out")
    assert any("has no tokenizer that it could go with" in note for note in report.notes)
    assert not (tmp_path / "out" / "chat_template.jinja").exists()


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        ("one", "one"),
        ([{"name": "tools", "template": "x"}, {"name": "default", "template": " two\n"}], "two"),
        ({"default": "three"}, "three"),
        ({"tools": "x"}, ""),
        (7, ""),
    ],
)
def test_templates_are_found_however_they_are_stored(stored: Any, found: str) -> None:
    files = SideFiles(tokenizer={"tokenizer_config.json": json.dumps({"chat_template": stored}).encode()})
    assert own_template(files) == found
    both = SideFiles(tokenizer={**files.tokenizer, "chat_template.jinja": b"of its own\n"})
    assert own_template(both) == "of its own"
    assert own_template(SideFiles()) == ""
