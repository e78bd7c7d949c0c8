from __future__ import annotations

import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.nn.fields import FieldLayout, Fields, masked_mean

SIZES = {
    "num_numeric": 1,
    "cardinalities": [5, 3, 5, 5, 5, 5],
    "vocabularies": [0, 1, 0, 0, 0, 0],
    "sequences": {"seen": [2, 4], "bought": [4, 6]},
    "query": 0,
}
INPUTS = {"numeric": torch.tensor([[2.0]]), "categorical": torch.tensor([[4, 2, 4, 0, 0, 0]])}


def test_columns_are_sorted_into_fields_and_sequences() -> None:
    fields = Fields(FieldLayout.from_sizes(SIZES), 3)
    plain, states, filled = fields(INPUTS)
    assert states is not None
    assert filled is not None
    assert plain.shape == (1, 3, 3)
    assert states.shape == (1, 2, 2, 3)
    assert filled.tolist() == [[[True, False], [False, False]]]
    torch.testing.assert_close(plain[:, 0], 2.0 * fields.tokenizer.weight)
    torch.testing.assert_close(fields.query(plain), plain[:, 1])
    torch.testing.assert_close(states[:, 0, 0], plain[:, 1], msg="item 4 is one vector, shown or in a history")
    assert not torch.allclose(plain[:, 2], fields.tokenizer.embedding.weight[2]), "column 1 has rows of its own"
    assert fields.tokenizer.embedding.num_embeddings == 5 + 3


def test_a_table_without_a_layout_is_fields_alone() -> None:
    layout = FieldLayout.from_sizes({"num_numeric": 2, "cardinalities": [4, 4]})
    plain, states, filled = Fields(layout, 3)({"numeric": torch.zeros(2, 2), "categorical": torch.ones(2, 2, dtype=torch.long)})
    assert plain.shape == (2, 4, 3)
    assert states is None
    assert filled is None
    assert layout.num_fields == 4
    assert layout.vocabularies == (0, 1)
    assert not torch.equal(plain[:, 2], plain[:, 3]), "columns do not share rows unless they say so"


def test_pooling_leaves_padding_out() -> None:
    states = torch.tensor([[[1.0], [3.0], [100.0]], [[7.0], [7.0], [7.0]]])
    filled = torch.tensor([[True, True, False], [False, False, False]])
    assert masked_mean(states, filled).tolist() == [[2.0], [0.0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequences": {"seen": [2, 9]}}, r"'seen' is \[2, 9\] of 6 categorical columns"),
        ({"sequences": {"seen": [2, 4], "bought": [4, 5]}}, r"same number of positions; got \[1, 2\]"),
        ({"vocabularies": [0]}, "1 vocabularies for 6 categorical columns"),
        ({"query": None}, "sequences need `query`"),
        ({"query": 3}, "outside of them; got 3"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FieldLayout.from_sizes({**SIZES, **change})


def test_other_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="columns of tables.*got image_size"):
        FieldLayout.from_sizes({"image_size": 32})
    with pytest.raises(ConfigError, match="no column besides the targets"):
        FieldLayout.from_sizes({"num_numeric": 0, "cardinalities": []})
