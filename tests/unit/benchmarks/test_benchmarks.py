"""The benchmarks run in their smallest form, compare equal work and report it in one layout; times are never asserted."""

from __future__ import annotations

import json
import mmap
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import __main__ as runner
from benchmarks import (
    _merging_commands,
    _merging_work,
    _plain_copy,
    deltas_in_service,
    masked_attention,
    merging,
    moe,
    r_mtgb,
    startup,
    training_loop,
    transferability,
)
from benchmarks._one import collect
from benchmarks._rows import KEYS, Row, check_row, summary, table
from benchmarks._timing import take_turns
from graftwork.core.tensor_files import open_tensors


def row(**changes: Any) -> Row:
    return Row(**{"benchmark": "b", "what": "w", "ours": 3.0, "peer": 2.0, "unit": "s", **changes})


def check_layout(rows: list[dict[str, Any]], benchmark: str) -> None:
    assert rows
    assert len({line["what"] for line in rows}) == len(rows), "a row must be found by its name"
    for line in rows:
        check_row(line)
        assert line["benchmark"] == benchmark
        assert str(Path.home()) not in json.dumps(line)
        json.dumps(line, allow_nan=False)


@pytest.mark.parametrize(
    ("changes", "ratio", "met"),
    [
        ({"target": 1.5}, 1.5, True),
        ({"target": 1.4}, 1.5, False),
        ({"target": 2.9, "judged": "ours"}, 1.5, False),
        ({"target": 3.0, "judged": "ours", "peer": None}, None, True),
        ({"target": 1.2, "ratio": 1.1}, 1.1, True),
        ({"target": 1.2, "peer": None}, None, None),
        ({}, 1.5, None),
    ],
)
def test_whether_a_target_is_met_follows_from_the_numbers(changes: dict[str, Any], ratio: float | None, met: bool | None) -> None:
    stored = row(**changes).json()
    assert tuple(stored) == KEYS
    assert stored["ratio"] == ratio
    assert stored["met"] is met


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ours": float("nan")}, "must be a finite number"),
        ({"peer": -1.0}, "must be a finite number"),
        ({"met": True, "target": 1.0}, r"stands against the target 1\.0"),
        ({"extra": 1}, "needs the keys"),
    ],
)
def test_a_wrong_row_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_row(row().json() | changes)


def test_table_and_summary_show_what_was_missed() -> None:
    rows = [row(target=2.0, what="good", beside="floor").json(), row(target=1.0, what="slow").json(), row(what="free").json()]
    lines = table(rows).splitlines()
    assert [line.split()[-1] for line in lines[2:]] == ["yes", "NO", "-"]
    assert "2 floor" in lines[2]
    assert "<= 2 x" in lines[2]
    assert summary(rows) == "1 of 2 targets met. Missed: b: slow."


def test_contenders_take_turns_and_warm_up_does_not_count() -> None:
    calls: list[str] = []
    seconds = iter(range(1000))
    found = take_turns(
        {name: lambda name=name: calls.append(name) for name in "ab"}, rounds=3, warmup=1, clock=lambda: float(next(seconds))
    )
    assert calls == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert {name: len(timing.rounds) for name, timing in found.items()} == {"a": 3, "b": 3}
    assert found["a"].ratio(found["b"]) == 1.0


@pytest.mark.parametrize("suite", [training_loop.table_suite(400), training_loop.image_suite(100)], ids=lambda suite: suite.kinds)
def test_both_training_loops_do_the_same_work(suite: Any) -> None:
    before = [parameter.detach().clone() for parameter in training_loop.make_model(suite).parameters()]
    trainer = training_loop.make_trainer(suite)
    trainer.train(3)
    moved = max(float((now.detach() - old).abs().max()) for now, old in zip(trainer.model.parameters(), before, strict=True))
    assert moved > 1e-3
    assert training_loop.largest_difference(suite, 3) < moved / 20


@pytest.mark.slow
def test_training_loop_reports_both_suites() -> None:
    rows = training_loop.rows(quick=True)
    check_layout(rows, "training_loop")
    assert [line["what"].split(",")[0] for line in rows] == ["table", "image"]
    assert all(line["target"] == 1.05 for line in rows)


@pytest.mark.slow
def test_masked_attention_is_compared_with_equal_results() -> None:
    rows = masked_attention.rows(quick=True)
    check_layout(rows, "masked_attention")
    assert [line["what"].rsplit(", ", 1)[1] for line in rows] == ["forward", "forward + backward"]
    assert all(line["details"]["largest_difference"] < 1e-5 for line in rows)


