"""The world of the reproduction of composable sparse fine-tuning: kindred languages, an encoder that learned two of them, its tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from graftwork.claims.experiment import ArmContext
from graftwork.core.components import Component
from graftwork.core.input_spec import text_input
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.data.suites.kindred_languages import FIRST_TOKEN, MASK, NUM_AGENTS, NUM_TAGS, TEXT_LENGTH, KindredLanguages
from graftwork.domains.text.masked_language import HiddenTokens, MaskedLanguageModel, MaskedLanguageStep, MaskedTexts
from graftwork.domains.text.token_encoder import TokenEncoder
from graftwork.methods.tuning.sft_transfer import start_distance
from graftwork.training.config import LoopConfig
from graftwork.training.loop import Loop

__all__ = [
    "SOURCE",
    "TARGETS",
    "TASKS",
    "encoder_component",
    "kindred_world",
    "language_model",
    "pretrained_base",
    "task_suite",
    "train_language",
]

SOURCE, TARGETS = 0, (2, 3, 4, 5)
"""Numbers of languages; number 1 is the other one that the encoder knows well."""
TASKS = {
    "tags": TaskSpec(name="tags", kind="multiclass", size=NUM_TAGS, positions="steps"),
    "agent": TaskSpec(name="agent", kind="multiclass", size=NUM_AGENTS),
}
"""The class of every token, and the class of who acts in a sentence."""
COGNATES, RARE = 0.7, 0.02
"""Share of cognate words; share of each target language in pretraining."""
WIDTH, DEPTH, HIDDEN = 64, 2, 128
PRETRAINING, PRETRAINING_BATCH, PRETRAINING_RATE = 600, 64, 3e-3
TEXTS, TEXTS_OF_TARGETS = 20_000, 4_000
"""Texts of a language that is known well, and of each target language."""
BATCH, HIDDEN_SHARE = 32, 0.3
"""Texts a step of a language or a task; share of tokens that is hidden: texts are short."""
TRAIN, VALIDATION, TEST = 1_000, 300, 500


def kindred_world(seed: int) -> KindredLanguages:
    """Return grammar and languages of a seed."""
    return KindredLanguages(2 + len(TARGETS), cognates=COGNATES, seed=seed)


def encoder_component(world: KindredLanguages, *, weights: str | Path, deltas: Sequence[str | Path] = ()) -> Component:
    """Return how a plan builds the encoder: with the weights of a file, and deltas of files attached."""
    settings = {"num_tokens": world.num_tokens, "length": TEXT_LENGTH, "width": WIDTH, "depth": DEPTH, "hidden": HIDDEN}
    files = {"weights": str(weights), "deltas": [str(file) for file in deltas]}
    return Component("graftwork.domains.text.token_encoder:TokenEncoder", {**settings, **files})


def language_model(world: KindredLanguages, folder: Path | None = None) -> MaskedLanguageModel:
    """Return an encoder with its output layer, new or from the folder of :func:`pretrained_base`."""
    weights = "" if folder is None else folder / "encoder.safetensors"
    encoder = encoder_component(world, weights=weights).build(seam=TokenEncoder)
    model = MaskedLanguageModel(encoder, WIDTH, world.num_tokens)
    if folder is not None:
        model.head.load_state_dict(load_file(folder / "head.safetensors"))
    return model


def pretrained_base(world: KindredLanguages, context: ArmContext) -> Path:
    """Return the folder of an encoder that learned by masked language modelling, nearly all of it in two languages; made once a
    seed."""

    def build(folder: Path) -> None:
        # Texts of the target languages without labels: what the arms declare.
        context.require_access("target_inputs", "texts of the target languages")
        model = language_model(world)
        counts = [TEXTS, TEXTS, *[TEXTS_OF_TARGETS] * len(TARGETS)]
        texts = [_texts(world, number, context.choose(full=count, smoke=40)) for number, count in enumerate(counts)]
        known = (1.0 - RARE * len(TARGETS)) / 2
        source = _source(
            world, texts, [known, known, *[RARE] * len(TARGETS)], PRETRAINING_BATCH, context.seeds.integer("pretraining")
        )
        steps = context.choose(full=PRETRAINING, smoke=2)
        _train(model, source, steps, PRETRAINING_RATE, context, "pretraining")
        save_file(model.encoder.state_dict(), folder / "encoder.safetensors")
        save_file(model.head.state_dict(), folder / "head.safetensors")

    return context.once("base", build)


def train_language(
    model: MaskedLanguageModel,
    world: KindredLanguages,
    language: int,
    steps: int,
    rate: float,
    context: ArmContext,
    *,
    l1: float = 0.0,
) -> None:
    """Learn one language by masked language modelling, the output layer fixed: what requires a gradient in the encoder learns.

    Args:
        model: The model; a tuner is attached to its encoder.
        world: The languages.
        language: Its number.
        steps: Steps.
        rate: Learning rate.
        context: The arm.
        l1: Strength of the penalty on the distance from the start, for tuners that know one.
    """
    model.head.requires_grad_(False)
    count = context.choose(full=TEXTS if language < 2 else TEXTS_OF_TARGETS, smoke=40)
    source = _source(world, [_texts(world, language, count)], [1.0], BATCH, context.seeds.integer(f"language/{language}"))
    penalty = (lambda: l1 * start_distance(model.encoder)) if l1 else None
    _train(model, source, steps, rate, context, f"language {language}", penalty)


def task_suite(world: KindredLanguages, task: str, language: int, context: ArmContext) -> Suite:
    """Return the suite of a task: training and validation rows of one language, rows of all target languages to be tested on.

    Splits ``test-L`` and ``dev-L`` are those of language ``L``; the pilot chooses by the latter.
    """
    train, validation, test = context.choose(full=(TRAIN, VALIDATION, TEST), smoke=(24, 12, 12))
    parts = {"train": (language, train), "val": (language, validation)}
    parts |= {f"{name}-{number}": (number, test) for number in TARGETS for name in ("test", "dev")}
    tokens, targets, splits, start = [], [], {}, 0
    for name, (number, count) in parts.items():
        events = world.events(count, f"{name}/{number}")
        own, tags = world.say(events, number)
        tokens.append(own)
        targets.append(tags if task == "tags" else events.agent)
        splits[name] = np.arange(start, start + count)
        start += count
    return Suite.of_arrays(
        name=f"kindred-{task}-{language}",
        input_specs=text_input(world.num_tokens, TEXT_LENGTH),
        tasks=[TASKS[task]],
        inputs={"tokens": np.concatenate(tokens)},
        targets={task: np.concatenate(targets)},
        splits=splits,
    )


def _texts(world: KindredLanguages, language: int, count: int) -> np.ndarray:
    return world.say(world.events(count, f"texts/{language}"), language)[0]


def _source(world: KindredLanguages, texts: Sequence[np.ndarray], shares: Sequence[float], batch: int, seed: int) -> MaskedTexts:
    return MaskedTexts(texts, shares, batch, seed, mask=MASK, first=FIRST_TOKEN, num_tokens=world.num_tokens, share=HIDDEN_SHARE)


def _train(
    model: MaskedLanguageModel,
    source: MaskedTexts,
    steps: int,
    rate: float,
    context: ArmContext,
    name: str,
    penalty: Callable[[], Tensor] | None = None,
) -> None:
    loop: Loop[HiddenTokens] = Loop(
        MaskedLanguageStep(model, penalty),
        source,
        config=LoopConfig(
            max_steps=steps, learning_rate=rate, weight_decay=0.0, optimizer="adam", schedule="linear", grad_clip=1.0
        ),
        seeds=Seeds(context.seed).child(name),
        callbacks=[context.budget_callback()],
    )
    loop.train(steps, lambda step: context.progress(step / steps, f"{name}, step {step}"))
