"""One merge in a fresh process: ``python -m benchmarks._merging_work KIND FOLDER OUT [--memory]`` prints what it cost as JSON.

Time counts from after the imports to the end of the written file; imports are given beside. With ``--memory`` a thread samples
the anonymous memory of the process (mapped files do not count) and times mean nothing.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["KINDS", "main"]

KINDS = ("floor", "averaging", "task-arithmetic", "ties", "ties-per-tensor", "averaging+hashes", "ties+hashes", "peft-ties")
DENSITY = 0.2
_BUFFER = 1 << 22
_INTERVAL = 0.002


def copy_floor(base: Path, models: list[Path], out: Path) -> None:
    """Read every byte of all files and write one of them: what no merge can do without."""
    buffer = memoryview(bytearray(_BUFFER))
    with open(out, "wb") as target:
        for path in (base, *models):
            with open(path, "rb", buffering=0) as source:
                while count := source.readinto(buffer):
                    if path == base:
                        target.write(buffer[:count])
        target.flush()
        os.fsync(target.fileno())


def prepare(kind: str) -> Callable[[Path, list[Path], Path], object]:
    """Import what a contender needs and return its work."""
    if kind == "floor":
        return copy_floor
    if kind == "peft-ties":
        import torch
        from peft.utils.merge_utils import ties
        from safetensors.torch import load_file, save_file

        torch.set_num_threads(1)

        def with_peft(base: Path, models: list[Path], out: Path) -> None:
            first, tuned = load_file(base), [load_file(path) for path in models]
            weights = torch.ones(len(tuned))
            with torch.inference_mode():
                merged = {
                    name: value + ties([model[name] - value for model in tuned], weights, DENSITY)
                    for name, value in first.items()
                }
            save_file(merged, out)

        return with_peft
    from graftwork.interfaces.merger import Merger
    from graftwork.methods.merging.ties import TiesConfig, TiesMerger
    from graftwork.workflows.merge import build_merger, merge

    name, _, hashes = kind.partition("+")
    merger: Merger
    if name == "ties-per-tensor":  # peft's rules: trimmed tensor by tensor, exact ties count as positive
        merger = TiesMerger(TiesConfig(density=DENSITY, trim="per-tensor", zero_sign="positive"))
    else:
        merger = build_merger(name)
    return lambda base, models, out: merge(base, models, out, method=merger, hashes=bool(hashes))


class AnonymousPeak:
    """Samples ``RssAnon`` of this process while it is entered."""

    def __init__(self) -> None:
        self.idle, self.peak = _anonymous(), 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> AnonymousPeak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, _anonymous())  # short work may fall between two samples

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL):
            self.peak = max(self.peak, _anonymous())


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no RssAnon; memory is measured on Linux only")


def main(arguments: list[str] | None = None) -> int:
    """Do the work and print its cost."""
    kind, folder, out, *flags = sys.argv[1:] if arguments is None else arguments
    started = time.process_time()
    work = prepare(kind)
    imports = time.process_time() - started
    base, *models = sorted(Path(folder).glob("*.safetensors"))
    found: dict[str, float | bool] = {"imports_s": imports}
    if "--memory" in flags:
        with AnonymousPeak() as memory:
            work(base, models, Path(out))
        found["anonymous"] = max(0, memory.peak - memory.idle)
    else:
        cpu, wall = time.process_time(), time.perf_counter()
        work(base, models, Path(out))
        found |= {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    found["torch_imported"] = "torch" in sys.modules
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