def test_the_mask_changes_what_attention_returns() -> None:
    blocked = torch.tensor([[False, True], [False, False]])
    module, states = masked_attention.SelfAttention(8, 2, blocked=blocked), torch.randn(3, 2, 8)
    with torch.no_grad():
        free = masked_attention.by_hand(module, states, torch.ones(2, 2, dtype=torch.bool))
        held = masked_attention.by_hand(module, states, ~blocked)
        torch.testing.assert_close(held, module(states))
    assert not torch.allclose(free[:, 0], held[:, 0])
    torch.testing.assert_close(free[:, 1], held[:, 1])


@pytest.mark.slow
def test_the_expert_layer_is_compared_with_equal_results() -> None:
    rows = moe.rows(quick=True)
    check_layout(rows, "moe")
    assert [line["what"].rsplit(", ", 1)[1] for line in rows] == ["beside all experts", "beside plain Python"] * 2
    assert all(line["details"]["largest_difference"] < 1e-5 for line in rows)


@pytest.mark.slow
def test_r_mtgb_grows_the_same_trees_as_lightgbm() -> None:
    rows = r_mtgb.rows(quick=True)
    check_layout(rows, "r_mtgb")
    assert [line["target"] for line in rows] == [1.5, None]
    assert all(line["details"]["largest_difference"] < 1e-6 for line in rows)
    assert r_mtgb.largest_difference(500, 3, 2, 3) < 1e-6


@pytest.mark.slow
def test_transferability_judges_scores_beside_one_gram_product() -> None:
    rows = transferability.rows(quick=True)
    check_layout(rows, "transferability")
    judged = [line["what"].split(",")[0] for line in rows if line["unit"] == "ms" and line["target"]]
    assert judged == ["LogME", "H-score", "H-score"]
    assert sum("memory of a stream" in line["what"] for line in rows) == 5
    assert sum(len(block.target) for block in transferability.block_stream(4500, 3, 2)) == 4500


@pytest.mark.slow
def test_startup_times_every_light_command() -> None:
    rows = startup.rows(quick=True)
    check_layout(rows, "startup")
    assert [line["what"].split()[1] for line in rows] == ["--help", "systems", "show", "validate"]
    assert all(line["details"]["judged"] == "ours" for line in rows)


@pytest.mark.slow
def test_merging_compares_with_floor_and_peer() -> None:
    rows = {line["what"]: line for line in merging.rows(quick=True)}
    check_layout(list(rows.values()), "merging")
    assert {name: rows[name]["target"] for name in merging.TARGETS} == merging.TARGETS
    assert not any(line["details"].get("torch_imported") for line in rows.values())
    for command, (_, times, besides) in _merging_commands.COMMANDS.items():
        for beside in ("", ", beside an aligned copy"):
            line = rows[f"graftwork merge --method {command}{beside}"]
            assert line["target"] == (None if times is None else pytest.approx(times * line["peer"] + besides))
    if "ties-per-tensor, beside peft" in rows:
        assert rows["ties-per-tensor, beside peft"]["details"]["largest_difference"] < 1e-5


@pytest.fixture(scope="module")
def merge_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    size = merging.checkpoints(folder, width=8, vocabulary=20)
    assert size == sum(value.nbytes for value in open_tensors(folder / "0-base.safetensors").values())
    return folder


@pytest.mark.parametrize("kind", [kind for kind in _merging_work.KINDS if kind != "peft-ties"])
def test_every_merge_writes_a_whole_model(
    kind: str, merge_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    assert _merging_work.main([kind, str(merge_folder), str(out)]) == 0
    cost = json.loads(capsys.readouterr().out)
    assert set(cost) == {"imports_s", "cpu_s", "wall_s", "torch_imported"}
    base, merged = open_tensors(merge_folder / "0-base.safetensors"), open_tensors(out)
    assert {name: merged.shape(name) for name in merged} == {name: base.shape(name) for name in base}
    equal = all(np.array_equal(base[name], merged[name]) for name in base)
    assert equal == (kind == "floor")


@pytest.mark.parametrize("way", _plain_copy.WAYS)
def test_both_ways_to_copy_read_all_and_write_the_first(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plain_copy, "_BUFFER", 4096)
    files = [tmp_path / f"{number}" for number in range(3)]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * (4096 * 3 + number))
    assert _plain_copy.main([way, str(tmp_path / "out"), *map(str, files)]) == 0
    assert (tmp_path / "out").read_bytes() == files[0].read_bytes()
    files[2].unlink()
    with pytest.raises(FileNotFoundError):
        _plain_copy.main([way, str(tmp_path / "out"), *map(str, files)])


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="needs POSIX")
def test_a_process_is_charged_for_its_own_cpu_time_and_memory() -> None:
    spin = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    busy = _merging_commands.run_process([sys.executable, "-c", spin], dict(os.environ))
    large = _merging_commands.run_process([sys.executable, "-c", "bytearray(b'x') * (96 << 20)"], dict(os.environ))
    assert busy.cpu_s >= 0.2
    assert large.peak_bytes >= 96 << 20 > busy.peak_bytes
    with pytest.raises(RuntimeError, match="failed:[\\s\\S]*no such thing"):
        _merging_commands.run_process([sys.executable, "-c", "raise SystemExit('no such thing')"], dict(os.environ))


