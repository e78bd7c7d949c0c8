from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.methods.tuning.sft_compose import SparseFineTuning, maskable
from graftwork.methods.tuning.sft_transfer import (
    lottery_ticket,
    measured_from,
    start_distance,
    transferred,
)
from graftwork.nn.foldable import plain_state
from graftwork.nn.weight_delta import Sparse, WeightDelta

K = 9


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 6), nn.LayerNorm(6), nn.Linear(6, 5), nn.Flatten(), nn.Linear(15, 3))


def rows(seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(7, (16, 3), generator=draw), torch.randint(3, (16,), generator=draw)


def train(model: nn.Module, parameters: list[nn.Parameter], seed: int, steps: int = 8, **options: float) -> None:
    optimiser = torch.optim.AdamW(parameters, lr=0.05, **options)  # type: ignore[arg-type]
    inputs, labels = rows(seed)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimiser.step()


def phase(model: nn.Module, tuner: SparseFineTuning, seed: int) -> SparseFineTuning:
    tuner.attach(model)
    train(model, list(tuner.trainable()), seed, weight_decay=0.3)
    return tuner


def trainer(seed: int) -> Callable[[nn.Module, SparseFineTuning, str], None]:
    return lambda model, tuner, kind: train(model, list(tuner.trainable()), seed)


def ticket(seed: int, k: int = K, rounds: int = 1, start: WeightDelta | None = None) -> WeightDelta:
    return lottery_ticket(network(), trainer(seed), k=k, rounds=rounds, start=start)


def applied(delta: WeightDelta) -> dict[str, Tensor]:
    model = network()
    delta.attach(model)
    delta.fold()
    return plain_state(model)


def dense(delta: WeightDelta) -> dict[str, Tensor]:
    return {
        name: delta.tensor(name) if name in delta.parts else torch.zeros_like(own) for name, own in maskable(network()).items()
    }


def flat(delta: WeightDelta) -> np.ndarray:
    return np.concatenate([tensor.detach().numpy().ravel() for tensor in dense(delta).values()])


def mask_of(delta: WeightDelta) -> np.ndarray:
    return np.asarray(flat(delta) != 0)


def test_the_mask_is_numpys_choice_of_the_largest_changes() -> None:
    full = phase(network(), SparseFineTuning(select="all"), 1).delta()
    names = list(maskable(network()))
    moved = np.abs(flat(full))
    threshold = np.sort(moved)[-K]
    tuner = phase(network(), SparseFineTuning(k=K, changes=full), 1)
    chosen = np.zeros(len(moved), dtype=bool)
    sizes = np.cumsum([0, *(maskable(network())[name].numel() for name in names)])
    for name, first in zip(names, sizes[:-1], strict=True):
        layer, _, parameter = name.rpartition(".")
        if layer in tuner.layers and parameter in tuner.layers[layer].names:
            chosen[first + getattr(tuner.layers[layer], f"{parameter}_places").numpy()] = True
    np.testing.assert_array_equal(chosen, moved >= threshold)
    assert chosen.sum() == K == sum(item.numel() for item in tuner.trainable())


def test_what_was_not_chosen_keeps_its_bits_under_adam_and_weight_decay() -> None:
    full = phase(network(), SparseFineTuning(select="all"), 1).delta()
    model, base = network(), network().state_dict()
    tuner = phase(model, SparseFineTuning(k=K, changes=full), 2)
    delta = tuner.delta()
    tuner.fold()
    for name, tensor in model.state_dict().items():
        moved = delta.tensor(name) != 0 if name in delta.parts else torch.zeros_like(tensor, dtype=torch.bool)
        assert torch.equal(tensor[~moved], base[name][~moved])
        assert bool((tensor[moved] != base[name][moved]).all())
    assert delta.count() == 2 * K  # values and places
    assert all(isinstance(part, Sparse) for part in delta.parts.values())


def test_the_second_phase_begins_at_the_start_and_not_where_the_first_ended() -> None:
    full = phase(network(), SparseFineTuning(select="all"), 1).delta()
    model = network()
    before = model(rows(1)[0])
    SparseFineTuning(k=K, changes=full).attach(model)
    torch.testing.assert_close(model(rows(1)[0]), before, rtol=0, atol=0)


def test_norms_are_frozen_and_never_chosen() -> None:
    assert not [name for name in maskable(network()) if name.startswith("1.")]
    model = network()
    tuner = phase(model, SparseFineTuning(select="all"), 1)
    assert not any(item.requires_grad for item in model[1].parameters())
    assert not [name for name in tuner.delta().names() if name.startswith("1.")]


def test_all_weights_chosen_are_full_tuning() -> None:
    names = list(maskable(network()))
    plain = network()
    plain[1].requires_grad_(False)
    train(plain, [item for item in plain.parameters() if item.requires_grad], 1, weight_decay=0.0)
    size = sum(tensor.numel() for tensor in maskable(network()).values())
    sparse = lottery_ticket(
        network(), lambda model, tuner, kind: train(model, list(tuner.trainable()), 1, weight_decay=0.0), k=size
    )
    state = applied(sparse)
    for name in names:
        torch.testing.assert_close(state[name], plain.state_dict()[name], rtol=1e-4, atol=1e-4)


def test_two_rounds_choose_k_in_all_and_keep_those_of_the_first() -> None:
    first = ticket(1, k=5)
    both = ticket(1, k=9, rounds=2)
    assert mask_of(both).sum() == 9
    # The first round of two takes the larger half: the same five.
    assert (mask_of(both) >= mask_of(first)).all()
    with pytest.raises(ConfigError, match="rounds"):
        ticket(1, k=2, rounds=3)


def test_a_task_is_measured_from_its_language_and_moves_to_another_one() -> None:
    source, target = ticket(1), ticket(2)
    base = network().state_dict()
    task = ticket(3, start=source)
    model = network()
    full = SparseFineTuning(select="all", start=source)
    full.attach(model)
    for name, layer in full.layers.items():
        for key in layer.names:
            expected = base[f"{name}.{key}"] + dense(source)[f"{name}.{key}"]
            assert torch.equal(layer.current(key), expected)
    tuned = source + task
    moved = transferred(tuned, source=source, target=target)
    for name, tensor in applied(moved).items():
        added = dense(task)[name] + dense(target)[name] if name in dense(task) else torch.zeros_like(tensor)
        torch.testing.assert_close(tensor, base[name] + added, rtol=0, atol=1e-6)
    # Taking the tuned difference itself would add the source language as well.
    twice = applied(tuned + target)
    assert any(not torch.allclose(twice[name], applied(moved)[name], atol=1e-4) for name in twice)


def test_the_delta_of_a_started_tuner_holds_the_start_and_learned_does_not() -> None:
    source = ticket(1)
    full = phase(network(), SparseFineTuning(select="all", start=source), 2)
    tuner = phase(network(), SparseFineTuning(k=K, changes=full.delta(), start=source), 2)
    learned = tuner.learned()
    assert mask_of(learned).sum() == K
    again = measured_from(tuner.delta(), source)
    np.testing.assert_allclose(flat(again), flat(learned), atol=1e-6)
    np.testing.assert_array_equal(mask_of(again), mask_of(learned))
    # Chosen by how far from the start, not from the base.
    moved = np.abs(flat(full.learned()))
    np.testing.assert_array_equal(mask_of(learned), moved >= np.sort(moved)[-K])


def test_files_take_the_place_of_deltas(tmp_path: Path) -> None:
    source = ticket(1)
    source.save(tmp_path / "source.safetensors")
    full = phase(network(), SparseFineTuning(select="all", start=tmp_path / "source.safetensors"), 2).delta()
    full.save(tmp_path / "full.safetensors")
    files = {"changes": str(tmp_path / "full.safetensors"), "start": str(tmp_path / "source.safetensors")}
    delta = phase(network(), SparseFineTuning(k=K, **files), 2).delta()  # type: ignore[arg-type]
    delta.save(tmp_path / "task.safetensors")
    read = WeightDelta.load(tmp_path / "task.safetensors")
    same = phase(network(), SparseFineTuning(k=K, changes=full, start=source), 2).delta()
    for name in delta.names():
        assert torch.equal(read.tensor(name), same.tensor(name))
    assert all(isinstance(part, Sparse) for part in read.parts.values())
    # What was read is the model that was tuned.
    model = network()
    tuned = phase(model, SparseFineTuning(k=K, changes=full, start=source), 2)
    before = model(rows(2)[0])
    tuned.fold()
    torch.testing.assert_close(model(rows(2)[0]), before)
    attached = network()
    read.attach(attached)
    torch.testing.assert_close(attached(rows(2)[0]), before)


def test_random_weights_are_as_many_and_come_from_the_seed() -> None:
    one, same, other = (phase(network(), SparseFineTuning(select="random", k=K, seed=seed), 1).delta() for seed in (1, 1, 2))
    assert mask_of(one).sum() == K
    np.testing.assert_array_equal(mask_of(one), mask_of(same))
    assert (mask_of(one) != mask_of(other)).any()


def test_a_share_counts_what_can_be_chosen() -> None:
    size = sum(tensor.numel() for tensor in maskable(network()).values())
    tuner = SparseFineTuning(select="random", k=0.1)
    tuner.attach(network())
    assert sum(item.numel() for item in tuner.trainable()) == round(0.1 * size)


def test_the_distance_is_the_sum_of_changes_over_all_parameters() -> None:
    model = network()
    size = sum(item.numel() for item in model.parameters())
    tuner = phase(model, SparseFineTuning(select="all"), 1)
    expected = sum(float(tuner.delta().tensor(name).abs().sum()) for name in tuner.delta().names()) / size
    assert float(start_distance(model).detach()) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ConfigError, match="attach it first"):
        start_distance(network())


