from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.export.onnx_model import export_onnx
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.table_net import TableNet


def categories(*rows: list[int]) -> dict[str, torch.Tensor]:
    return {"categorical": torch.tensor(rows)}


@pytest.mark.parametrize("cardinalities", [[3, 2], [30, 20], [3, 20]])
def test_codes_that_were_never_seen_count_as_missing(cardinalities: list[int]) -> None:
    net = TableNet(0, cardinalities).eval()
    torch.testing.assert_close(net(categories([99, -5])), net(categories([0, 0])))
    assert not torch.allclose(net(categories([1, 0])), net(categories([0, 0])))


@pytest.mark.parametrize("size", [3, 30])
def test_columns_with_equal_levels_are_told_apart(size: int) -> None:
    net = TableNet(0, [size, size]).eval()
    assert not torch.allclose(net(categories([1, 2])), net(categories([2, 1])))


def test_large_categories_read_their_own_rows_of_the_table_whatever_stands_between() -> None:
    net = TableNet(0, [20, 3, 15]).eval()
    assert net.categories is not None
    assert net.categories.num_embeddings == 35
    before = net(categories([0, 0, 14]))
    with torch.no_grad():
        net.categories.weight[34] += 1.0
    assert not torch.allclose(net(categories([0, 0, 14])), before)
    torch.testing.assert_close(net(categories([19, 2, 0])), net(categories([19, 2, 0])))


def test_an_outlier_counts_little_more_than_a_large_number() -> None:
    net = TableNet(1).eval()
    usual, large, absurd = (net({"numeric": torch.tensor([[value]])}).detach() for value in (0.0, 30.0, 1e30))
    assert float((absurd - large).norm()) < 0.05 * float((absurd - usual).norm())


def test_wide_tables_have_fewer_functions_a_column_and_the_widest_plain_numbers() -> None:
    def functions(columns: int) -> tuple[int, int]:
        numbers = TableNet(columns, width=8, num_blocks=1).numbers
        if numbers is None:
            return 0, 0
        return numbers.slope.shape[1], numbers.frequency.shape[1] if numbers.has_waves else 0

    assert [functions(columns) for columns in (1, 64, 100)] == [(6, 16), (6, 16), (5, 10)]
    assert [functions(columns) for columns in (256, 257, 512, 513)] == [(2, 4), (1, 0), (1, 0), (0, 0)]


def test_frequencies_and_hinges_can_be_left_out() -> None:
    assert TableNet(3, hinges=0).numbers is None
    few = TableNet(3, frequencies=2).numbers
    assert few is not None
    assert few.frequency.shape == (3, 2)
    none = TableNet(3, frequencies=0).numbers
    assert none is not None
    assert not none.has_waves


def test_a_table_without_columns_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one feature column besides the targets"):
        TableNet(0)


def test_the_exported_graph_computes_the_same_for_any_number_of_rows(tmp_path: Path) -> None:
    import onnxruntime

    torch.manual_seed(0)
    tasks = (
        TaskSpec(name="price", kind="regression", size=1),
        TaskSpec(name="kind", kind="multiclass", size=3, classes=("a", "b", "c")),
    )
    cardinalities = [4, 40, 9, 12]
    model = SharedTrunk(tasks, lambda: TableNet(5, cardinalities), inputs=table_input(5, cardinalities)).eval()

    def rows(count: int) -> dict[str, torch.Tensor]:
        numbers = torch.randn(count, 5) * 10.0 ** torch.arange(-2, 3)
        # Codes of all columns, and some that are none.
        codes = torch.stack([torch.randint(-1, size + 1, (count,)) for size in cardinalities], dim=1)
        return {"numeric": numbers, "categorical": codes}

    assert export_onnx(model, tasks, rows(16), tmp_path / "model.onnx") < 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for count in (1, 33):
        asked = rows(count)
        answers = dict(
            zip(
                [item.name for item in session.get_outputs()],
                session.run(None, {name: tensor.numpy() for name, tensor in asked.items()}),
                strict=True,
            )
        )
        with torch.inference_mode():
            expected = model(asked)
        found = next(array for name, array in answers.items() if name.startswith("price"))
        np.testing.assert_allclose(found.reshape(count, -1), expected["price"].numpy(), rtol=1e-3, atol=1e-4)
