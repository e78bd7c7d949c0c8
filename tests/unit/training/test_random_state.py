"""A training draws from its own stream on the CPU and on the device of its model, and both go into its checkpoints."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graftwork.core.seeds import Seeds
from graftwork.training import random_state
from graftwork.training.random_state import RandomStream

CPU, ELSEWHERE = torch.device("cpu"), torch.device("cuda:1")


class Device:
    """A stand-in for the module of a device: a generator of its own, of which one place is asked for."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(77)

    def get_rng_state(self, device: torch.device) -> Tensor:
        assert device == ELSEWHERE
        return self.generator.get_state()

    def set_rng_state(self, state: Tensor, device: torch.device) -> None:
        assert device == ELSEWHERE
        self.generator.set_state(state)

    def draw(self) -> float:
        return float(torch.rand((), generator=self.generator))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    monkeypatch.setattr(random_state, "_module", lambda _: made)
    monkeypatch.setattr(random_state, "_first_state", lambda _, seed: torch.Generator().manual_seed(seed).get_state())
    return made


def test_the_draws_of_the_cpu_are_those_of_the_named_stream() -> None:
    stream, wanted = RandomStream(Seeds(3), "dropout", CPU), Seeds(3).torch("dropout")
    outside = torch.get_rng_state()
    for _ in range(2):
        with stream.swapped():
            assert torch.equal(torch.rand(4), torch.rand(4, generator=wanted))
        assert torch.equal(torch.get_rng_state(), outside)
    assert set(stream.state_dict()) == {"random"}


def test_slices_on_a_device_draw_as_one(device: Device) -> None:
    whole, parts, first = (RandomStream(Seeds(5), "dropout", ELSEWHERE) for _ in range(3))
    with whole.swapped():
        wanted = [device.draw() for _ in range(6)]
    assert wanted[0] != float(torch.rand((), generator=torch.Generator().manual_seed(77))), "not the generator's own draws"
    found = []
    for _ in range(3):
        with parts.swapped():
            found += [device.draw() for _ in range(2)]
        device.draw()  # somebody else's
    assert found == wanted
    with first.swapped():
        assert device.draw() == wanted[0]
    state = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    assert set(state) == {"random", "random_device"}
    resumed = RandomStream(Seeds(999), "dropout", ELSEWHERE)
    resumed.load_state_dict(state)
    with resumed.swapped():
        assert [device.draw() for _ in range(5)] == wanted[1:]


def test_others_go_on_as_if_nothing_had_been_drawn(device: Device) -> None:
    wanted = float(torch.rand((), generator=torch.Generator().manual_seed(77)))
    with pytest.raises(ZeroDivisionError), RandomStream(Seeds(1), "dropout", ELSEWHERE).swapped():
        device.draw()
        raise ZeroDivisionError
    assert device.draw() == wanted


def test_a_state_of_the_cpu_alone_begins_a_new_stream_on_a_device(device: Device) -> None:
    stream, other = RandomStream(Seeds(1), "dropout", ELSEWHERE), RandomStream(Seeds(1), "dropout", ELSEWHERE)
    stream.load_state_dict(RandomStream(Seeds(1), "dropout", CPU).state_dict())
    with stream.swapped():
        found = device.draw()
    with other.swapped():
        assert device.draw() == found
