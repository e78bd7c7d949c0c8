"""``rank``: which source to start from, judged on frozen features before anything is trained."""

from graftwork.workflows.rank.data import rank_data
from graftwork.workflows.rank.rank_run import RankRun
from graftwork.workflows.rank.start import rank
from graftwork.workflows.rank.trust import transfer_table

__all__ = ["RankRun", "rank", "rank_data", "transfer_table"]
