"""Many deltas of one backbone: batches whose rows have a delta each, loading the next one, switching to another one.

MiniLM and LoRA of rank 8 on all its linear layers, as ``graftwork tune minilm --method lora`` makes them, with random factors. peft
stands beside with the same adapters, read from its own folders: ``forward(adapter_names=[...])`` for mixed batches,
``load_adapter``, ``set_adapter``. It is asked up to 100 adapters, since it gets slow. Answers of all contenders are compared with
each other and with the delta folded into a copy of the backbone. One thread, CPU seconds, in turns.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks._rows import Row, as_rows
from benchmarks._timing import take_turns
from graftwork.math.fingerprint import state_fingerprint
from graftwork.methods.tuning.lora import select_layers
from graftwork.methods.tuning.peft_delta import delta_to_peft
from graftwork.nn.backbones.catalog import build_backbone
from graftwork.nn.backbones.transformers_bridge import BertBlocks
from graftwork.nn.delta_set import DeltaSet
from graftwork.nn.foldable import plain_state
from graftwork.nn.module_delta import load_delta
from graftwork.nn.rowwise.deltas import RowwiseDeltas
from graftwork.nn.weight_delta import LowRank, WeightDelta

__all__ = ["rows"]

FLAT = 1.05
"""Most that a thousand loaded deltas may cost in place of those of the batch."""
FLAT_LOADING = 1.25
"""The same for loading one more, which is a matter of milliseconds."""
RANK = 8
Inputs = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured."""

    loaded: tuple[int, ...] = (1, 10, 32, 100, 1000)
    loading: tuple[int, ...] = (1, 40, 100, 1000)
    most_in_peft: int = 100
    batch: int = 32
    length: int = 32
    rounds: int = 9
    repeats: int = 9


QUICK = Sizes(loaded=(1, 2, 4, 6), loading=(1, 4, 6), most_in_peft=4, batch=4, length=8, rounds=3, repeats=3)


def rows(quick: bool) -> list[dict[str, Any]]:
    """Return rows of mixed batches, of loading and of switching."""
    torch.set_num_threads(1)
    sizes = QUICK if quick else Sizes()
    backbone = _backbone(quick)
    deltas = _deltas(backbone, max(sizes.loaded) + 1)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        deltas[0].save(Path(folder) / "delta.safetensors")
        peer = Peft(backbone, deltas[: sizes.most_in_peft], Path(folder))
        found = [*_mixed(backbone, deltas, peer, sizes), *_loading(backbone, deltas, peer, sizes, Path(folder))]
    return as_rows(found)


class Peft:
    """peft with the same adapters; folders are read when it loads them."""

    def __init__(self, backbone: BertBlocks, deltas: Sequence[WeightDelta], folder: Path) -> None:
        self.folders = [folder / f"peft{number}" for number in range(len(deltas))]
        for own, delta in zip(self.folders, deltas, strict=True):
            # Names in peft are those of the transformers model, which the backbone calls `model`.
            plain = {name.removeprefix("model."): part for name, part in delta.parts.items()}
            shapes = {name.removeprefix("model."): shape for name, shape in delta.shapes.items()}
            delta_to_peft(WeightDelta(plain, shapes), own)
        self.backbone = copy.deepcopy(backbone)
        self.model: Any = None
        self.names: list[str] = []

    def hold(self, count: int) -> None:
        """Load adapters, or take some out, until there are so many."""
        while len(self.names) < count:
            self.load(str(len(self.names)))
        while len(self.names) > count:
            self.remove(self.names[-1])

    def load(self, name: str) -> None:
        """Load one more adapter, the folders in turn."""
        from peft import PeftModel

        source = self.folders[len(self.names) % len(self.folders)]
        if self.model is None:
            self.model = PeftModel.from_pretrained(self.backbone.model, str(source), adapter_name=name).eval()
        else:
            self.model.load_adapter(str(source), adapter_name=name)
        self.names.append(name)

    def remove(self, name: str) -> None:
        """Take one out again."""
        self.model.delete_adapter(name)
        self.names.remove(name)

    def mixed(self, inputs: Inputs, names: Sequence[str]) -> Tensor:
        """Return the features of a batch, each row with its adapter."""
        return self._features(inputs, adapter_names=list(names))

    def switched(self, inputs: Inputs, name: str) -> Tensor:
        """Return the features of a batch after switching to an adapter."""
        self.model.set_adapter(name)
        return self._features(inputs)

    def _features(self, inputs: Inputs, **keywords: Any) -> Tensor:
        mask = inputs["attention_mask"]
        states = self.model(input_ids=inputs["token_ids"], attention_mask=mask, **keywords).last_hidden_state
        weights = mask.unsqueeze(-1).to(states.dtype)
        mean: Tensor = (states * weights).sum(dim=1) / weights.sum(dim=1)
        return mean


