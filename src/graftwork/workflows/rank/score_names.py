"""The scores that ``rank`` knows, by the names that users write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean
from graftwork.interfaces.scorer import Scorer
from graftwork.methods.selection.gbc import BhattacharyyaSeparability
from graftwork.methods.selection.h_score import HScore
from graftwork.methods.selection.leep import Leep
from graftwork.methods.selection.linear_probe import LinearProbe
from graftwork.methods.selection.logme import LogME
from graftwork.methods.selection.nce import NegativeConditionalEntropy
from graftwork.methods.selection.nearest import NearestNeighbours
from graftwork.methods.selection.ped import PotentialEnergyDescent
from graftwork.methods.selection.sfda import SelfChallengingFisher
from graftwork.methods.selection.trans_rate import TransRate

__all__ = ["DEFAULT_SCORES", "SCORES", "NamedScore", "chosen_scores"]


@dataclass(frozen=True, slots=True)
class NamedScore:
    """A score for users."""

    title: str
    words: str
    """What it says, as a clause."""
    make: Callable[[], Scorer]
    most_rows: int | None = None
    """Rows that it is taken of at most, drawn from all; None takes all of them."""


_NEIGHBOURS = 3000
SCORES: dict[str, NamedScore] = {
    "logme": NamedScore("LogME", "log evidence of a linear model, a row", LogME),
    "hscore": NamedScore("H-score", "variance between classes against all variance, shrunken", partial(HScore, shrink=True)),
    "hscore-plain": NamedScore("H-score, plain", "variance between classes against all variance", HScore),
    "leep": NamedScore("LEEP", "log-likelihood through the source's own classes", Leep),
    "nce": NamedScore("NCE", "minus the entropy of labels given the source's answers", NegativeConditionalEntropy),
    "transrate": NamedScore("TransRate", "bits that classes save in coding the features", TransRate),
    "gbc": NamedScore("GBC", "minus the overlap of classes taken as Gaussians", BhattacharyyaSeparability),
    "sfda": NamedScore("SFDA", "how sure a Fisher discriminant is of the labels, unsure rows made harder", SelfChallengingFisher),
    "ped": NamedScore("PED", "LogME after overlapping classes were pushed apart", PotentialEnergyDescent),
    "ped-sfda": NamedScore(
        "PED, SFDA", "SFDA after overlapping classes were pushed apart", lambda: PotentialEnergyDescent(SelfChallengingFisher())
    ),
    "knn": NamedScore(
        "Neighbours",
        "accuracy or R squared of five nearest neighbours",
        partial(NearestNeighbours, max_rows=_NEIGHBOURS),
        most_rows=_NEIGHBOURS,
    ),
    "probe": NamedScore(
        "Linear probe", "accuracy or R squared of a linear model on held-out rows", partial(LinearProbe, max_rows=2000)
    ),
}
DEFAULT_SCORES = ("logme", "hscore", "leep", "knn", "probe")


def chosen_scores(names: str | Sequence[str] | None) -> list[str]:
    """Return the scores that a user names, the defaults for None.

    Raises:
        ConfigError: If there is none, or one is unknown.
    """
    if names is None:
        return list(DEFAULT_SCORES)
    asked = [name.strip() for name in (names.split(",") if isinstance(names, str) else names) if name.strip()]
    if asked == ["all"]:
        return list(SCORES)
    for name in asked:
        if name not in SCORES:
            raise ConfigError(f"There is no score {name!r}.{did_you_mean(name, SCORES)} Choose from: all, {', '.join(SCORES)}.")
    if not asked:
        raise ConfigError(f"--scores names no score. Choose from: all, {', '.join(SCORES)}.")
    return list(dict.fromkeys(asked))
