"""Small data, small backbones and short tunings, for the tests of what is done with tuned models."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import graftwork as gw

SMALL = {"batch_size": 8, "ema_decay": 0.0}
WORDS = {"yes": ("great", "lovely", "fine"), "no": ("bad", "awful", "poor")}


def write_bert(folder: Path, *, seed: int = 0) -> str:
    """A BERT of two narrow layers with MiniLM's tokenizer; return its name as a backbone."""
    import transformers

    from graftwork.nn.backbones.transformers_bridge import minilm_folder

    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(seed)
    model = transformers.BertModel(transformers.BertConfig(vocab_size=30522, max_position_embeddings=64, **sizes))
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((minilm_folder() / "tokenizer.json").read_bytes())
    return f"hf:{folder}"


def write_texts(path: Path, *, more: str = "", stars: bool = True) -> Path:
    """A table of short texts with one or two targets; ``more`` makes them longer, so that their encoder keeps more tokens."""
    random = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["body", "liked", *(["stars"] if stars else [])])
        for number in range(80):
            liked = "yes" if random.random() < 0.5 else "no"
            text = f"number {number} was {random.choice(WORDS[liked])} {more}".strip()
            rating = f"{random.normal(3 + 2 * (liked == 'yes')):.3f}"
            writer.writerow([text, liked, *([rating] if stars else [])])
    return path


def write_pictures(folder: Path, *, size: int = 32) -> Path:
    """Pictures of one colour with noise, and their labels beside."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "colour", "light"])
        for number in range(60):
            channel = number % 3
            pixels = random.integers(0, 60, (size, size, 3)).astype(np.uint8)
            pixels[:, :, channel] += np.uint8(100 + number)
            Image.fromarray(pixels).save(folder / "images" / f"{number:03}.png")
            writer.writerow([f"{number:03}.png", ("red", "green", "blue")[channel], f"{pixels.mean() / 255:.4f}"])
    return folder


def tune(backbone: str, source: Path, out: Path, method: str, **settings: Any) -> gw.TuneRun:
    """Tune for four steps; tests patch the measuring of what other methods would cost away."""
    asked: dict[str, Any] = {"steps": 4, "workers": 0, "progress": False, "overrides": SMALL}
    return gw.tune(backbone, source, out=out, method=method, **{**asked, **settings})
