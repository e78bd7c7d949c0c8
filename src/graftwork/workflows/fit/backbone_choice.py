"""Which of several pretrained backbones a ``fit`` starts from: the one whose features say most of the targets, as ``rank`` judges it.

Scores of transferability are taken of a sample of the training rows; nothing is trained for them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.core.files import cache_folder
from graftwork.nn.backbones.catalog import modality_of, split_names
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.decisions import decided
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["ROWS", "SCORES", "backbone_rankings", "settled_backbone"]

ROWS = 500
"""Most training rows that backbones are judged on."""
SCORES = ("logme", "hscore", "knn", "probe")
_DRAWS = 20
_DECISION = "backbone of "


def settled_backbone(context: RunContext[FitSettings], names: str) -> str:
    """Return the names with one backbone for each kind of input.

    Args:
        context: The run; a ranking is stored with its decisions, so that a resumed run finds it.
        names: Names of backbones, separated by commas; several may read the same kind.

    Raises:
        GraftworkError: If a backbone is unknown, cannot be loaded, or cannot read the rows.
    """
    groups: dict[str, list[str]] = {}
    for name in split_names(names):
        groups.setdefault(modality_of(name), []).append(name)
    chosen = []
    for kind, group in groups.items():
        several = list(dict.fromkeys(group))
        if len(several) > 1 and kind in context.suite.kinds:
            ranking = decided(context, f"{_DECISION}{kind}", functools.partial(_ranking, context, kind, several))
            context.run.emit("backbones", kind=kind, **ranking)
            several = [ranking["sources"][0]["name"]]
        chosen += several
    return ",".join(chosen)


def backbone_rankings(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rankings of a run, one for each kind of input for which several backbones were named."""
    decisions = state.get("decisions", {})
    return [{"kind": name.removeprefix(_DECISION), **decisions[name]} for name in decisions if name.startswith(_DECISION)]


def _ranking(context: RunContext[FitSettings], kind: str, names: Sequence[str]) -> dict[str, Any]:
    """Return the backbones, the best first, with what they were judged by."""
    # Here, because what only reads results imports no torch.
    from graftwork.evaluation.score_stability import HalfSamples, standings
    from graftwork.workflows.rank.judging import common_columns, judge_source, score_tables
    from graftwork.workflows.rank.rows import rank_rows
    from graftwork.workflows.rank.sources import RankSource

    seed = context.settings.seed
    rows = rank_rows(context.suite, ROWS, seed=seed)
    samples = HalfSamples(len(rows.suite), groups=rows.groups, draws=_DRAWS, seed=seed)
    device = str(context.run.state.get("device", "cpu"))
    judged = []
    for name in names:
        source = RankSource(name, "catalog", kind, name)
        judged.append(judge_source(source, rows, SCORES, samples, cache=cache_folder("features"), seed=seed, device=device))
        context.pause_point()
    columns = common_columns(judged, rows, SCORES)
    values, replicates = score_tables(judged, columns)
    found = standings(values, replicates)
    order = sorted(range(len(names)), key=lambda index: (found[index].mean_rank, judged[index].ms_per_row))
    return {
        "rows": len(rows.suite),
        "scores": sorted({score for _, score in columns}),
        "sources": [
            {
                "name": names[index],
                "mean_rank": found[index].mean_rank,
                "first_share": found[index].first_share,
                "ms_per_row": judged[index].ms_per_row,
            }
            for index in order
        ],
    }