def test_anonymous_memory_sees_an_allocation() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux")
    size = 64 << 20
    with _merging_work.AnonymousPeak() as memory:
        # Mapped by hand: an array might lie in memory that an earlier test has left to the process.
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        block[:] = bytes(size)
    assert memory.peak - memory.idle >= 0.9 * size


def test_older_rows_are_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gradient_balancing

    old = {
        "benchmark": "gradient_balancing", "network": "mlp", "tasks": 2, "method": "exact", "ms": 9.0, "median_ms": 10.0,
        "x_plain": 2.0, "x_passes": 1.25, "aim": "x_passes <= 1.05", "met": False,
    }  # fmt: skip
    monkeypatch.setattr(gradient_balancing, "run", lambda *, quick: [old, {**old, "aim": None, "method": "plain"}])
    monkeypatch.delattr(gradient_balancing, "rows", raising=False)
    first, second = collect("gradient_balancing", quick=True)
    check_row(first)
    check_row(second)
    assert (first["ratio"], first["target"], first["met"], first["peer"]) == (1.25, 1.05, False, 8.0)
    assert (second["target"], second["met"]) == (None, None)


@pytest.mark.parametrize("aim", [1.1, "ratio <= 1.1", "<= 1.1"])
def test_rows_of_prediction_are_translated(monkeypatch: pytest.MonkeyPatch, aim: object) -> None:
    from benchmarks import prediction

    old = {"modality": "table", "case": "one task", "rows": 64, "bare_ms": 2.0, "graftwork_ms": 2.4, "ratio": 1.25, "aim": aim}
    monkeypatch.setattr(prediction, "run", lambda *, quick: [old])
    monkeypatch.delattr(prediction, "rows", raising=False)
    (stored,) = collect("prediction", quick=True)
    check_row(stored)
    assert (stored["ours"], stored["peer"], stored["ratio"], stored["target"], stored["met"]) == (2.4, 2.0, 1.25, 1.1, False)


def test_the_runner_stores_what_it_printed_and_goes_on_after_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(name: str, *, quick: bool) -> list[dict[str, Any]]:
        if name == "startup":
            raise RuntimeError("benchmark startup failed:\nno such command")
        return [row(benchmark=name, target=2.0).json()]

    monkeypatch.setattr(runner, "measure", measure)
    target = tmp_path / "results.json"
    assert runner.main(["--quick", "--only", "startup,merging", "--json", str(target)]) == 1
    stored = json.loads(target.read_text(encoding="utf-8"))
    assert stored["failed"] == ["startup"]
    assert [line["benchmark"] for line in stored["rows"]] == ["merging"]
    assert stored["quick"] is True
    assert {"cores", "python", "versions", "date"} <= set(stored["machine"])
    assert str(Path.home()) not in target.read_text(encoding="utf-8")
    captured = capsys.readouterr()
    assert "1 of 1 targets met" in captured.out
    assert "no such command" in captured.err


def test_an_unknown_benchmark_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        runner.main(["--only", "startup,mergin"])
    error = capsys.readouterr().err
    assert "unknown benchmark mergin;" in error
    assert "merging" in error


def test_a_failing_benchmark_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"benchmark nothing failed:[\s\S]*No module named 'benchmarks\.nothing'"):
        runner.measure("nothing", quick=True)


def test_many_deltas_are_compared_with_peft_by_their_answers() -> None:
    pytest.importorskip("peft")
    pytest.importorskip("transformers")
    rows = deltas_in_service.rows(quick=True)
    check_layout(rows, "deltas_in_service")
    batches = [line for line in rows if " texts, " in line["what"]]
    assert len(batches) == 4 + 3 + 2, (
        "a row for each number of deltas, beside peft where it takes part, and two that must be flat"
    )
    assert all(line["details"]["largest_difference_to_peft"] < 1e-4 for line in batches)
    assert all(line["details"]["largest_difference_to_folded"] < 1e-4 for line in batches)
    assert sum(line["details"]["beside"] == "peft" for line in rows) == 3 * 2
    assert sum(line["target"] is not None for line in rows) == 2 + 3
