"""The script for shells knows every verb and its options, and the shell accepts it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from graftwork.cli.completion import SHELLS, whole_parser
from graftwork.cli.main import find_verbs, main

pytest.importorskip("shtab")


@pytest.mark.parametrize("shell", SHELLS)
def test_all_verbs_and_an_option_of_one(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in find_verbs())
    assert "time-limit" in script


def test_bash_completes_a_verb_and_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    # Bash takes the function's name from what `complete` registered.
    ask = 'eval "$(cat)"; f=$(complete -p graftwork | sed "s/.*-F \\([^ ]*\\).*/\\1/"); %s; "$f" graftwork; printf "%%s\\n" "${COMPREPLY[@]}"'
    for words, expected in (("graftwork rep", "reproduce"), ("graftwork fit --time", "--time-limit")):
        typed = words.split()
        setup = f"COMP_WORDS=({' '.join(typed)}); COMP_CWORD={len(typed) - 1}; COMP_LINE='{words}'; COMP_POINT={len(words)}"
        done = subprocess.run([bash, "-c", ask % setup], input=script, capture_output=True, text=True, check=False, timeout=60)
        assert expected in done.stdout.split(), done.stderr


def test_no_option_is_declared_twice() -> None:
    assert whole_parser().prog == "graftwork"  # argparse refuses a second option of one name
