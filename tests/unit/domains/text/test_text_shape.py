"""Counts of a text from its tokens, in NumPy and in a graph."""

from __future__ import annotations

import numpy as np
import pandas as pd

from graftwork.data.reading.ingest import open_suite
from graftwork.data.suite import Suite
from graftwork.domains.tabular.suite_graph import GraphBuilder
from graftwork.domains.text.text_shape import TextCounts, TextShape


def _suite(rows: int = 60) -> Suite:
    generator = np.random.default_rng(0)
    words = np.array(["rain", "falls", "2024", "97", "!", ",", "(", "a1"])
    texts = [" ".join(generator.choice(words, generator.integers(1, 12))) for _ in range(rows)]
    return open_suite(pd.DataFrame({"body": texts, "y": generator.normal(size=rows)}), targets="y", text="body")


def test_counts_are_those_of_the_texts() -> None:
    suite = _suite()
    texts = suite.raw["text"]
    found = TextCounts.of_suite(suite, "tokens").matrix(suite.inputs, np.arange(len(suite)))
    train = suite.splits["train"]  # whose letters the tokenizer knows all of
    np.testing.assert_array_equal(found[train, 1], [sum(map(str.isdigit, texts[row])) for row in train])
    np.testing.assert_array_equal(found[train, 2], [sum(map(str.isalpha, texts[row])) for row in train])
    np.testing.assert_array_equal(found[train, 4], [sum(sign in "!,(" for sign in texts[row]) for row in train])
    np.testing.assert_array_equal(found[:, 0], (suite.inputs["tokens"] > 0).sum(axis=1))


def test_an_unknown_sign_is_counted_as_unknown() -> None:
    suite = _suite()
    tokens = {"tokens": np.zeros((1, suite.inputs["tokens"].shape[1]), dtype=np.int64)}
    tokens["tokens"][0, :2] = 1  # [UNK]
    found = TextCounts.of_suite(suite, "tokens").matrix(tokens, np.arange(1))
    np.testing.assert_array_equal(found, [[2, 0, 0, 0, 0, 2]])


def test_without_words_only_the_length_is_known() -> None:
    suite = _suite()
    tokens = suite.inputs["tokens"]
    bare = {name: type(spec)(kind="text", sizes=spec.sizes) for name, spec in suite.input_specs.items()}
    counts = TextCounts.of_suite(Suite.of_arrays(**{**_fields(suite), "input_specs": bare}), "tokens")
    np.testing.assert_array_equal(counts.matrix(suite.inputs, np.arange(5))[:, 0], (tokens[:5] > 0).sum(axis=1))


def _fields(suite: Suite) -> dict[str, object]:
    return {name: getattr(suite, name) for name in ("name", "tasks", "inputs", "targets", "splits")}


def test_a_graph_computes_the_same_and_a_stored_shape_too(tmp_path) -> None:
    import onnxruntime

    suite = _suite()
    shape = TextShape.learn(suite, "tokens")
    rows = np.arange(len(suite))
    expected = shape.matrix(suite.inputs, rows)
    again = TextShape.of_state("tokens", shape.state("s_"), "s_")
    np.testing.assert_array_equal(again.matrix(suite.inputs, rows), expected)
    train = expected[suite.splits["train"]]
    assert np.abs(train.mean(axis=0)).max() < 0.5
    graph = GraphBuilder(suite)
    value = graph.cast(graph.add("ReduceSum", shape.graph(graph), np.array([1]), keepdims=1), np.float32)
    path = tmp_path / "model.onnx"
    graph.write({"y": value}, path, {"y": expected[:8].sum(axis=1, keepdims=True).astype(np.float32)}, rows[:8], what="a test")
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    found = session.run(["y"], {"tokens": suite.inputs["tokens"]})[0]
    np.testing.assert_allclose(found[:, 0], expected.sum(axis=1), rtol=1e-5, atol=1e-5)
