"""Run by torchrun: train with each balancer over all processes; the first one writes the weights."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
import torch.distributed as dist
from parts_models import DROPOUT, PARALLEL, build, parts_of, suite_with_holes, weights_after
from safetensors.torch import save_file

from graftwork.training.parallel import DataParallel


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    processes = DataParallel()
    suite = suite_with_holes()
    for name, make in PARALLEL.items():
        for parts in parts_of(make()):
            for dropout in (0.0, 0.3) if name in DROPOUT else (0.0,):
                trainer = build(suite, make(), processes=processes, accumulate=parts, seed=3 + processes.rank, dropout=dropout)
                weights = weights_after(trainer)
                for key, value in weights.items():
                    total = processes.total(value)
                    assert torch.equal(total, processes.size * value), f"{name}: {key} differs between the processes"
                if processes.rank == 0:
                    save_file(weights, folder / f"{name}-{parts}-{dropout}.safetensors")
    if processes.rank == 0:
        (folder / "size").write_text(str(processes.size))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    # All is written and compared. The interpreter's own end is left out: threads of gloo that still hold a tensor need the
    # interpreter to free it, and abort a process whose interpreter is already gone (seen in one of ten runs on a busy machine).
    os._exit(0)
