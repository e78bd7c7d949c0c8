"""Run by a test: sources are judged and teachers asked on a device beside the CPU, with the bits of the CPU."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "training"))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from fake_device import NAME, Creation
from test_rank import own_run, pictures

from graftwork.core.files import cache_folder
from graftwork.evaluation.score_stability import HalfSamples
from graftwork.workflows.rank.judging import judge_source
from graftwork.workflows.rank.rows import rank_rows
from graftwork.workflows.rank.source_features import features_of
from graftwork.workflows.rank.sources import RankSource
from graftwork.workflows.teachers.asking import open_teacher


def main(folder: Path) -> None:
    suite = pictures()
    own = own_run(folder / "mine", suite)
    rows = rank_rows(suite, 40, seed=0)
    samples = HalfSamples(len(rows.suite), groups=rows.groups, draws=10, seed=0)
    for source in (
        RankSource("scratch", "untrained", "image", "scratch"),
        RankSource("mine", "run", "image", str(own / "model")),
    ):
        here, there = (
            judge_source(source, rows, ("logme", "knn"), samples, cache=cache_folder("features"), seed=0, device=device)
            for device in ("cpu", NAME)
        )
        assert here.ms_per_row > 0
        assert there.ms_per_row > 0
        found = [
            {task: {name: score.value for name, score in scores.items()} for task, scores in one.scores.items()}
            for one in (here, there)
        ]
        assert found[0] == found[1]
        assert np.array_equal(features_of(source, rows.suite, seed=0), features_of(source, rows.suite, seed=0, device=NAME))
    # The two are stored apart, since a true accelerator rounds otherwise.
    assert len(list(cache_folder("features").glob("features-*"))) == 4
    one, other = (open_teacher(str(own), suite, seed=0, device=device) for device in ("cpu", NAME))
    assert one.key != other.key
    assert other.network is not None
    assert {parameter.device.type for parameter in other.network.parameters()} == {NAME}
    wanted, answers = (teacher.ask(np.arange(5)) for teacher in (one, other))
    assert set(wanted) == set(answers)
    assert all(np.array_equal(wanted[name], answers[name]) for name in wanted)


if __name__ == "__main__":
    with Creation():
        main(Path(sys.argv[1]))
