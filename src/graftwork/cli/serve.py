"""``graftwork serve``: the model of a run behind HTTP."""

from __future__ import annotations

import argparse
import sys

from graftwork.cli.common import add_component_argument
from graftwork.cli.shared_flags import add_device_argument, add_flag

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "serve"
HELP = "answer requests over HTTP with the model of a run, or with many tuned models of one backbone, and show a page to try it"
EXAMPLES = """examples:
  graftwork serve runs/emoji-20260101-120000
  graftwork serve runs/houses --plan lightgbm                another finalist than the chosen one
  graftwork serve runs/houses --port 8080 --max-batch 256 --max-wait-ms 5
  graftwork serve runs/tune-reviews mails=runs/tune-2         tuned models of one backbone: it is loaded once, each asked by name
  graftwork serve runs/tune-*/ --base hf:models/minilm        a hundred of them; the backbone is here, not where they were tuned
  GRAFTWORK_TOKEN=secret graftwork serve runs/houses --host 0.0.0.0 --allowed-hosts models.example.org
  curl http://127.0.0.1:8000/predict -H 'Content-Type: application/json' -d '{"rows": [{"area": 120, "city": "Rome"}], "tasks": ["price"]}'
  curl http://127.0.0.1:8000/models/mails/predict -H 'Content-Type: application/json' -d '{"texts": ["Please call back."]}'
  curl http://127.0.0.1:8000/predict -F images=@picture.png -F tasks=category,ink
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags; limits that are not given keep their defaults."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "run",
        metavar="RUN",
        nargs="+",
        help="folder of a finished run; several runs of graftwork tune (or their delta folders) are served together, under the names "
        "of their folders or as NAME=FOLDER, if they were tuned from one backbone",
    )
    parser.add_argument(
        "--base", metavar="BACKBONE", help="backbone that tuned runs share (default: the one that the first of them names)"
    )
    add_flag(parser, "--plan")
    parser.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine alone)"
    )
    parser.add_argument("--port", metavar="N", type=int, default=8000, help="port, 0 for a free one (default: 8000)")
    parser.add_argument(
        "--token",
        metavar="TOKEN",
        help="what clients must send as Authorization: Bearer TOKEN (default: $GRAFTWORK_TOKEN, or no token)",
    )
    parser.add_argument(
        "--allowed-hosts",
        metavar="A,B",
        help="names by which clients call this server, as in example.org,*.example.net, or * for any (default: localhost and the "
        "address that is listened on)",
    )
    add_flag(parser, "--threads", "ONNX Runtime for each session, or of torch")
    add_device_argument(parser, "tuned runs that share a backbone are computed; the model of one run answers on the CPU")
    add_component_argument(parser)
    limits = parser.add_argument_group("batches and limits")
    limits.add_argument("--max-batch", metavar="ROWS", type=int, help="rows that run together (default: 64)")
    limits.add_argument("--max-wait-ms", metavar="MS", type=float, help="how long a request waits for others (default: 2)")
    limits.add_argument("--max-rows", metavar="ROWS", type=int, help="rows of one request (default: 1000)")
    limits.add_argument("--max-body-bytes", metavar="BYTES", type=int, help="size of one request (default: 16777216)")
    limits.add_argument("--max-bodies-bytes", metavar="BYTES", type=int, help="size of all requests in work (default: 268435456)")
    limits.add_argument("--max-pixels", metavar="N", type=int, help="pixels of one request's pictures (default: 64000000)")
    limits.add_argument("--max-picture-pixels", metavar="N", type=int, help="pixels of one picture (default: 25000000)")
    limits.add_argument("--max-queue", metavar="N", type=int, help="requests in work at once (default: 1024)")
    limits.add_argument("--max-connections", metavar="N", type=int, help="connections that are open at once (default: 1000)")
    limits.add_argument("--max-lanes", metavar="N", type=int, help="sets of tasks whose sessions stay open (default: 32)")
    limits.add_argument("--header-timeout", metavar="SECONDS", type=float, help="time for a request's headers (default: 10)")
    limits.add_argument("--timeout", metavar="SECONDS", type=float, help="time for one request (default: 30)")
    limits.add_argument("--stop-timeout", metavar="SECONDS", type=float, help="time to finish when stopping (default: 30)")


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from graftwork.serving.limits import ServeLimits
    from graftwork.serving.serve import serve

    limits = {name: getattr(args, name) for name in ServeLimits.__dataclass_fields__ if getattr(args, name) is not None}

    def ready(address: str) -> None:
        what = args.run[0] if len(args.run) == 1 else f"{len(args.run)} models"
        what = f"{what} (plan {args.plan})" if args.plan else what
        print(
            f"{what} {'answers' if len(args.run) == 1 else 'answer'} at {address} (try it there; API: {address}/docs). Stop with Ctrl-C.",
            file=sys.stderr,
            flush=True,
        )

    serve(
        args.run[0] if len(args.run) == 1 else args.run,
        host=args.host,
        port=args.port,
        token=args.token,
        allowed_hosts=[name for name in (args.allowed_hosts or "").split(",") if name.strip()],
        threads=args.threads,
        plan=args.plan,
        base=args.base,
        device=args.device or "auto",
        on_ready=ready,
        **limits,
    )
    return 0