def test_copies_train_apart() -> None:
    model = network()
    tuner = SparseFineTuning(select="random", k=K)
    tuner.attach(model)
    other = copy.deepcopy(model)
    train(model, list(tuner.trainable()), 1)
    assert tuner.delta().count() == 2 * K
    assert tuner.delta(other).count() == 0


def test_faults_are_named() -> None:
    full = phase(network(), SparseFineTuning(select="all"), 1).delta()
    with pytest.raises(ConfigError, match="select"):
        SparseFineTuning(select="best")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="two tunings"):
        SparseFineTuning(k=K).attach(network())
    with pytest.raises(ConfigError, match="Leave it out"):
        SparseFineTuning(select="random", changes=full)
    for k in (0, -1, 2.5):
        with pytest.raises(ConfigError, match="`k`"):
            SparseFineTuning(select="random", k=k)
    with pytest.raises(ConfigError, match="places were asked for"):
        SparseFineTuning(select="random", k=10_000).attach(network())
    with pytest.raises(ConfigError, match="needs linear layers"):
        SparseFineTuning(select="all").attach(nn.Sequential(nn.LayerNorm(3)))
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(ConfigError, match="one tensor"):
        SparseFineTuning(select="all").attach(tied)
    stranger = network()
    with torch.no_grad():
        stranger.get_parameter("2.bias").add_(0.5)
    with pytest.raises(ConfigError, match="other values: '2.bias'"):
        SparseFineTuning(k=K, changes=full).attach(stranger)
    with pytest.raises(ConfigError, match="no model yet"):
        SparseFineTuning(select="all").delta()
    tuner = SparseFineTuning(select="all")
    tuner.attach(network())
    with pytest.raises(ConfigError, match="attached to a model already"):
        tuner.attach(network())
    tuner.fold()
    with pytest.raises(ConfigError, match="folded"):
        tuner.delta()
    norms = WeightDelta.between(network().state_dict(), {**network().state_dict(), "1.weight": torch.full((6,), 2.0)})
    with pytest.raises(ConfigError, match="leaves as it is"):
        SparseFineTuning(select="all", start=norms).attach(network())
