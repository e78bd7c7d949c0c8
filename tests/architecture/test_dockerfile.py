"""The Dockerfile builds on files that are there, runs without privileges and names no address."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from graftwork.cli import serve

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines]


def stages() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            found[rest.split(" AS ")[1]] = []
        found[list(found)[-1]].append((word, rest))
    return found


def test_images_are_pinned_to_a_python_that_is_supported() -> None:
    first = next(rest for word, rest in instructions() if word == "FROM")
    version = re.fullmatch(r"python:(3\.\d+)-slim AS base", first)
    assert version is not None
    assert f"Programming Language :: Python :: {version[1]}" in PROJECT["classifiers"]
    assert [rest.split()[0] for word, rest in instructions() if word == "FROM"][1:] == ["base", "base"]


@pytest.mark.parametrize("name", ["serve", "train"])
def test_nothing_runs_as_root(name: str) -> None:
    words = [word for word, _ in stages()[name]]
    users = [rest for word, rest in stages()[name] if word == "USER"]
    # By number: that is what a cluster can check.
    assert users == ["10001"]
    assert "useradd --uid 10001" in dict(stages()["base"])["RUN"]
    assert words.index("USER") > max(place for place, word in enumerate(words) if word in ("RUN", "COPY"))


@pytest.mark.parametrize("name", ["serve", "train"])
def test_the_extra_exists_and_versions_are_those_that_were_tested(name: str) -> None:
    installs = [part for word, rest in stages()[name] if word == "RUN" for part in re.findall(r"pip install [^&;]+", rest)]
    assert installs
    assert all("--constraint requirements/lock.txt" in part for part in installs)
    extra = {"serve": "serve", "train": "all"}[name]
    assert f'".[{extra}]"' in installs[-1]
    assert extra in PROJECT["optional-dependencies"]


def test_what_is_copied_is_there_and_is_not_ignored() -> None:
    sources = [one for word, rest in instructions() if word == "COPY" for one in rest.split()[:-1]]
    assert {"pyproject.toml", "README.md", "LICENSE", "src", "requirements/lock.txt"} == set(sources)
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    assert all((ROOT / one).exists() for one in sources)
    assert kept == set(sources)
    # What the build of the package reads is among them.
    assert "README.md" in sources
    assert all(any(file == one or file.startswith(f"{one}/") for one in sources) for file in PROJECT["license-files"])


def test_no_address_and_no_secret_is_named() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8").lower()
    assert re.findall(r"\w+://[\w.]+", text) == ["http://localhost"]
    assert not re.search(r"\b(arg|env)\b.*(token|password|secret)", text)


def test_the_server_is_started_by_words_that_the_command_knows() -> None:
    stage = dict(stages()["serve"])
    command = json.loads(stage["ENTRYPOINT"]) + json.loads(stage["CMD"])
    assert command[:2] == ["graftwork", serve.NAME]
    from argparse import ArgumentParser

    parser = ArgumentParser()
    serve.add_arguments(parser)
    found = parser.parse_args(command[2:])
    assert (found.host, str(found.port), found.run) == ("0.0.0.0", stage["EXPOSE"], ["/run-folder"])
    assert "/health" in stage["HEALTHCHECK"]
    assert dict(stages()["train"])["ENTRYPOINT"] == '["graftwork"]'
