"""Whole folders of models that a user names or got from elsewhere: tuned deltas, models of other libraries, answers of teachers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

__all__ = ["MODEL_FOLDERS", "TEACHER_TARGETS", "TUNED", "write_bert", "write_tuned"]

TEACHER_TARGETS = "price,late"
TUNED: Mapping[str, Mapping[str, Any]] = {
    "one": {"method": "lora", "settings": {"r": 2, "working_size": 32}},
    "two": {"method": "adapter", "settings": {"bottleneck": 2, "working_size": 32}},
}
"""Runs of ``tune`` that share a backbone, which ships with the package."""
_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "day", "to", "you", "##s", "a", "night")


def _write_pictures(folder: Path, count: int = 40, size: int = 16) -> None:
    from PIL import Image

    rng = np.random.default_rng(2)
    (folder / "pictures").mkdir(parents=True)
    rows = []
    for number in range(count):
        pixels = rng.integers(0, 60, (size, size, 3)).astype(np.uint8)
        pixels[:, :, number % 3] += np.uint8(100 + number)
        Image.fromarray(pixels).save(folder / "pictures" / f"{number:02}.png")
        rows.append(
            {"file": f"{number:02}.png", "colour": ("red", "green", "blue")[number % 3], "light": round(pixels.mean() / 255, 4)}
        )
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)


def write_tuned(folder: Path) -> None:
    """Tune a backbone in several ways, for some steps."""
    import graftwork as gw

    _write_pictures(folder, size=32)
    fields: dict[str, Any] = {"steps": 4, "workers": 0, "progress": False, "overrides": {"batch_size": 8, "ema_decay": 0.0}}
    # What the other methods would cost is measured for long.
    with mock.patch("graftwork.workflows.tune.costs.METHODS", ()):
        for name, asked in TUNED.items():
            gw.tune("conv-mini", folder / "pictures", labels=str(folder / "labels.csv"), out=folder / name, **asked, **fields)


def write_bert(folder: Path) -> None:
    """Write a BERT of one narrow layer with a tokenizer of some words, as transformers saves it."""
    import torch
    import transformers

    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(_WORDS), max_position_embeddings=32, **sizes)
    folder.mkdir(parents=True)
    # Not by save_pretrained, which draws a progress bar.
    config.save_pretrained(folder)
    tensors = {name: tensor.numpy() for name, tensor in transformers.BertModel(config).state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    vocabulary = {word: number for number, word in enumerate(_WORDS)}
    special = [
        {"id": number, "content": _WORDS[number], "single_word": False, "lstrip": False, "rstrip": False} for number in range(4)
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**entry, "normalized": False, "special": True} for entry in special],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")


def _write_transformers(folder: Path) -> None:
    write_bert(folder / "bert")
    rng = np.random.default_rng(3)
    rows = [{"body": " ".join(rng.choice(_WORDS[4:], 5)), "late": ("yes", "no")[number % 2]} for number in range(24)]
    pd.DataFrame(rows).to_csv(folder / "texts.csv", index=False)


def _write_timm(folder: Path) -> None:
    """A small network as timm saves it, and pictures."""
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model("test_resnet", pretrained=False, num_classes=4)
    (folder / "resnet").mkdir(parents=True)
    save_file({name: tensor.numpy() for name, tensor in model.state_dict().items()}, folder / "resnet" / "model.safetensors")
    thirds = [0.5, 0.5, 0.5]
    cfg = {"input_size": [3, 32, 32], "mean": thirds, "std": thirds, "crop_pct": 1.0, "interpolation": "bilinear"}
    content = {"architecture": "test_resnet", "num_classes": 4, "pretrained_cfg": cfg, "label_names": list("abcd")}
    (folder / "resnet" / "config.json").write_text(json.dumps(content), encoding="utf-8")
    _write_pictures(folder, count=24)


_MERGE = """base_model: base
merge_method: ties
models:
  - model: a
    parameters:
      density: 0.5
      weight: [0.2, 0.8]
  - model: b
    parameters:
      density: 0.7
      weight:
        - filter: mlp
          value: 0.5
        - value: 1.0
