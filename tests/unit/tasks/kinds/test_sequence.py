"""Token sequences: loss, scores and reading of cells worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.records import TaskSpec
from graftwork.data.reading.infer import infer_tasks, parse_targets
from graftwork.data.reading.target_cells import InferredTask
from graftwork.evaluation.metrics import metrics_of, score_task
from graftwork.interfaces.task_kind import task_kind
from graftwork.tasks.decode import decode_output
from graftwork.tasks.losses import label_count, prior_loss, task_loss

SPEC = TaskSpec(name="steps", kind="sequence", size=3, classes=("<end>", "go", "stop"), details={"length": 3})
# "go stop", "go", nothing, not known.
TARGET = torch.tensor([[1, 2, 0], [1, 0, -1], [0, -1, -1], [-1, -1, -1]])


def outputs(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_head_has_a_logit_for_every_token_at_every_place() -> None:
    assert SPEC.num_outputs == 9
    shares = decode_output(SPEC, outputs())
    assert shares.shape == (4, 3, 3)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(4, 3, dtype=torch.float64))


def test_the_loss_is_the_mean_over_tokens_by_hand() -> None:
    output = torch.zeros(4, 9)
    assert task_loss(SPEC, output, TARGET).item() == pytest.approx(math.log(3.0))
    assert int(label_count(SPEC, TARGET)) == 6
    output[0] = torch.tensor([0.0, 0.0, 0.0, math.log(2.0), 0.0, 0.0, 0.0, 0.0, 0.0])  # "go" at the first place: 1, 2, 1
    assert task_loss(SPEC, output, TARGET).item() == pytest.approx((5 * math.log(3.0) + math.log(2.0)) / 6)


@given(st.integers(0, 1000))
def test_padding_is_not_seen(seed: int) -> None:
    first, second = outputs(seed), outputs(seed)
    padded = (TARGET < 0).unsqueeze(1).expand(4, 3, 3).reshape(4, 9)
    second[padded] = outputs(seed + 1)[padded]
    torch.testing.assert_close(task_loss(SPEC, first, TARGET), task_loss(SPEC, second, TARGET))
    shares = [decode_output(SPEC, item).numpy() for item in (first, second)]
    assert score_task(SPEC, TARGET.numpy(), shares[0]) == pytest.approx(score_task(SPEC, TARGET.numpy(), shares[1]))


def test_the_prior_knows_the_place_of_a_token() -> None:
    # First place: go, go, end. Second: stop, end. Third: end.
    first = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert prior_loss(SPEC, TARGET) == pytest.approx((3 * first + 2 * math.log(2.0) + 0.0) / 6)


def test_scores_by_hand() -> None:
    shares = np.full((4, 3, 3), 0.25)
    shares[0] = [[0.2, 0.3, 0.6], [0.5, 0.6, 0.2], [0.3, 0.1, 0.2]]  # go, go, end: the second is wrong
    shares[1] = [[0.2, 0.8, 0.1], [0.5, 0.1, 0.1], [0.3, 0.1, 0.8]]  # go, end
    shares[2] = [[0.1, 0.1, 0.1], [0.8, 0.1, 0.1], [0.1, 0.8, 0.8]]  # go: wrong
    found = score_task(SPEC, TARGET.numpy(), shares)
    nats = -sum(map(math.log, [0.5, 0.1, 0.6, 0.5, 0.8, 0.1])) / 6
    assert metrics_of(SPEC) == ("token_accuracy", "perplexity", "sequence_accuracy")
    assert found == pytest.approx({"token_accuracy": 4 / 6, "perplexity": math.exp(nats), "sequence_accuracy": 1 / 3})
    uniform = score_task(SPEC, TARGET.numpy(), np.full((4, 3, 3), 1 / 3))
    assert uniform["perplexity"] == pytest.approx(3.0)


def test_answers_stop_at_the_end() -> None:
    kind = task_kind(SPEC)
    shares = np.full((2, 3, 3), 0.1)
    shares[0, [1, 0, 2], [0, 1, 2]] = 0.8  # go, end, stop: what follows the end is not read
    shares[1, [1, 2, 1], [0, 1, 2]] = 0.5
    assert kind.answers(SPEC, shares) == [
        {"value": ["go"], "probability": pytest.approx(0.64)},
        {"value": ["go", "stop", "go"], "probability": pytest.approx(0.125)},
    ]
    assert kind.table(SPEC, shares)["steps"].tolist() == ["go", "go stop go"]
    assert kind.describe(SPEC, shares[1], is_prediction=True) == "go stop go"
    assert kind.describe(SPEC, TARGET[0].numpy(), is_prediction=False) == "go stop"
    assert kind.describe(SPEC, TARGET[2].numpy(), is_prediction=False) == "(nothing)"
    assert kind.describe(SPEC, TARGET[3].numpy(), is_prediction=False) == ""
    assert kind.is_right(SPEC, TARGET[1].numpy(), shares[0]) is True
    assert kind.is_right(SPEC, TARGET[0].numpy(), shares[1]) is False
    assert kind.is_right(SPEC, TARGET[3].numpy(), shares[1]) is None


def read(cells: list[object], kind: str = "sequence") -> InferredTask:
    frame = pd.DataFrame({"steps": pd.Series(cells, dtype=object)})
    return infer_tasks(frame, parse_targets("steps", ["steps"]), {"steps": kind})[0]


@pytest.mark.parametrize("cells", [["go stop", "go", None, "stop"], [["go", "stop"], ["go"], None, ["stop"]]])
def test_texts_and_lists_become_tokens(cells: list[object]) -> None:
    task = read(cells)
    assert task.spec.classes == ("<end>", "go", "stop")
    assert task.spec.details == {"length": 3}
    np.testing.assert_array_equal(task.target, [[1, 2, 0], [1, 0, -1], [-1, -1, -1], [2, 0, -1]])
    assert TaskSpec.from_json(task.spec.to_json()) == task.spec


def test_an_empty_list_is_a_sequence_without_tokens() -> None:
    np.testing.assert_array_equal(read([["go"], []]).target, [[1, 0], [0, -1]])


def test_tokens_in_the_users_order() -> None:
    task = read(["go stop", "go"], "sequence: stop < go < wait")
    assert task.spec.classes == ("<end>", "stop", "go", "wait")
    with pytest.raises(DataError, match="holds 'run', not among the tokens given"):
        read(["go run", "go"], "sequence: go < stop")


def test_what_cannot_be_learned_is_named() -> None:
    with pytest.raises(DataError, match="which ends every sequence"):
        read(["go <end>", "go"])
    with pytest.raises(DataError, match="Shorten the sequences"):
        read([" ".join(f"t{index}" for index in range(400)), "go"])
    with pytest.raises(DataError, match="no row has a token"):
        read([[], []])
    with pytest.raises(DataError, match="its cells are lists"):
        read([["go"], ["stop"]], "multiclass")
    with pytest.raises(ConfigError, match="must say how many tokens"):
        TaskSpec(name="steps", kind="sequence", size=3)
