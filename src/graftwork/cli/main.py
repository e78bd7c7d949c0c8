"""The command ``graftwork``: finds the verb's module, parses, runs, and turns errors into messages and exit codes.

A verb is a module beside this one with ``NAME``, ``HELP``, ``add_arguments(parser)`` and ``run(args) -> int``. Only the verb that is
asked for is imported, and verbs import their work inside ``run``: ``--help`` never waits for anything heavy.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

from graftwork.cli.common import VerbParser, add_debug_argument, quiet_pipe
from graftwork.core.nearest import did_you_mean
from graftwork.core.plain_text import plain_terminal

__all__ = ["find_verbs", "main"]

_ORDER = (
    "fit",
    "compare",
    "rank",
    "tune",
    "distill",
    "predict",
    "serve",
    "validate",
    "plans",
    "systems",
    "show",
    "reproduce",
    "merge",
    "data",
    "backbones",
    "new",
    "completion",
)
_START = """start here:
  graftwork fit                                     a demo on embedded pictures, about five minutes
  graftwork fit table.csv --targets price,sold      your data: which way of learning is best, a report and a model
  graftwork predict runs/NAME new.csv               predictions of that model; NAME is the folder that fit printed
  graftwork serve runs/NAME                         the same over HTTP, with a page to try it"""
_FOOTER = """`graftwork VERB --help` explains a verb with examples.

exit codes:
  0    done
  1    it ended without a result that can be used (no model, weights that are not finite), or there is a bug
  2    what was asked for cannot be done: wrong options, settings or data; the message says what to change
  3    a file or folder cannot be read or written, or the disk is full
  130  stopped by Ctrl-C; what was finished is kept"""
_MEANT = {
    "report": "Every run writes its report: open report.html in the run folder.",
    "export": "Every run folder has the model already: model.onnx, and model/ with safetensors.",
    "train": "Did you mean 'fit'? With a backbone of your choice: 'tune'.",
    "evaluate": "Every run folder has test scores with intervals in report.html. To judge several plans: graftwork compare.",
}
"""Words that newcomers try, with what there is in place of a verb."""


def _names() -> list[str]:
    folder = os.path.dirname(os.path.abspath(__file__))
    return [module.name for module in pkgutil.iter_modules([folder]) if not module.name.startswith("_")]


def _verb(name: str) -> ModuleType | None:
    """Return the module of a verb; None if the module is no verb."""
    module = importlib.import_module(f"graftwork.cli.{name}")
    return module if hasattr(module, "NAME") and hasattr(module, "run") else None


def find_verbs() -> dict[str, ModuleType]:
    """Return all verbs by name, the most used ones first."""
    found = {module.NAME: module for name in _names() if name not in ("main", "common") and (module := _verb(name)) is not None}
    rank = {name: index for index, name in enumerate(_ORDER)}
    return dict(sorted(found.items(), key=lambda item: (rank.get(item[0], len(rank)), item[0])))


def _help() -> str:
    verbs = find_verbs()
    width = max(len(name) for name in verbs)
    lines = [f"  {name:<{width}}  {module.HELP}" for name, module in verbs.items()]
    return "\n".join(
        [
            "usage: graftwork VERB [options]",
            "",
            "Multi-task and transfer learning in one run, on one scale, with measured numbers.",
            "",
            _START,
            "",
            "verbs:",
            *lines,
            "",
            _FOOTER,
        ]
    )


def _find(word: str) -> ModuleType | None:
    """Return the verb called ``word``; its module usually has its name, so that no other one is imported."""
    if word in _names() and (module := _verb(word)) is not None and word == module.NAME:
        return module
    # A module of another name may still hold the verb, so all are asked last.
    return find_verbs().get(word)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Words after ``graftwork``; those of the process by default.

    Returns:
        The exit code: 0 fine, 1 a bug, 2 wrong use or data, 3 storage, 130 stopped by Ctrl-C.
    """
    with _plain_terminals():
        return _main(list(sys.argv[1:] if argv is None else argv))


@contextlib.contextmanager
def _plain_terminals() -> Iterator[None]:
    """Keep control characters of data and files from the terminal, which would obey them."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = plain_terminal(sys.stdout), plain_terminal(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _main(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        with quiet_pipe():
            print(_help(), flush=True)
        return 0
    if words[0] in ("-V", "--version"):
        import graftwork

        print(f"graftwork {graftwork.__version__}")
        return 0
    module = _find(words[0])
    if module is None:
        what = "option" if words[0].startswith("-") else "verb"
        hint = f" {_MEANT[words[0]]}" if words[0] in _MEANT else did_you_mean(words[0], list(find_verbs()))
        print(f"graftwork: there is no {what} {words[0]!r}.{hint}\nSee: graftwork --help", file=sys.stderr)
        return 2
    parser = VerbParser(prog=f"graftwork {module.NAME}", description=module.HELP[:1].upper() + module.HELP[1:] + ".")
    module.add_arguments(parser)
    add_debug_argument(parser)
    try:
        args = parser.parse_args(words[1:])
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 2
    return _run(module, args.debug, args)


def _run(module: ModuleType, debug: bool, args: object) -> int:
    from graftwork.core.components import components_allowed
    from graftwork.core.errors import GraftworkError, StorageError

    try:
        with quiet_pipe(), components_allowed(getattr(args, "allow_components", ())):
            return int(module.run(args) or 0)
        # Only reached if the pipe was closed: the command has done its work as far as anybody read it. Verbs whose work is more
        # than what they print go on by themselves.
        return 0
    except GraftworkError as error:
        if debug:
            raise
        print(f"graftwork {module.NAME}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        print(f"\n{str(error) or 'Stopped.'}", file=sys.stderr)
        return 130
    except OSError as error:
        # What the system refuses is no bug, and no verb foresees all of it: names that are too long, a disk that fails.
        if debug:
            raise
        where = f"{str(error.filename)[:200]}: " if error.filename is not None else ""
        print(
            f"graftwork {module.NAME}: {where}{error.strerror or error}. Check the names and folders that you gave, and the disk; "
            "--debug shows where this came from.",
            file=sys.stderr,
        )
        return StorageError.exit_code
    except Exception as error:
        if debug:
            raise
        print(
            f"graftwork {module.NAME}: unexpected error: {type(error).__name__}: {error}\n"
            "This is a bug. Run again with --debug and report the traceback.",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
