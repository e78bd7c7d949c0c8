"""Reproduction of CoDiEmb: one text encoder for retrieval and for graded similarity.

The paper reports, on 15 Chinese sets of both kinds and with three encoders, gains in both over joint InfoNCE, CoSENT and mixed
sampling, and over a model soup for the fusion of checkpoints.

Our setting: MiniLM, of which the upper three layers learn, and names of emoji in three languages
(:mod:`graftwork.recipes.merging.emoji_pairs`). Retrieval finds the English and Spanish names of an emoji for its German one; similarity
is graded by Unicode's taxonomy. Both are measured on emoji that no training saw, as nDCG at 10 and Spearman's correlation times 100.

All arms make the same 240 steps of 48 texts: CoDiEmb in batches of one task each with that task's losses; InfoNCE in batches that mix
both, similar pairs (grade 2 and more) as positives; CoSENT with InfoNCE in batches of one task; and a model for each task alone, with
all steps for its task. The fusion merges four checkpoints, the two models of one task and CoDiEmb half-way and at its end, and so does
the uniform soup.

The pilot (``--pilot``, seeds 100 and 101) chooses for each arm a learning rate of four by the mean of both measures on validation
emoji; fusion and soup follow CoDiEmb.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

from graftwork.claims.experiment import (
    Access,
    Arm,
    ArmContext,
    EqualBudget,
    Headroom,
    Inequality,
    Measurements,
    Pilot,
    Recipe,
    SeedMeasurements,
)
from graftwork.core.seeds import Seeds
from graftwork.data.single_task_batches import SingleTaskBatches
from graftwork.data.suite import Suite
from graftwork.interfaces.merger import Merger
from graftwork.interfaces.train_step import TrainStep
from graftwork.methods.merging.averaging import AveragingMerger
from graftwork.methods.merging.codiemb import DeltaGuidedMerger
from graftwork.methods.merging.driver import merge_arrays
from graftwork.nn.embedding_losses import graded_loss, multi_positive_contrast
from graftwork.recipes.merging.emoji_pairs import (
    emoji_texts,
    graded_pairs,
    retrieval_rows,
    text_scores,
)
from graftwork.recipes.merging.minilm_layers import MiniLMLayers, states_before
from graftwork.training.config import LoopConfig
from graftwork.training.loop import Loop

__all__ = ["ARMS", "RECIPE", "EmojiBatch", "cosent_loss", "derive", "run_arm"]

Array = NDArray[Any]
STEPS, FROZEN = 240, 3
"""Steps of each training, and layers of MiniLM that never learn."""
QUERIES, PAIRS = 12, 24
"""Of a batch of one task: 48 texts either way."""
POSITIVE_GRADE, TEMPERATURE = 2.0, 0.05
KINDS = {"codiemb": "one task a batch", "infonce": "mixed", "cosent": "one task a batch", "ir": "retrieval", "sts": "similarity"}
_CHECKPOINTS = ("ir", "sts", "codiemb-half", "codiemb")


class EmojiBatch:
    """Texts of one step: rows of retrieval ``[n, 4]``, rows of pairs ``[m, 2]`` with their grades ``[m]``; either may be empty."""

    def __init__(self, retrieval: Array, pairs: Array, grades: Array) -> None:
        self.retrieval, self.pairs, self.grades = retrieval, pairs, grades

    def __len__(self) -> int:
        return int(self.retrieval.size + self.pairs.size)


class EmojiBatches:
    """Where batches come from, a pure function of the step.

    Args:
        suite: The texts; training labels are read.
        kind: Of :data:`KINDS`.
        seed: Draws negatives, pairs and batches.
    """

    def __init__(self, suite: Suite, kind: str, seed: int) -> None:
        self.kind = kind
        random = Seeds(seed).numpy("examples")
        emoji = suite.splits["train"][::3] // 3
        self.retrieval = retrieval_rows(suite, emoji, random)
        self.pairs, self.grades = graded_pairs(suite, emoji, random)
        rows = {"retrieval": len(self.retrieval), "similarity": len(self.pairs)}
        self.single = SingleTaskBatches(
            rows,
            {"retrieval": min(QUERIES, rows["retrieval"]), "similarity": min(PAIRS, rows["similarity"])},
            shares={"retrieval": 1.0, "similarity": 1.0},
            seed=seed,
        )
        self.seed = seed

    def batch(self, step: int) -> EmojiBatch:
        """Return the texts of a step."""
        if self.kind == "one task a batch":
            name, rows = self.single.batch(step)
            return self._of(rows, np.array([], np.int64)) if name == "retrieval" else self._of(np.array([], np.int64), rows)
        random = np.random.default_rng([self.seed, step])
        share = {"retrieval": (1.0, 0.0), "similarity": (0.0, 1.0), "mixed": (0.5, 0.5)}[self.kind]
        return self._of(
            random.choice(len(self.retrieval), min(int(share[0] * QUERIES), len(self.retrieval)), replace=False),
            random.choice(len(self.pairs), min(int(share[1] * PAIRS), len(self.pairs)), replace=False),
        )

    def _of(self, retrieval: Array, pairs: Array) -> EmojiBatch:
        return EmojiBatch(self.retrieval[retrieval], self.pairs[pairs], self.grades[pairs])


def cosent_loss(similarity: Tensor, grade: Tensor, *, temperature: float = TEMPERATURE) -> Tensor:
    """Return the loss of CoSENT, a scalar: the logarithm of one plus the sum over pairs in the wrong order of how wrong they are.

    Args:
        similarity: ``[n]``.
        grade: ``[n]``.
        temperature: Above 0.
    """
    apart = (similarity.unsqueeze(0) - similarity.unsqueeze(1)) / temperature  # [above, below]
    wrong = apart.masked_fill(grade.unsqueeze(1) <= grade.unsqueeze(0), float("-inf"))
    return torch.logsumexp(torch.cat([torch.zeros(1), wrong.flatten()]), dim=0)


class EmbeddingStep(TrainStep[EmojiBatch]):
    """The losses of an arm on one batch.

    Args:
        model: The layers that learn.
        states: Of all texts below them, half precision ``[N, L, 384]``.
        mask: ``[N, L]``.
        losses: ``codiemb``, ``cosent`` or ``infonce``.
    """

    loss_names = ("embedding",)

    def __init__(self, model: MiniLMLayers, states: Array, mask: Array, losses: str) -> None:
        self.model: MiniLMLayers = model
        self.states, self.mask, self.losses = states, mask, losses

    def embed(self, rows: Array) -> Tensor:
        """Return embeddings of texts, ``[len(rows), 384]``."""
        return self.model.embed(self.states[rows], self.mask[rows])

    def backward(self, batch: EmojiBatch, step: int) -> Tensor:
        """Write gradients; return the loss ``[1]``."""
        vectors = self.embed(np.concatenate([batch.retrieval.reshape(-1), batch.pairs.reshape(-1)]))
        found = vectors[: batch.retrieval.size].reshape(-1, 4, vectors.shape[1])
        pairs = vectors[batch.retrieval.size :].reshape(-1, 2, vectors.shape[1])
        grades = torch.from_numpy(batch.grades)
        if self.losses == "infonce":
            loss = self._joint(found, pairs[grades >= POSITIVE_GRADE])
        elif len(found):
            loss = multi_positive_contrast(found[:, 0], found[:, 1:], 2, temperature=TEMPERATURE)
        else:
            similarity = (pairs[:, 0] * pairs[:, 1]).sum(dim=1)
            loss = graded_loss(similarity, grades) if self.losses == "codiemb" else cosent_loss(similarity, grades)
        if loss.requires_grad:
            loss.backward()
        return loss.detach().reshape(1)

    @staticmethod
    def _joint(found: Tensor, pairs: Tensor) -> Tensor:
        """Return InfoNCE over both tasks: the first positive of each query and the similar pairs; candidates are the second texts of
        all, and the hard negatives."""
        queries = torch.cat([found[:, 0], pairs[:, 0]])
        candidates = torch.cat([found[:, 1], pairs[:, 1], found[:, 3]])
        loss = torch.nn.functional.cross_entropy(queries @ candidates.T / TEMPERATURE, torch.arange(len(queries)))
        return loss if len(queries) else queries.sum()


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Train or merge; measure nDCG and Spearman, times 100, and their mean."""
    suite = emoji_texts(seed, most=context.choose(full=0, smoke=24))
    data = context.guard(suite)
    states = _states(suite, context)
    kind, rate = str(arm.settings["kind"]), float(arm.settings["rate"])
    if kind in KINDS:
        trained = _trained(kind, rate, seed, data.visible, states, context)["end"]
    else:
        checkpoints = []
        for name in _CHECKPOINTS:
            found = _trained(name.partition("-")[0], rate, seed, data.visible, states, context)
            checkpoints.append(found["half" if name.endswith("half") else "end"])
        base = {name: value.detach().numpy().copy() for name, value in MiniLMLayers(FROZEN).state_dict().items()}
        mergers: dict[str, Merger] = {
            "fusion": DeltaGuidedMerger(),
            "fusion-tensor": DeltaGuidedMerger(grain="tensor"),
            "soup": AveragingMerger(),
        }
        trained = merge_arrays(base, checkpoints, mergers[kind])
    model = MiniLMLayers(FROZEN)
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in trained.items()})
    step = EmbeddingStep(model.eval(), states, suite.inputs["attention_mask"], "")
    with torch.inference_mode():
        vectors = np.concatenate([step.embed(rows).numpy() for rows in np.array_split(np.arange(len(suite)), 20)])
    # All labels of the suite, to score alone.
    test, validation = (text_scores(suite, split, vectors, seed) for split in ("test", "val"))
    return {
        **test,
        "mean": (test["ndcg"] + test["spearman"]) / 2,
        "validation": (validation["ndcg"] + validation["spearman"]) / 2,
    }


