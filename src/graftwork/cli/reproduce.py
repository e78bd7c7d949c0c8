"""``graftwork reproduce``: run a system against its baselines until its claim is decided, and say what it comes to."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from graftwork.cli.common import quiet_pipe
from graftwork.cli.shared_flags import add_flag, add_out_argument, add_workers_argument
from graftwork.core.plain_text import own_code

if TYPE_CHECKING:
    from graftwork.claims.piloting import PilotOutcome
    from graftwork.claims.reproduction import Reproduction

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "reproduce"
HELP = "run a system's recipe and judge its claim (all arms, seeds until it is decided, paired intervals)"
EXAMPLES = """examples:
  graftwork reproduce ties --smoke       everything runs, in seconds
  graftwork reproduce esmm --pilot       tunes all arms on their grids, for recipes that declare some
  graftwork reproduce ties               the full run: verdict and evidence
  graftwork reproduce ties --resume      after a stop
  graftwork reproduce --stale            whatever was changed since its run
  graftwork reproduce --rejudge          kept measurements by the rules of today, nothing is run"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.epilog = EXAMPLES
    parser.add_argument("slug", nargs="?", metavar="SLUG", help="the system, as `graftwork systems` lists it")
    parser.add_argument(
        "--smoke", action="store_true", help="smallest sizes, in seconds: shows that everything runs, gives no evidence"
    )
    parser.add_argument(
        "--mark",
        action="store_true",
        help="with --smoke: note in the evidence that it is stale if the smoke numbers no longer come out",
    )
    add_flag(parser, "--seeds", "at most; evidence is written at the numbers that the recipe plans")
    parser.add_argument(
        "--pilot",
        action="store_true",
        help="try the grids that the recipe declares, on seeds of their own; the counting run takes what is chosen",
    )
    parser.add_argument("--resume", action="store_true", help="go on with a stopped run; finished jobs are not repeated")
    add_out_argument(parser, "file to write: the evidence", "the package's results folder")
    parser.add_argument("--work", metavar="FOLDER", help="where finished jobs are kept (default: the user's cache)")
    add_workers_argument(parser)
    parser.add_argument("--stale", action="store_true", help="run all systems whose evidence belongs to older code")
    parser.add_argument(
        "--rejudge",
        action="store_true",
        help="judge the kept measurements of a system again, or of all that were judged by earlier rules; nothing is run",
    )
    parser.add_argument(
        "--because",
        default="",
        metavar="TEXT",
        help="with --rejudge, where code changed: why the full run would give the same numbers; the smoke run must agree",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run one system, or all stale ones; the exit code does not depend on the verdict."""
    from graftwork.core.errors import ConfigError

    if arguments.because and not (arguments.rejudge and arguments.slug):
        raise ConfigError(
            "--because explains why kept measurements of one system are still good; give it with SLUG and --rejudge."
        )
    if arguments.pilot:
        return _pilot(arguments)
    if arguments.rejudge:
        return _rejudge(arguments)
    # Exactly one of them.
    if arguments.stale == bool(arguments.slug):
        raise ConfigError(
            "Name one system, or give --stale to run all whose evidence is stale. For example: graftwork reproduce ties --smoke"
        )
    if arguments.mark and not arguments.smoke:
        raise ConfigError("--mark compares smoke numbers; give it together with --smoke.")
    if arguments.stale and (arguments.out or arguments.work):
        raise ConfigError("--out and --work name places for one system; leave them out with --stale.")
    from graftwork.claims.reproduction import reproduce, stale_cards

    slugs = [card.slug for card in stale_cards()] if arguments.stale else [arguments.slug]
    if not slugs:
        print("No evidence is stale.")
    for slug in slugs:
        try:
            done = reproduce(
                slug,
                smoke=arguments.smoke,
                seeds=arguments.seeds,
                resume=arguments.resume,
                out=arguments.out,
                work=arguments.work,
                workers=arguments.workers,
                on_event=progress_printer(slug),
            )
        except KeyboardInterrupt:
            print(f"\nStopped. Finished jobs are kept: graftwork reproduce {slug} --resume goes on.", file=sys.stderr)
            return 130
        with quiet_pipe():  # the next ones are reproduced whoever reads
            print_reproduction(done)
        if done.changed and arguments.mark:
            from graftwork.claims.evidence import mark_stale

            mark_stale(done.card, done.changed)
            print(f"Marked as stale: {done.card.evidence_file}")
    return 0


def _pilot(arguments: argparse.Namespace) -> int:
    from graftwork.claims.piloting import check_edges
    from graftwork.claims.reproduction import pilot_card
    from graftwork.claims.run_plan import card_of
    from graftwork.core.errors import ConfigError

    if not arguments.slug or arguments.smoke or arguments.stale or arguments.rejudge or arguments.seeds:
        raise ConfigError(
            "--pilot tunes the arms of one system on the recipe's own seeds: give it with SLUG, and without --seeds."
        )
    card = card_of(arguments.slug)
    try:
        done = pilot_card(
            card,
            resume=arguments.resume,
            out=arguments.out,
            work=arguments.work,
            workers=arguments.workers,
            on_event=progress_printer(card.slug),
        )
    except KeyboardInterrupt:
        print(f"\nStopped. Finished jobs are kept: graftwork reproduce {card.slug} --pilot --resume goes on.", file=sys.stderr)
        return 130
    print_pilot(card.slug, done)
    # After the print: whoever has to widen a grid wants to see the scores.
    check_edges(card, done.edges)
    return 0


def print_pilot(slug: str, done: PilotOutcome) -> None:
    """Print the trials of every arm and what was chosen."""
    from graftwork.cli.tables import format_table, terminal_width

    record = done.record
    rows = []
    for arm, entry in record["arms"].items():
        for number, trial in enumerate(entry["trials"]):
            shown = ", ".join(f"{name} {value}" for name, value in trial["settings"].items())
            rows.append([arm, shown, f"{trial['mean']:.4g}", "chosen" if number == entry["trial"] else ""])
    print(f"\n{slug}: {', '.join(record['score'])}, {'lower' if record['lower_is_better'] else 'higher'} is better\n")
    print(format_table(["arm", "settings", "score", ""], rows, width=terminal_width(), stretch=1, right=(2,)))
    for item in done.headroom:
        print(f"  headroom {item.state}: {item.sentence}")
    print(f"\nSeeds {', '.join(map(str, record['seeds']))}, {_duration(record['seconds'])} of computing. Kept in {done.path}")


def _rejudge(arguments: argparse.Namespace) -> int:
    from graftwork.claims.rejudging import cards_of_earlier_rules, rejudge_card
    from graftwork.claims.run_plan import card_of
    from graftwork.core.errors import ConfigError, GraftworkError

    if arguments.smoke or arguments.stale or arguments.seeds or arguments.resume or arguments.out or arguments.work:
        raise ConfigError("--rejudge judges measurements that are kept, and runs nothing: it goes with SLUG and --because only.")
    cards = [card_of(arguments.slug)] if arguments.slug else cards_of_earlier_rules()
    if not cards:
        print("No evidence was judged by earlier rules.")
    failed = 0
    for card in cards:
        try:
            done = rejudge_card(card, because=arguments.because)
        except GraftworkError as error:
            if arguments.slug:
                raise
            # The others are judged all the same; this one stays as it is, and is shown as stale.
            failed += 1
            print(f"{card.slug}: cannot be judged again: {error}")
            continue
        print(f"{card.slug}: {done.before or 'no verdict'} -> {done.verdict.word} ({done.verdict.reason})")
    return 1 if failed else 0


def progress_printer(slug: str) -> Callable[[Mapping[str, Any]], None]:
    """Return a listener that shows what runs, what is done and how long the rest will take, on standard error."""
    started = time.monotonic()
    state = {"first": 0, "line": 0.0}
    is_live = sys.stderr.isatty()

    def listen(event: Mapping[str, Any]) -> None:
        if event["kind"] == "start":
            state["first"] = event["finished"]
            already = f", {event['finished']} of them done before" if event["finished"] else ""
            print(f"{slug}: {event['jobs']} jobs{already}, {event['workers']} at a time", file=sys.stderr)
        elif event["kind"] == "job":
            # Jobs that were finished before took none of this run's time.
            done_now = event["finished"] - state["first"]
            left = (time.monotonic() - started) / done_now * (event["jobs"] - event["finished"])
            line = f"[{event['finished']:>3}/{event['jobs']}] seed {event['seed']}  {event['arm']}  {event['seconds']:.1f} s"
            print(f"{_clear(is_live)}{line}{f'  about {_duration(left)} left' if left else ''}", file=sys.stderr)
        elif event["kind"] == "look":
            print(f"{_clear(is_live)}look after {event['seeds']} seeds: {event['reason']}", file=sys.stderr)
        elif is_live and time.monotonic() - state["line"] > 0.2:
            state["line"] = time.monotonic()
            line = f"      seed {event['seed']}  {event['arm']}  {100 * event['fraction']:.0f} %  {event['text']}"
            print(f"{_clear(is_live)}{line[:100]}", end="", flush=True, file=sys.stderr)

    return listen


def print_reproduction(done: Reproduction) -> None:
    """Print arms, inequalities and verdict."""
    from graftwork.cli.show import findings_table
    from graftwork.cli.tables import terminal_width

    width = terminal_width()
    findings = [finding.to_json() for finding in done.verdict.findings]
    print(f"\n{done.card.slug}: {done.card.title}\n")
    print(findings_table(findings, width, judged=done.evidence is not None))
    for finding in done.verdict.findings:
        if done.evidence is not None and finding.state != "shown":
            print(f"  {finding.state}: {finding.name}: {finding.reason}")
    if done.evidence is not None:
        for item in done.verdict.headroom:
            print(f"  headroom {item.state}: {item.sentence}")
        for warning in done.evidence["convergence"]["warnings"]:
            print(f"  warning: {warning}")
    print(f"\n{len(done.recipe.arms)} arms, seeds {', '.join(map(str, done.seeds))}, {_duration(done.seconds)} of computing.")
    if done.recipe.pilot is None and done.evidence is not None:
        print("note: the recipe declares no grids; how settings were found is in its docstring")
    for note in done.recipe.notes:
        print(f"note: {note}")
    if done.evidence is None:
        print(f"No verdict: {'; '.join(done.notes)}.")
        if done.changed:
            print(
                "The evidence is stale, since smoke numbers no longer come out: shared code computes "
                "something else than it did then."
            )
            for line in done.changed[:10]:
                print(f"  {line}")
    else:
        print(f"Verdict: {done.verdict.word}: {done.verdict.reason}. Evidence: {done.path}")


def _clear(is_live: bool) -> str:
    return own_code("\r\x1b[K", sys.stderr) if is_live else ""


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
