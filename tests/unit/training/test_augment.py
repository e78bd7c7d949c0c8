from __future__ import annotations

import pytest
import torch

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.training.augment import augment_batch, check_augmentation

DENSE = (TaskSpec(name="seg", kind="dense_multiclass", size=9), TaskSpec(name="normals", kind="dense_normals", size=3))


def batch_of(rows: int = 12, size: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (rows, size, size, 3), dtype=torch.uint8, generator=generator)
    normals = torch.randn(rows, 3, size, size, generator=generator)
    numbers = torch.arange(rows)
    return Batch({"image": picture}, {"seg": picture[..., 0].long(), "normals": normals}, {}, numbers, numbers * 0)


def test_nothing_is_done_unless_asked() -> None:
    batch = batch_of()
    assert augment_batch(batch, "none", DENSE, 0, 0) is batch


def test_flips_move_dense_targets_along() -> None:
    batch = batch_of()
    found = augment_batch(batch, "flip", DENSE, seed=0, step=0)
    flipped = [bool((found.inputs["image"][row] == batch.inputs["image"][row].flip(1)).all()) for row in range(len(batch))]
    assert True in flipped
    assert False in flipped
    for row, is_flipped in enumerate(flipped):
        assert torch.equal(found.inputs["image"][row, :, :, 0].long(), found.targets["seg"][row])
        normals = batch.targets["normals"][row]
        if is_flipped:
            normals = normals.flip(-1) * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)
        torch.testing.assert_close(found.targets["normals"][row], normals)


def test_offsets_turn_round_when_flipped() -> None:
    tasks = (TaskSpec(name="way", kind="dense_offsets", size=2), TaskSpec(name="edges", kind="dense_binary", size=1))
    batch = batch_of()
    way = torch.randn(12, 2, 16, 16, generator=torch.Generator().manual_seed(1))
    batch = Batch(batch.inputs, {"way": way, "edges": batch.inputs["image"][..., 0].long() % 2}, {}, batch.rows, batch.rows * 0)
    found = augment_batch(batch, "flip", tasks, seed=0, step=0)
    turned = way.flip(-1) * torch.tensor([-1.0, 1.0]).view(2, 1, 1)
    moved = [not torch.equal(found.inputs["image"][row], batch.inputs["image"][row]) for row in range(12)]
    assert {True, False} == set(moved)
    for row, is_flipped in enumerate(moved):
        torch.testing.assert_close(found.targets["way"][row], turned[row] if is_flipped else way[row])
        assert torch.equal(found.targets["edges"][row], found.inputs["image"][row, ..., 0].long() % 2)


def test_shifts_are_small_and_repeat_the_edge() -> None:
    batch = batch_of(rows=30)
    found = augment_batch(batch, "shift", (), seed=0, step=0).inputs["image"]
    padded = torch.nn.functional.pad(batch.inputs["image"].permute(0, 3, 1, 2).float(), (1, 1, 1, 1), mode="replicate")
    moves = set()
    for row in range(30):
        candidates = {
            (dy, dx): padded[row, :, 1 + dy : 17 + dy, 1 + dx : 17 + dx].permute(1, 2, 0)
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        }
        matching = [move for move, picture in candidates.items() if torch.equal(picture, found[row].float())]
        assert len(matching) == 1
        moves.add(matching[0])
    assert len(moves) >= 6


def test_it_depends_on_seed_and_step_alone() -> None:
    batch = batch_of()
    pictures = [
        augment_batch(batch, "flip+shift", (), seed, step).inputs["image"] for seed, step in ((1, 5), (1, 5), (1, 6), (2, 5))
    ]
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])
    assert not torch.equal(pictures[0], pictures[3])


def test_what_does_not_fit_the_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="augment='flip' needs pictures; the inputs are numeric"):
        check_augmentation("flip", ("numeric",), ())
    with pytest.raises(ConfigError, match=r"would shift pictures against the dense targets \['seg', 'normals'\]"):
        check_augmentation("flip+shift", ("image",), DENSE)
    check_augmentation("flip", ("image",), DENSE)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_row_changes_alike_in_any_number_of_processes(processes: int) -> None:
    batch = batch_of(11)
    whole = augment_batch(batch, "flip+shift", (), seed=3, step=5)
    for rank in range(processes):
        share = slice(rank, None, processes)
        own = Batch({"image": batch.inputs["image"][share]}, {}, {}, batch.rows[share], batch.rows[share] * 0)
        found = augment_batch(own, "flip+shift", (), 3, 5, share=share, num_rows=11)
        assert torch.equal(found.inputs["image"], whole.inputs["image"][share])
