"""The budget guard: what a recipe declares equal over its arms was really spent equally."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graftwork.claims.experiment import Recipe
from graftwork.core.errors import BudgetError

__all__ = ["check_budgets"]


def check_budgets(recipe: Recipe, counts: Mapping[int, Mapping[str, Mapping[str, int]]]) -> None:
    """Hold what the recipe declares equal.

    Args:
        recipe: The recipe.
        counts: ``{seed: {arm: {counter: value}}}``.

    Raises:
        BudgetError: If arms differ, or a declared counter was never counted; all mismatches at once.
    """
    problems: list[str] = []
    for budget in recipe.equal_budget:
        arms: Sequence[str] = budget.arms or tuple(arm.name for arm in recipe.arms)
        for counter in budget.counters:
            for seed, by_arm in counts.items():
                values = {arm: by_arm[arm].get(counter, 0) for arm in arms if arm in by_arm}
                shown = ", ".join(f"{arm} {value}" for arm, value in values.items())
                largest = max(values.values(), default=0)
                # Equal zeros are no equal budgets: somebody forgot to count.
                if largest == 0:
                    problems.append(
                        f"{counter}, seed {seed}: declared equal, but nothing was counted; use the guard and budget_callback()"
                    )
                elif largest - min(values.values()) > budget.tolerance * largest:
                    problems.append(f"{counter}, seed {seed}: {shown}")
    if problems:
        raise BudgetError(
            f"The arms of {recipe.slug!r} did not spend what the recipe declares equal; no verdict is given:\n"
            + "\n".join(f"  - {problem}" for problem in problems)
        )
