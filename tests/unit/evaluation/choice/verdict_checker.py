"""Reads a verdict as a suspicious person would: takes the claims out of its sentences and looks each of them up in the result.

It shares no code with what writes the sentences. Whatever a sentence says that no rule here can read is an error as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from claim_words import (
    CHANGE,
    MEAN,
    NAME,
    SIGNS,
    WORDS,
    ContradictionError,
    Result,
    check_interval,
    check_word,
    need,
    same,
)
from remark_checker import check_phrases, check_source, check_warnings

__all__ = ["ContradictionError", "check_verdict"]


def comparison(result: Result, task: str, plan: str, reference: str) -> Mapping[str, Any] | None:
    rows = [row for row in result["comparisons"] if (row["task"], row["plan"], row["reference"]) == (task, plan, reference)]
    return rows[0] if rows else None


def cost_of(result: Result, plan: str) -> float | None:
    return next((row["cost"] for row in result["pareto"] if row["plan"] == plan), None)


def check_cost(sentence: str, phrase: str, cost: float | None, other: float | None) -> None:
    """Compare ``a third of the parameters`` or ``18 times the latency`` with the costs."""
    need(cost is not None and other is not None, sentence, "a cost that was not measured")
    assert cost is not None
    assert other is not None
    ratio = cost / other
    fractions = {"half": 1 / 2, "a third": 1 / 3, "a quarter": 1 / 4, "a fifth": 1 / 5, "a tenth": 1 / 10}
    named = next((value for name, value in fractions.items() if phrase.startswith(name)), None)
    if phrase.startswith("about"):
        need(0.9 < ratio < 1.1, sentence, f"the ratio is {ratio:.3g}")
    elif named is not None:
        need(abs(ratio / named - 1) < 0.15, sentence, f"the ratio is {ratio:.3g}")
    else:
        found = re.match(r"([\d,.]+(?:e[+-]\d+)?) (%|times)", phrase)
        need(found is not None, sentence, f"unknown cost {phrase!r}")
        assert found is not None
        said = float(found.group(1).replace(",", "")) / (100 if found.group(2) == "%" else 1)
        need(abs(said / ratio - 1) < 0.06, sentence, f"the ratio is {ratio:.3g}")


def lacks(row: Mapping[str, Any]) -> bool:
    """Whether a comparison is open for another reason than a wide interval."""
    ends = [row["difference"][key] for key in ("low", "high")]
    narrow = None not in ends and all(abs(end) <= 2.0 for end in ends)
    return bool(row["evidence"] == "none" or (row["evidence"] == "some" and narrow))


def ship(result: Result, sentence: str, found: re.Match[str]) -> None:
    verdict, row = result["verdict"], result["verdict"]["ship"]
    groups = found.groupdict()
    need(groups["choice"] == verdict["choice"], sentence, "not the choice")
    if "only" in groups:
        need(row is None and len(result["plans"]) == 1, sentence, "others finished, too")
        return
    if groups.get("best"):
        need(verdict["best_on_validation"] == verdict["choice"], sentence, "another plan is the best on validation")
    if groups.get("dearer"):
        need(groups["dearer"] == verdict["best_on_validation"] != verdict["choice"], sentence, "not the best on validation")
        need(bool(verdict["cheaper"]) and verdict["cheaper"]["taken"], sentence, "nothing cheaper was taken")
    if groups.get("ahead"):
        need(groups["ahead"] == verdict["best_on_validation"] != verdict["choice"], sentence, "not the best on validation")
        need(verdict["choice"] == "average", sentence, "no average")
        need(0 <= verdict["expected"][verdict["choice"]]["behind_best"] <= 5, sentence, "clearly behind, or not behind")
    other = groups.get("other")
    if groups.get("separate"):
        need(other == verdict["reference"], sentence, "not the separate models")
    pair = {row["plan"], row["reference"]}
    need({verdict["choice"], other} == pair, sentence, f"compares {pair}")
    if groups.get("word"):
        check_word(sentence, groups["word"], row)
    elif groups.get("none"):
        need(row["label"] == "no difference", sentence, f"{row['label']!r} elsewhere")
        ends = row["difference"]
        need(max(abs(ends["low"]), abs(ends["high"])) <= 2.0, sentence, f"no difference with {ends}")
    else:
        need(row["label"] == "unclear", sentence, f"open, and {row['label']!r} elsewhere")
        need(bool(groups["lack"]) == lacks(row), sentence, f"evidence is {row['evidence']}")
    check_interval(sentence, (groups["value"], groups["low"], groups["high"]), row)
    if groups.get("cost"):
        check_cost(sentence, groups["cost"], cost_of(result, verdict["choice"]), cost_of(result, verdict["reference"]))
    if "with care" in sentence:
        need(verdict["strength"] == "open", sentence, f"{verdict['strength']} with care")


def cheaper(result: Result, sentence: str, found: re.Match[str]) -> None:
    verdict = result["verdict"]
    row, (plan, phrase, than) = verdict["cheaper"], found.groups()[:3]
    need((row["plan"], row["than"]) == (plan, than), sentence, "not the cheaper plan")
    need(than == verdict["best_on_validation"], sentence, "not the best on validation")
    need(cost_of(result, plan) < 0.95 * cost_of(result, than), sentence, "not cheaper")  # type: ignore[operator]
    check_cost(sentence, phrase, cost_of(result, plan), cost_of(result, than))
    change, lower, lowest, tolerance = found.groups()[3:7]
    need(same(change, row["change"]) and same(lower, row["lower"]) and same(lowest, row["lowest"]), sentence, f"not {row}")
    need(float(tolerance) == verdict["tolerance"], sentence, "another tolerance")
    need(min(row["lower"], row["lowest"]) > -verdict["tolerance"], sentence, "may be worse than the tolerance")
    need(row["lower"] <= row["change"], sentence, "a lower bound above the change")
    taken = "`--prefer cost` would" not in sentence
    need(taken == (verdict["choice"] == plan), sentence, "taken or not")
    # An average is taken for another reason, and may be the cheaper plan as well.
    need(taken == (verdict["prefer"] == "cost") or verdict["choice"] == "average", sentence, "another preference")


def per_task(result: Result, sentence: str, found: re.Match[str]) -> None:
    verdict = result["verdict"]
    need(found.group("choice") == verdict["choice"], sentence, "not the choice")
    for listed, advice, plan in re.findall(r"[Ff]or ((?:`[^`]+` \([^)]*\)(?:, | and )?)+) (use|consider) `([^`]+)`", sentence):
        for task, change in re.findall(NAME + r" \(" + CHANGE + r"\)", listed):
            row = next(one for one in verdict["per_task"] if one["task"] == task)
            need((row["plan"], row["reference"]) == (plan, verdict["choice"]), sentence, "another pair")
            need(verdict["per_task_best"][task] == plan != verdict["choice"], sentence, "validation favours another")
            need(plan not in result.get("takes", {}), sentence, "for one task a mixed plan is no plan of its own")
            check_word(sentence, "better" if advice == "use" else "probably better", row)
            need(same(change, row["difference"]["value"]), sentence, "another number")


def mixed(result: Result, sentence: str, found: re.Match[str]) -> None:
    verdict, plan = result["verdict"], found.group("plan")
    named = [verdict["choice"], *([verdict["cheaper"]["plan"]] if verdict["cheaper"] else [])]
    need(plan in named, sentence, "neither chosen nor cheaper")
    takes = result["takes"].get(plan, {})
    parts = re.findall(r"`([^`]+)` for (\d+ tasks|`[^`]+`(?:(?:, `[^`]+`)*? and `[^`]+`)?)(?=, `[^`]+` for |\.$)", sentence)
    need([name for name, _ in parts] == list(takes), sentence, f"it takes {list(takes)}")
    for name, listed in parts:
        said = re.findall(NAME, listed)
        need(
            said == takes[name] if said else listed == f"{len(takes[name])} tasks",
            sentence,
            f"it takes `{name}` for {takes[name]}",
        )
    tasks = [task for own in takes.values() for task in own]
    need(sorted(tasks) == sorted(verdict["per_task_best"]), sentence, "not each task once")


def baseline(result: Result, sentence: str, found: re.Match[str]) -> None:
    verdict = result["verdict"]
    row = verdict["baseline"]
    name, plan = found.group("baseline"), found.group("plan")
    need((row["reference"], row["plan"]) == (name, plan), sentence, "another pair")
    need(sentence == verdict["sentences"][0], sentence, "not said first")
    several = len({one["task"] for one in result["comparisons"]}) > 1 or any(len(one["tasks"]) > 1 for one in verdict["help"])
    need(bool(found.groupdict().get("mean")) or not several, sentence, "single tasks may be learned")
    need(not row["beaten"] and verdict["strength"] == "open", sentence, "a baseline that is beaten")
    check_interval(sentence, (found.group("value"), found.group("low"), found.group("high")), row)


def unbeaten(result: Result, sentence: str, found: re.Match[str]) -> None:
    row = result["verdict"]["baseline"]
    need(re.findall(NAME, found.group("tasks")) == row["unbeaten"] and row["beaten"], sentence, "other tasks")


def together(result: Result, sentence: str, found: re.Match[str]) -> None:
    verdict, groups = result["verdict"], found.groupdict()
    answer = next(one for one in verdict["help"] if (one["plan"], one["reference"]) == (groups["plan"], groups["other"]))
    check_interval(sentence, (groups["value"], groups["low"], groups["high"]), answer)
    pooled = answer["control"]
    pooled_label = pooled["label"] if pooled else None
    need(pooled_label != "harm", sentence, "harm is said of single tasks only")
    controls = {row["task"]: row for row in result["controls"] if row["plan"] == answer["plan"]}
    if groups.get("word"):
        check_word(sentence, groups["word"], answer)
    if groups.get("help"):
        sign = 1 if groups["help"] == "help" else -1
        need(sign * answer["difference"]["value"] > 0, sentence, "another sign")
        need(answer["label"] in (("better", "probably better") if sign > 0 else ("worse", "probably worse")), sentence, "no word")
        need(bool(groups["probably"]) or answer["label"] in ("better", "worse"), sentence, "too sure")
        wanted = "transfer" if sign > 0 else "harm"
        labels = [row["label"] for row in result["controls"] if row["plan"] == answer["plan"]]
        need(wanted in labels or pooled_label == wanted, sentence, "no control shows it")
        need(("harm" if sign > 0 else "transfer") not in labels, sentence, "some tasks are helped and some are hurt")
        need(2 * labels.count(wanted) >= len(labels) or pooled_label == wanted, sentence, "shown for few of the tasks")
        found_mean = re.search(rf"; against shuffled companions, {_NUMBERS}(?: on average over (\d+) of (\d+) tasks)?", sentence)
        need(bool(found_mean) == (pooled_label == wanted), sentence, "the mean of the controls is kept back, or shows nothing")
        if found_mean:
            check_interval(sentence, found_mean.group("value", "low", "high"), {"difference": pooled["over_control"]})
            need(sign * pooled["over_control"]["value"] > 0 and sign * pooled["gain"]["value"] > 0, sentence, "another sign")
            said, number = int(found_mean.group(4) or len(answer["tasks"])), len(pooled["tasks"])
            need(said == number and set(pooled["tasks"]) == {row["task"] for row in controls.values()}, sentence, "other tasks")
        if not groups.get("probably"):
            ways = [{row["gain_word"], row["over_control_word"]} for row in controls.values()]
            ways += [{answer["label"], pooled["over_control_word"]}] if pooled else []
            need(any(words <= {"better", "worse"} for words in ways), sentence, "surer than its comparisons")
    if groups.get("unlearned"):
        none = answer["unlearned"]
        need(none["baseline"] == groups["baseline"], sentence, "another baseline")
        for text, key in ((groups["one"], "plan"), (groups["two"], "reference")):
            need(same(text.removesuffix(" %"), none[key]["value"]), sentence, "another number")
            need(none[key]["value"] <= 0 or none[key]["low"] is None or none[key]["low"] <= 0, sentence, "beats the baseline")
    if groups.get("word") and (groups.get("unshown") or groups.get("unlearned") or groups.get("few") or groups.get("mixed")):
        labels = [row["label"] for row in result["controls"] if row["plan"] == answer["plan"]]
        wanted, other = ("transfer", "harm") if SIGNS[groups["word"]] > 0 else ("harm", "transfer")
        shown = wanted in labels or pooled_label == wanted
        need(bool(groups.get("unshown") or groups.get("unlearned")) == (not shown), sentence, "the reason was shown, or was not")
        need(bool(groups.get("mixed")) == (shown and other in labels), sentence, "of one sign")
    if groups.get("nothing"):
        need(answer["label"] == "no difference", sentence, "a difference")
    if groups.get("open"):
        need(answer["label"] == "unclear", sentence, f"open, and {answer['label']}")
        need(bool(groups["lack"]) == lacks(answer), sentence, f"evidence is {answer['evidence']}")
    # The same pair has the same word wherever it is compared.
    if verdict["ship"] and (verdict["ship"]["plan"], verdict["ship"]["reference"]) == (answer["plan"], answer["reference"]):
        need(verdict["ship"]["label"] == answer["label"], sentence, "two words for one comparison")
    need(("was not tested" in sentence) <= (not controls), sentence, "tested after all")
    need(bool(answer["unlearned"]) or not groups.get("unlearned"), sentence, "learned")
    seen: dict[str, int] = {}

    def effect(verb: str, listed: str) -> None:
        for task, change in re.findall(NAME + r" \(" + CHANGE + r"\)", listed):
            row = controls[task]
            need(row["label"] == ("transfer" if SIGNS[verb] > 0 else "harm"), sentence, "the control says otherwise")
            both = {row["gain_word"], row["over_control_word"]}
            need(verb.startswith("probably") or both <= {"better", "worse"}, sentence, "surer than its comparisons")
            need(same(change, row["gain"]["value"]) and SIGNS[verb] * row["gain"]["value"] > 0, sentence, "another number")
            need(seen.setdefault(task, SIGNS[verb]) == SIGNS[verb], sentence, f"`{task}` is helped and hurt")

    tail = sentence[found.end() :]
    for verb, listed in re.findall(r"((?:probably )?(?:helps|hurts)) ((?:`[^`]+` \([^)]*\)(?:, | and (?=`))?)+)", tail):
        effect(verb, listed)
    labels = {"which is regularisation": "regularisation", "which is the cost of sharing": "cost"}
    labels |= {"better together, for a reason that is open": "gain", "worse together, for a reason that is open": "loss"}
    for part in tail.rstrip(".").split("; "):
        for words, label in labels.items():
            if part.endswith(words):
                for task, change in re.findall(NAME + r" \(" + CHANGE + r"\)", part):
                    need(controls[task]["label"] == label, sentence, f"`{task}` is {controls[task]['label']}")
                    need(same(change, controls[task]["gain"]["value"]), sentence, "another number")
        alone = re.search(r"(?:is|are) " + WORDS + r" together(?:, without a control)?$", part)
        if alone:
            for task, change in re.findall(NAME + r" \(" + CHANGE + r"\)", part):
                row = next(one for one in answer["tasks"] if one["task"] == task)
                need(task not in controls, sentence, f"`{task}` has a control")
                check_word(sentence, alone.group(1), row)
                need(same(change, row["difference"]["value"]), sentence, "another number")


def not_tested(result: Result, sentence: str, found: re.Match[str]) -> None:
    need(not result["verdict"]["help"], sentence, "tested after all")
    joint = [name for name, plan in result["plans"].items() if result["roles"][name] == "joint"]
    need(re.findall(NAME, sentence) == joint, sentence, "other plans learned together")


_CHOICE, _OTHER = r"`(?P<choice>[^`]+)`", r"`(?P<other>[^`]+)`"
_NUMBERS = r"(?P<value>[+-]?[\d,.]+) %(?: \(95 % interval (?P<low>-?[\d,.]+) to (?P<high>-?[\d,.]+)\))?" + MEAN
_AHEAD = r", the average of several plans \(`(?P<ahead>[^`]+)` is ahead on validation, but not clearly\)"
_WHY = rf"(?:(?P<best>, the best on validation)|, cheaper than `(?P<dearer>[^`]+)` and not worse|{_AHEAD})"
_AGAINST = (
    rf"(?:(?P<separate>separate models) \({_OTHER}\)|(?:the next best on validation, )?{_OTHER.replace('other', 'other2')})"
)
_SELF = rf"(?:separate models \({_CHOICE}\)|{_CHOICE.replace('choice', 'choice2')})"
_COST = r"(?:, at (?P<cost>[^.]*(?:\.\d[^.]*)*))?"
_WORD = r"(?P<word>(?:probably )?(?:better|worse))"
_LACK = r"(?P<lack> for lack of trainings or test rows)?"
_RIVAL = rf"the best other plan on validation, {_OTHER},"
_CARE = r" Validation and test rows disagree; more rows or seeds would decide"
Rule = tuple[str, Callable[[Result, str, re.Match[str]], None]]
RULES: list[Rule] = [
    (rf"(?P<only>Only) {_CHOICE} was judged on test rows, so there is nothing to compare it with\.$", ship),
    (rf"Use {_CHOICE}: it is {_WORD} than {_AGAINST}, {_NUMBERS}{_COST}\.$", ship),
    (rf"Use {_CHOICE}{_WHY}(?P<none>; no difference) to {_AGAINST} was found on the test rows, {_NUMBERS}{_COST}\.$", ship),
    (rf"Use {_CHOICE}{_WHY}; whether it is better than {_AGAINST} is open{_LACK}, {_NUMBERS}{_COST}\.$", ship),
    (rf"Use {_CHOICE}{_WHY}, with care: on the test rows it is {_WORD} than {_AGAINST}, {_NUMBERS}{_COST}\.{_CARE}\.$", ship),
    (rf"Train the tasks separately, with {_CHOICE}: {_RIVAL} is {_WORD}, {_NUMBERS}\.$", ship),
    (rf"Use {_SELF}: {_RIVAL} is {_WORD}, {_NUMBERS}\.$", ship),
    (rf"Use {_SELF}{_WHY}(?P<none>; no difference) to {_RIVAL} was found on the test rows, {_NUMBERS}\.$", ship),
    (rf"Use {_SELF}{_WHY}; whether {_RIVAL} is better or worse is open{_LACK}, {_NUMBERS}\.$", ship),
    (rf"Use {_SELF}{_WHY}, with care: on the test rows {_RIVAL} is {_WORD}, {_NUMBERS}\.{_CARE}\.$", ship),
    (
        rf"{NAME} costs (.*) of {NAME}(?:, the best on validation,)? and is not worse: {CHANGE} on validation, at least {CHANGE} on "
        rf"average and {CHANGE} on every task, tolerance ([\d.]+) %(?:; `--prefer cost` would take it)?\.$",
        cheaper,
    ),
    (r"`(?P<plan>[^`]+)` answers each task with one plan, chosen on validation: .*\.$", mixed),
    (r"[Ff]or .* (?:use|consider) .* instead of `(?P<choice>[^`]+)`\.$", per_task),
    (
        r"(?:Nothing|(?P<mean>On average over the tasks, nothing)) was shown to beat the simple baseline `(?P<baseline>[^`]+)`: the best (?:other )?plan, `(?P<plan>[^`]+)`, removes "
        rf"{_NUMBERS} of its distance from a perfect score\.$",
        baseline,
    ),
    (r"For (?P<tasks>.*), `[^`]+` was not shown to beat the simple baseline `[^`]+`\.$", unbeaten),
    (
        r"The tasks (?P<probably>probably )?(?P<help>help|hurt) each other: learned together \(`(?P<plan>[^`]+)`\) against separately "
        rf"\(`(?P<other>[^`]+)`\), {_NUMBERS}",
        together,
    ),
    (
        rf"Learning together \(`(?P<plan>[^`]+)`\) is {_WORD} than separately \(`(?P<other>[^`]+)`\), {_NUMBERS}"
        r"; (?:whether the other tasks' labels are the reason was not tested|(?P<unshown>that the other tasks' labels are the reason was "
        r"not shown)|(?P<unlearned>neither was shown to beat the simple baseline `(?P<baseline>[^`]+)` \((?P<one>[^)]*) and (?P<two>[^)]*)\), "
        r"so this says nothing of the tasks)|(?P<few>that the other tasks' labels are the reason was shown for some tasks only)|(?P<mixed>the other tasks' "
        r"labels help some tasks and hurt others))",
        together,
    ),
    (
        r"Learning together \(`(?P<plan>[^`]+)`\) makes (?P<nothing>no difference) to separately \(`(?P<other>[^`]+)`\), "
        + _NUMBERS,
        together,
    ),
    (
        r"Whether learning together \(`(?P<plan>[^`]+)`\) is better than separately \(`(?P<other>[^`]+)`\) on average is "
        rf"(?P<open>open){_LACK}, {_NUMBERS}",
        together,
    ),
    (
        rf"Whether the tasks help each other is (?P<open>open){_LACK}: learned together \(`(?P<plan>[^`]+)`\) against separately "
        rf"\(`(?P<other>[^`]+)`\), {_NUMBERS}",
        together,
    ),
    (r"Whether the tasks help each other was not tested: ", not_tested),
]


class _Match:
    """A match whose numbered alternatives of a group count as the group."""

    def __init__(self, found: re.Match[str]) -> None:
        self._found = found
        self.end, self.groups = found.end, found.groups
        named = found.groupdict()
        for key in ("other", "choice"):
            if named.get(f"{key}2"):
                named[key] = named[f"{key}2"]
        self._named = {key: value for key, value in named.items() if not key.endswith("2") and (key != "only" or value)}

    def group(self, name: str) -> Any:
        return self._named[name]

    def groupdict(self) -> dict[str, Any]:
        return self._named


def check_verdict(result: Result) -> None:
    """Raise :class:`ContradictionError` if a sentence contradicts the result, or another sentence, or cannot be read.

    Args:
        result: What ``build_verdict`` returns, with ``roles``, ``{plan: role}``, and ``takes``, ``{mixed plan: {plan: tasks}}``.
    """
    verdict = result["verdict"]
    counts: dict[Any, int] = {}
    for sentence in verdict["sentences"]:
        for pattern, rule in RULES:
            found = re.match(pattern, sentence)
            if found:
                rule(result, sentence, _Match(found))  # type: ignore[arg-type]
                counts[rule] = counts.get(rule, 0) + 1
                break
        else:
            raise ContradictionError(f"no rule reads: {sentence}")
    need(counts.get(ship, 0) == 1, str(verdict["sentences"]), "there must be one choice")
    need(not (counts.get(together, 0) and counts.get(not_tested, 0)), str(verdict["sentences"]), "tested and not tested")
    shown = [name for name in {verdict["choice"], (verdict["cheaper"] or {}).get("plan")} if name in result.get("takes", {})]
    need(counts.get(mixed, 0) == len(shown), str(verdict["sentences"]), "a mixed plan says of what it is made, and nobody else")
    for sentence in verdict["sentences"]:
        check_phrases(result, sentence)
    check_source(result)
    check_warnings(result)
    text = " ".join(verdict["sentences"])
    need("so the cheaper" not in text and "rather" not in text, text, "an old phrase")
    expected = {"better": "asserts", "worse": "asserts", "probably better": "tentative", "probably worse": "tentative"}
    if verdict["ship"] and verdict["strength"] != "open":
        label = verdict["ship"]["label"]
        need(verdict["strength"] == expected.get(label, label), text, f"{verdict['strength']} from {label!r}")
    if verdict["strength"] in ("asserts", "tentative"):
        row = verdict["ship"]
        chosen_is_plan = row["plan"] == verdict["choice"]
        need((row["difference"]["value"] > 0) == chosen_is_plan, text, "the choice is the worse one")