parameters:
  normalize: true
  int8_mask: false
dtype: float32
out_dtype: float16
tokenizer_source: base
"""
_STACK = """slices:
  - sources:
      - model: a
        layer_range: [0, 2]
  - sources:
      - model: b
        layer_range: [1, 2]
merge_method: passthrough
dtype: bfloat16
"""


_STAGES = """name: first
merge_method: task_arithmetic
base_model: base
models:
  - model: a
    parameters: {weight: 0.5}
dtype: float32
---
merge_method: linear
models:
  - model: first
    parameters: {weight: 0.6}
  - model: b
    parameters: {weight: [0.2, 0.8]}
dtype: bfloat16
"""


def _write_mergekit(folder: Path) -> None:
    rng = np.random.default_rng(4)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (6, 4),
        "model.norm.weight": (4,),
        "lm_head.weight": (6, 4),
    }
    for number in range(2):
        shapes |= {f"model.layers.{number}.self_attn.{kind}_proj.weight": (4, 4) for kind in "qkvo"}
        shapes |= {f"model.layers.{number}.mlp.{kind}_proj.weight": (8, 4) for kind in ("gate", "up")}
        shapes |= {f"model.layers.{number}.input_layernorm.weight": (4,), f"model.layers.{number}.mlp.down_proj.weight": (4, 8)}
    for name in ("base", "a", "b"):
        (folder / name).mkdir(parents=True)
        tensors = {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
        save_file(tensors, folder / name / "model.safetensors", metadata={"format": "pt"})
        (folder / name / "config.json").write_text(
            json.dumps({"model_type": "llama", "num_hidden_layers": 2, "dtype": "float32"})
        )
        (folder / name / "tokenizer.json").write_text("{}")
    (folder / "merge.yml").write_text(_MERGE, encoding="utf-8")
    (folder / "stack.yml").write_text(_STACK, encoding="utf-8")
    (folder / "stages.yml").write_text(_STAGES, encoding="utf-8")


def _write_teachers(folder: Path) -> None:
    """A table, and what teachers say of its rows in all forms that are read."""
    folder.mkdir()
    rng = np.random.default_rng(6)
    values = rng.normal(size=(40, 3)).round(3)
    frame = pd.DataFrame(values, columns=list("abc"))
    frame["price"], frame["late"] = (10 + 3 * values[:, 0]).round(3), np.where(values[:, 1] > 0, "yes", "no")
    frame.to_csv(folder / "table.csv", index=False)
    share = (1 / (1 + np.exp(-values[:, 1]))).round(4)
    said = pd.DataFrame(
        {"row": range(40), "price": frame["price"], "late": frame["late"], "late[no]": 1 - share, "late[yes]": share}
    )
    said.to_csv(folder / "said.csv", index=False)
    said.to_json(folder / "said.jsonl", orient="records", lines=True)
    said.to_parquet(folder / "said.parquet")
    classes = rng.dirichlet([1, 1, 1], size=40).astype(np.float32)
    arrays = {"features": values.astype(np.float32), "classes": classes, "price": values[:, :1].astype(np.float32)}
    np.save(folder / "said.npy", arrays["features"])
    np.savez(folder / "said.npz", **arrays)  # type: ignore[arg-type] # arrays by name
    save_file(arrays, folder / "said.safetensors")


MODEL_FOLDERS: Mapping[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "tuned": (write_tuned, ()),
    "transformers": (_write_transformers, ("transformers", "tokenizers")),
    "timm": (_write_timm, ("timm",)),
    "mergekit": (_write_mergekit, ()),
    "teachers": (_write_teachers, ()),
}
"""Folders of :attr:`.Subject.folder`: what writes each, and the packages that it needs."""
