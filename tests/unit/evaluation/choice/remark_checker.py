"""Reads what a verdict says beside its main sentences: pairs of tasks, the pretrained backbone, warnings of too little evidence."""

from __future__ import annotations

import re

from claim_words import CHANGE, NAME, SIGNS, Result, check_word, need, same


def check_phrases(result: Result, sentence: str) -> None:
    """Pairs that help each other or pull against each other: both directions are judged so, and the controls agree."""
    for words, word, label in (
        (r"help each other's loss during training", "helps", "transfer"),
        ("pull against each other", "hurts", "harm"),
    ):
        found = re.search(r"; ([^;]*) " + words, sentence)
        for first, second in re.findall(NAME + " and " + NAME, found.group(1)) if found else ():
            names = result["affinity_tasks"]
            one, other = names.index(first), names.index(second)
            pair = {result["pair_words"][one][other], result["pair_words"][other][one]}
            need(pair == {word}, sentence, f"`{first}` and `{second}` are {pair}")
            controls = {row["label"] for row in result["controls"] if row["task"] in (first, second)}
            need(controls == {label}, sentence, f"the controls say {controls}")


def check_source(result: Result) -> None:
    """What is said of the pretrained backbone: each task as its row has it, and none left out."""
    sentence, rows = result["verdict"]["source_sentence"], {row["task"]: row for row in result["source_effect"]}
    need((sentence is None) == (not rows), str(sentence), "said of nothing, or kept back")
    if sentence is None:
        return
    said = set()
    verbs = {"helps": "better", "hurts": "worse", "probably helps": "probably better", "probably hurts": "probably worse"}
    for verb, listed in re.findall(r"((?:probably )?(?:helps|hurts)) ((?:`[^`]+` \([^)]*\)(?:, | and (?=`))?)+)", sentence):
        for task, change in re.findall(NAME + r" \(" + CHANGE + r"\)", listed):
            check_word(sentence, verbs[verb], rows[task])
            need(same(change, rows[task]["difference"]["value"]), sentence, "another number")
            said.add(task)
    need(said == {task for task, row in rows.items() if row["label"] in SIGNS}, sentence, "other tasks")
    labels = {row["label"] for row in rows.values()}
    need(("makes no difference" in sentence) <= (labels == {"no difference"}), sentence, f"no difference, and {labels}")


def check_warnings(result: Result) -> None:
    """What was said to rest on too little is called nothing, or is not asserted; and rows of too little are named."""
    compared = [
        *result["comparisons"],
        *(
            {**row, "plan": answer["plan"], "reference": answer["reference"]}
            for answer in result["verdict"]["help"]
            for row in answer["tasks"]
        ),
    ]
    named: set[tuple[str, str, str]] = set()
    for text in result["verdict"]["warnings"]:
        found = re.match(
            r"Only \d+ (?:labelled test row|group|seed|fold)s?(?: among the test rows| in common)?(?: \(\d+ are needed\))?"
            r"(?: of (?P<plans>.*?) with `(?P<other>[^`]+)`)?(?: for (?P<tasks>.*?))?: (?P<what>nothing is said of these comparisons|these comparisons are tentative)\.$",
            text,
        )
        if not found:
            continue
        tasks, plans = re.findall(NAME, found.group("tasks") or ""), re.findall(NAME, found.group("plans") or "")
        for row in compared:
            if row["task"] not in tasks or (plans and (row["plan"] not in plans or row["reference"] != found.group("other"))):
                continue
            if found.group("what").startswith("nothing"):
                need(row["label"] == "unclear", text, f"{row['label']} all the same: {row}")
            need(row["label"] not in ("better", "worse"), text, f"asserted all the same: {row}")
            named.add((row["task"], row["plan"], row["reference"]))
    for row in compared:
        if row["evidence"] != "enough":
            need(
                (row["task"], row["plan"], row["reference"]) in named,
                str(result["verdict"]["warnings"]),
                f"no word on too little evidence: {row}",
            )