def _states(suite: Suite, context: ArmContext) -> Array:
    folder = context.once("lower", lambda folder: np.save(folder / "states.npy", states_before(FROZEN, suite)))
    found: Array = np.load(folder / "states.npy", mmap_mode="r", allow_pickle=False)
    return found


def _trained(kind: str, rate: float, seed: int, suite: Suite, states: Array, context: ArmContext) -> dict[str, dict[str, Array]]:
    """Return the layers half-way and at the end of a training, made once for all arms of a seed."""
    steps = context.choose(full=STEPS, smoke=2)

    def build(folder: Path) -> None:
        seeds = Seeds(seed).child("training")
        seeds.set_global("init")
        losses = "codiemb" if kind in ("ir", "sts") else kind
        step = EmbeddingStep(MiniLMLayers(FROZEN), states, suite.inputs["attention_mask"], losses)
        loop = Loop(
            step,
            EmojiBatches(suite, KINDS[kind], seeds.integer("batches") % 2**31),
            config=LoopConfig(max_steps=steps, learning_rate=rate, warmup_steps=20, grad_clip=1.0),
            seeds=seeds,
            callbacks=[context.budget_callback()],
        )
        for name, until in (("half", steps // 2), ("end", steps)):
            loop.train(until, lambda done: context.progress(done / steps, f"{kind}, step {done}"))
            save_file(
                {key: value.detach().numpy() for key, value in step.model.state_dict().items()}, folder / f"{name}.safetensors"
            )

    folder = context.once(f"{kind}-{rate:g}", build)
    return {name: load_file(folder / f"{name}.safetensors") for name in ("half", "end")}


def derive(results: SeedMeasurements) -> dict[str, Measurements]:
    """Add the mean of what the two models of one task reach, each in its own: the bound."""
    return {"ir": {"both": (results["ir"]["ndcg"] + results["sts"]["spearman"]) / 2}}


_LABELS = Access(source_labels=True)


def _arm(name: str, title: str) -> Arm:
    return Arm(name, title, _LABELS, {"kind": name, "rate": 1e-4})


ARMS = (
    _arm("codiemb", "CoDiEmb: one task a batch, losses of its own"),
    _arm("infonce", "InfoNCE for both, mixed batches"),
    _arm("cosent", "CoSENT and InfoNCE, one task a batch"),
    _arm("ir", "retrieval alone"),
    _arm("sts", "similarity alone"),
    _arm("fusion", "delta-guided fusion of four checkpoints"),
    _arm("fusion-tensor", "the same with weights of whole tensors"),
    _arm("soup", "uniform soup of the same checkpoints"),
)
_RATES = (3e-5, 1e-4, 3e-4, 1e-3)
_TRAINED = tuple(KINDS)
_MIXED, _FUSION = "beats InfoNCE in mixed batches", "the fusion beats a uniform soup"


def _claim(name: str, left: str, right: str, margin: float, **options: Any) -> Inequality:
    return Inequality(name, left, right, margin=margin, unit="points", **options)


RECIPE = Recipe(
    slug="codiemb",
    smoke_seeds=(0,),
    arms=ARMS,
    run_arm=run_arm,
    derive=derive,
    inequalities=(
        _claim(_MIXED, "codiemb.mean", "infonce.mean", 1.5),
        _claim("retrieval is near its own model", "codiemb.ndcg", "ir.ndcg", 1.0, demand="not worse"),
        _claim("similarity is near its own model", "codiemb.spearman", "sts.spearman", 1.0, demand="not worse"),
        _claim(_FUSION, "fusion.mean", "soup.mean", 0.3),
        _claim("beats CoSENT and InfoNCE", "codiemb.mean", "cosent.mean", 0.0, primary=False),
        _claim("weights of entries beat those of tensors", "fusion.mean", "fusion-tensor.mean", 0.0, primary=False),
    ),
    headroom=(
        Headroom("ir.both", "infonce.mean", margin=1.5, inequalities=(_MIXED,), unit="points"),
        Headroom("ir.both", "soup.mean", margin=0.3, inequalities=(_FUSION,), unit="points"),
    ),
    pilot=Pilot(
        grids={name: {"rate": _RATES} for name in _TRAINED},
        follows=dict.fromkeys(("fusion", "fusion-tensor", "soup"), "codiemb"),
        score=("validation",),
    ),
    equal_budget=(EqualBudget(("labels",)), EqualBudget(("steps", "samples"), _TRAINED)),
    minutes=60,
    notes=(
        "Names of emoji and MiniLM, of which three layers learn, in place of CMTEB and larger encoders.",
        "Models of one task make as many steps for it as CoDiEmb makes for both.",
        "All contrastive losses have a temperature of 0.05, in place of the paper's 0.02.",
    ),
)
