"""Run by torchrun, or alone: one training with drawn settings, over all processes; the first one writes the weights.

python -m torch.distributed.run --standalone --nproc-per-node 2 tests/torture/gloo_run.py SETTINGS.json OUT.safetensors
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "training"))

import torch
import torch.distributed as dist
from parts_models import PARALLEL, build, suite_with_holes, weights_after
from safetensors.torch import save_file

from graftwork.training.parallel import DataParallel


def main(settings: Path, out: Path) -> None:
    """Train as the settings say."""
    torch.set_num_threads(1)
    asked = json.loads(settings.read_bytes())
    several = "RANK" in os.environ
    if several:
        dist.init_process_group("gloo")
    processes = DataParallel() if several else None
    rank = processes.rank if processes else 0
    # Only the first process has the seed of the start: the others get its parameters.
    trainer = build(
        suite_with_holes(asked["holes"]),
        PARALLEL[asked["balancer"]](),
        processes=processes,
        seed=asked["seed"] + rank,
        **asked["training"],
    )
    weights = weights_after(trainer, asked["steps"])
    if rank == 0:
        save_file(weights, out)
    if several:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    # Threads of gloo that still hold a tensor abort a process whose interpreter is already gone.
    sys.stdout.flush()
    os._exit(0)
