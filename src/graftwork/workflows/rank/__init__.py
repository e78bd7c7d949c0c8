"""``rank``: which source to start from, judged on frozen features before anything is trained."""

from graftwork.workflows.rank.rank_run import RankRun
from graftwork.workflows.rank.start import rank

__all__ = ["RankRun", "rank"]