def _mixed(backbone: BertBlocks, deltas: Sequence[WeightDelta], peer: Peft, sizes: Sizes) -> list[Row]:
    """Return batches whose rows have as many deltas as there are, up to one a row."""
    inputs = _texts(sizes.batch, sizes.length)
    ours = {count: _loaded(backbone, deltas[:count]) for count in sizes.loaded}
    names = {count: [str(row % count) for row in range(sizes.batch)] for count in sizes.loaded}
    base = copy.deepcopy(backbone)
    contenders: dict[str, Callable[[], object]] = {"base": lambda: base(inputs)}
    for count in sizes.loaded:
        contenders[f"ours {count}"] = lambda count=count: ours[count](inputs, names[count])
    largest = max(sizes.loaded)
    few = min(sizes.batch, largest)
    contenders["ours one of all"] = lambda: ours[largest](inputs, ["0"] * sizes.batch)
    in_peft = [count for count in sizes.loaded if count <= sizes.most_in_peft]
    peer.hold(max(in_peft))
    # One peft model: with as many adapters as it holds, and the rows of the smaller cases among them.
    for count in in_peft:
        contenders[f"peft {count}"] = lambda count=count: peer.mixed(inputs, names[count])
    wanted = {count: ours[count](inputs, names[count]) for count in sizes.loaded}
    difference = max(float((wanted[count] - peer.mixed(inputs, names[count])).abs().max()) for count in in_peft)
    alone = _alone(backbone, deltas[0], inputs)
    folded = float((ours[largest](inputs, ["0"] * sizes.batch) - alone).abs().max())
    timings = take_turns(contenders, rounds=sizes.rounds, warmup=1)
    facts = {
        "rows": sizes.batch,
        "tokens": sizes.length,
        "rank": RANK,
        "largest_difference_to_peft": difference,
        "largest_difference_to_folded": folded,
    }
    found = []
    for count in sizes.loaded:
        what = f"{sizes.batch} texts, {min(count, sizes.batch)} deltas, {count} loaded"
        found.append(_row(what, timings, f"ours {count}", "base", "bare backbone", None, facts))
        if count in in_peft:
            note = {**facts, "loaded_in_peft": len(peer.names)}
            found.append(_row(f"{what}, beside peft", timings, f"ours {count}", f"peft {count}", "adapter_names", None, note))
    found.append(
        _row(
            f"{sizes.batch} texts, 1 delta, {largest} loaded beside few",
            timings,
            "ours one of all",
            "ours 1",
            "1 loaded",
            FLAT,
            facts,
        )
    )
    like = next(count for count in sizes.loaded if min(count, sizes.batch) == few)
    what = f"{sizes.batch} texts, {few} deltas, {largest} loaded beside few"
    found.append(_row(what, timings, f"ours {largest}", f"ours {like}", f"{like} loaded", FLAT, facts))
    return found


def _row(
    what: str, timings: Mapping[str, Any], ours: str, peer: str, beside: str, target: float | None, facts: Mapping[str, Any]
) -> Row:
    return Row(
        benchmark="deltas_in_service",
        what=what,
        ours=timings[ours].median * 1e3,
        peer=timings[peer].median * 1e3,
        beside=beside,
        ratio=timings[ours].ratio(timings[peer]),
        unit="ms",
        target=target,
        details=dict(facts),
    )


def _loading(backbone: BertBlocks, deltas: Sequence[WeightDelta], peer: Peft, sizes: Sizes, folder: Path) -> list[Row]:
    """Return loading the next delta from its file, and switching to one, with more and more of them loaded."""
    many, enabled = _loaded(backbone, deltas[:1]), DeltaSet(copy.deepcopy(backbone), check=True)
    enabled.add("0", deltas[0])
    one, file = _texts(1, sizes.length), folder / "delta.safetensors"
    found: list[Row] = []
    for count in sizes.loading:
        for number in range(len(many), count):
            many.add(str(number), deltas[number])
            enabled.add(str(number), deltas[number])
        other = itertools.cycle([str(count - 1), "0"])
        measured = {
            "loading the next delta": _median(
                lambda: many.add("next", load_delta(file)), sizes.repeats, lambda: many.remove("next")
            ),
            "switching to a delta and one text": _median(lambda other=other: many(one, [next(other)]), sizes.repeats),
            "switching in place (DeltaSet)": _median(lambda other=other: enabled.enable(next(other)), sizes.repeats),
        }
        beside: dict[str, float] = {}
        if count <= sizes.most_in_peft:
            peer.hold(count)
            beside = {
                "loading the next delta": _median(lambda: peer.load("next"), sizes.repeats, lambda: peer.remove("next")),
                "switching to a delta and one text": _median(lambda other=other: peer.switched(one, next(other)), sizes.repeats),
                "switching in place (DeltaSet)": _median(lambda other=other: peer.model.set_adapter(next(other)), sizes.repeats),
            }
        for what, seconds in measured.items():
            if what in beside:
                found.append(_timed(f"{what}, {count} loaded", seconds, beside[what], "peft", sizes.repeats))
    return [*found, *_flat(many, enabled, _loaded(backbone, deltas[:1]), backbone, deltas[0], one, file, sizes)]


