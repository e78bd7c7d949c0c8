"""Gradient balancing beside its floors and torchjd's own engine: time and memory of one training step without the optimiser.

All contenders of one network and number of tasks take turns in one process with one thread, CPU seconds. ``passes`` is the floor
of exact
methods: one backward pass per task, nothing combined. Aims: exact methods at most 1.05 of it, with ``K x P`` floats and 10 %
more; gradients of the representation at most 1.5 of a plain step at 32 tasks; loss weighting at most 1.05 of a plain step.

Run: ``python -m benchmarks.gradient_balancing [--quick] [--json FILE]``
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks._timing import format_table, peak_over_idle, take_turns
from graftwork.core.optional import has
from graftwork.interfaces.balancer import BackwardContext, Balancer
from graftwork.methods.optimization.dwa import DynamicWeightAverage
from graftwork.methods.optimization.torchjd_bridge import jacobian_balancer, least_squares_projector
from graftwork.methods.optimization.uncertainty import UncertaintyWeighting

__all__ = ["main", "run"]

COLUMNS = ("network", "tasks", "method", "ms", "median_ms", "x_plain", "x_passes", "peak_mib", "x_matrix", "aim", "met")
AIMS = {
    "exact": ("x_passes", 1.05),
    "representation": ("x_plain", 1.5),
    "uncertainty": ("x_plain", 1.05),
    "dwa": ("x_plain", 1.05),
}


class ResidualBlock(nn.Module):
    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(width_out)
        self.second = nn.Conv2d(width_out, width_out, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(width_out)
        self.shortcut = (
            nn.Conv2d(width_in, width_out, 1, stride, bias=False) if stride > 1 or width_in != width_out else nn.Identity()
        )

    def forward(self, state: Tensor) -> Tensor:
        inner = F.relu(self.first_norm(self.first(state)))
        return F.relu(self.second_norm(self.second(inner)) + self.shortcut(state))


def make_trunk(network: str) -> tuple[nn.Module, int, Tensor]:
    """Return a trunk, its width and a batch: ``mlp``, ``resnet18``, or ``tiny`` with layers of both."""
    if network == "tiny":
        return (
            nn.Sequential(ResidualBlock(3, 4, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)),
            4,
            torch.randn(2, 3, 8, 8),
        )
    if network == "mlp":
        layers = [nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU()]
        return nn.Sequential(*layers), 512, torch.randn(64, 256)
    import timm

    return timm.create_model("resnet18", num_classes=0), 512, torch.randn(64, 3, 32, 32)


class Problem:
    """A trunk with ``num_tasks`` linear heads and the steps that are compared."""

    def __init__(self, network: str, num_tasks: int) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(1)
        self.trunk, width, self.inputs = make_trunk(network)
        self.heads = nn.ModuleList(nn.Linear(width, 1) for _ in range(num_tasks))
        self.targets = torch.randn(num_tasks, len(self.inputs), 1)
        self.shared = list(self.trunk.parameters())
        self.owned = [list(head.parameters()) for head in self.heads]
        self.num_shared = sum(parameter.numel() for parameter in self.shared)

    def losses(self) -> tuple[list[Tensor], Tensor]:
        for parameter in (*self.shared, *self.heads.parameters()):
            parameter.grad = None
        representation = self.trunk(self.inputs)
        return [
            F.mse_loss(head(representation), target) for head, target in zip(self.heads, self.targets, strict=True)
        ], representation

    def plain(self) -> None:
        torch.stack(self.losses()[0]).sum().backward()

    def passes(self) -> None:
        losses, _ = self.losses()
        for index, loss in enumerate(losses):
            loss.backward(retain_graph=index < len(losses) - 1)

    def balanced(self, balancer: Balancer) -> Callable[[], None]:
        def step() -> None:
            losses, representation = self.losses()
            balancer.backward(torch.stack(losses), BackwardContext(self.shared, self.owned, representation, 0))

        return step

    def autojac(self, chunk: int | None) -> Callable[[], None]:
        from torchjd.aggregation import UPGrad
        from torchjd.autojac import jac_to_grad, mtl_backward

        aggregator = UPGrad(projector=least_squares_projector(1e-4, 1e-4))

        def step() -> None:
            losses, representation = self.losses()
            mtl_backward(losses, representation, tasks_params=self.owned, shared_params=self.shared, parallel_chunk_size=chunk)
            jac_to_grad(self.shared, aggregator)

        return step

    def contenders(self) -> dict[str, Callable[[], None]]:
        found: dict[str, Callable[[], None]] = {
            "plain": self.plain,
            "passes": self.passes,
            "uncertainty": self.balanced(UncertaintyWeighting()),
            "dwa": self.balanced(DynamicWeightAverage()),
        }
        if has("torchjd"):
            found["exact"] = self.balanced(jacobian_balancer("UPGrad"))
            found["exact, whole matrix"] = self.balanced(jacobian_balancer("UPGrad", factored=False))
            found["representation"] = self.balanced(jacobian_balancer("UPGrad", "representation"))
            found["autojac"] = self.autojac(None)
            found["autojac, one by one"] = self.autojac(1)
        return found


def prepare(network: str, num_tasks: int, method: str) -> Callable[[], None]:
    """Return one contender after everything that happens only once in a process: lazy imports, workspaces of libraries."""
    Problem("tiny", 8).contenders()[method]()
    return Problem(network, num_tasks).contenders()[method]


def run(*, quick: bool = False) -> list[dict[str, Any]]:
    """Measure everything and return one row per network, number of tasks and method."""
    rows: list[dict[str, Any]] = []
    for network in ("mlp", "resnet18"):
        for num_tasks in (2, 8) if quick else (2, 8, 32):
            names = list(Problem(network, num_tasks).contenders())
            # Memory first: the forked processes then start from a heap without free space to hide in.
            peaks = {name: peak_over_idle(functools.partial(prepare, network, num_tasks, name)) for name in names}
            problem = Problem(network, num_tasks)
            timings = take_turns(problem.contenders(), rounds=3 if quick else 15, warmup=1 if quick else 2, seconds=45.0)
            for name in names:
                times = {"ms": timings[name].minimum * 1e3, "median_ms": timings[name].median * 1e3}
                ratios = {f"x_{floor}": timings[name].ratio(timings[floor]) for floor in ("plain", "passes")}
                rows.append(make_row(network, num_tasks, name, problem.num_shared, peaks, times | ratios))
    return rows


def make_row(
    network: str, num_tasks: int, name: str, num_shared: int, peaks: dict[str, int | None], measured: dict[str, float]
) -> dict[str, Any]:
    floor = "passes" if name.startswith(("exact", "autojac")) else "plain"
    peak, least = peaks[name], peaks[floor]
    row: dict[str, Any] = {"benchmark": "gradient_balancing", "network": network, "tasks": num_tasks, "method": name, **measured}
    row["shared_parameters"] = num_shared
    row["peak_mib"] = row["x_matrix"] = None
    if peak is not None and least is not None:
        row["peak_mib"] = peak / 2**20
        # The floor's peak without its gradients is activations and workspace, which the method needs as well (several passes keep
        # the graph); 1 is exactly the matrix of gradients.
        row["x_matrix"] = (peak - (least - num_shared * 4)) / (num_tasks * num_shared * 4)
    if name in AIMS:
        measure, limit = AIMS[name]
        row |= {"aim": f"{measure} <= {limit}", "met": bool(row[measure] <= limit)}
    return row


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, and write the rows as JSON if asked."""
    parser = argparse.ArgumentParser(description="Time and memory of gradient balancing.")
    parser.add_argument("--quick", action="store_true", help="fewer tasks and rounds: shows that it runs, not how fast")
    parser.add_argument("--json", type=Path, help="write the rows into this file")
    options = parser.parse_args(arguments)
    rows = run(quick=options.quick)
    print(format_table(rows, COLUMNS))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
