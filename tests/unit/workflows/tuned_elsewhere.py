"""Run by a test: tuned models of one backbone answer on a device beside the CPU, with the bits of the CPU."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import pytest
from fake_device import NAME, Creation
from tuned_runs import tune, write_pictures

from graftwork.training.tuned_group import AskedRows, TunedGroup


def main(folder: Path) -> None:
    root = write_pictures(folder / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graftwork.workflows.tune.costs.METHODS", ())  # what others would cost takes long
        runs = {
            name: tune("conv-mini", root / "images", root / name, name, labels=str(root / "labels.csv"), targets="colour,light")
            for name in ("bn-only", "lora")
        }
    random = np.random.default_rng(0)
    found = []
    for device in ("cpu", NAME):
        with Creation():
            group = TunedGroup(device=device)
            for name, run in runs.items():
                spec = group.add(name, run.delta_folder).spec
            shape = (3, spec.sizes["size"], spec.sizes["size"], 3) if "size" in spec.sizes else (3, 32, 32, 3)
            random = np.random.default_rng(0)
            rows = {name: random.integers(0, 256, shape).astype(np.uint8) for name in runs}
            found.append(group.predict([AskedRows(name, {"image": rows[name]}, ("colour", "light")) for name in runs]))
            assert group._trunk is not None
            assert {parameter.device.type for parameter in group._trunk.parameters()} == {device}
    for here, there in zip(*found, strict=True):
        assert all(np.array_equal(here[task], there[task]) for task in ("colour", "light"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