def _flat(
    many: RowwiseDeltas,
    enabled: DeltaSet,
    few: RowwiseDeltas,
    backbone: BertBlocks,
    delta: WeightDelta,
    one: Inputs,
    file: Path,
    sizes: Sizes,
) -> list[Row]:
    """Return the same with all loaded, in turns with models that have one delta."""
    alone = DeltaSet(copy.deepcopy(backbone))
    alone.add("0", delta)
    last = str(max(sizes.loading) - 1)

    def load(into: RowwiseDeltas) -> None:
        into.add("next", load_delta(file))
        into.remove("next")

    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "loading the next delta": (lambda: load(many), lambda: load(few)),
        "switching to a delta and one text": (lambda: many(one, [last]), lambda: few(one, ["0"])),
        "switching in place (DeltaSet)": (lambda: enabled.enable(last), lambda: alone.enable("0")),
    }
    found = []
    for what, (ours, theirs) in pairs.items():
        timings = take_turns({"all": ours, "one": theirs}, rounds=2 * sizes.repeats + 1)
        row = _timed(
            f"{what}, {max(sizes.loading)} loaded", timings["all"].median, timings["one"].median, "1 loaded", sizes.repeats
        )
        found.append(replace(row, ratio=timings["all"].ratio(timings["one"]), target=FLAT_LOADING))
    return found


def _timed(what: str, ours: float, peer: float, beside: str, repeats: int) -> Row:
    return Row(
        benchmark="deltas_in_service",
        what=what,
        ours=ours * 1e3,
        peer=peer * 1e3,
        beside=beside,
        unit="ms",
        details={"repeats": repeats, "rank": RANK},
    )


def _median(work: Callable[[], object], repeats: int, undo: Callable[[], object] = lambda: None) -> float:
    """Return the CPU seconds of some work, the median after one time that does not count."""
    taken = []
    for _ in range(repeats + 1):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
        undo()
    return statistics.median(taken[1:])


def _loaded(backbone: BertBlocks, deltas: Sequence[WeightDelta]) -> RowwiseDeltas:
    many = RowwiseDeltas(copy.deepcopy(backbone), _texts(2, 8))
    for number, delta in enumerate(deltas):
        many.add(str(number), delta)
    return many


def _alone(backbone: BertBlocks, delta: WeightDelta, inputs: Inputs) -> Tensor:
    tuned = copy.deepcopy(backbone)
    delta.attach(tuned)
    answer: Tensor = tuned(inputs)
    delta.detach()
    return answer


def _backbone(quick: bool) -> BertBlocks:
    if not quick:
        found = build_backbone("minilm")
        assert isinstance(found, BertBlocks)
        return found.requires_grad_(False)
    import transformers

    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=1000, max_position_embeddings=64, **sizes)
    return BertBlocks(transformers.BertModel(config).eval()).requires_grad_(False)


def _deltas(backbone: BertBlocks, count: int) -> list[WeightDelta]:
    state = plain_state(backbone)
    print_of_base = state_fingerprint(state)
    shapes = {f"{name}.weight": state[f"{name}.weight"].shape for name in select_layers(backbone, "auto")}
    random, found = torch.Generator().manual_seed(0), []
    for _ in range(count):
        parts = {
            name: LowRank(
                0.02 * torch.randn(RANK, shape[1], generator=random), 0.02 * torch.randn(shape[0], RANK, generator=random), 2.0
            )
            for name, shape in shapes.items()
        }
        found.append(WeightDelta(parts, shapes, base_fingerprint=print_of_base))
    return found


def _texts(count: int, length: int) -> dict[str, Tensor]:
    tokens = torch.randint(100, 900, (count, length), generator=torch.Generator().manual_seed(count))
    mask = torch.ones_like(tokens)
    # Libraries leave a mask out that hides nothing.
    mask[:, -1] = 0
    return {"token_ids": tokens, "attention_mask": mask}
