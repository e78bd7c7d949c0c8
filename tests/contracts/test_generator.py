"""What every generator must do: the Generator seam. Generators are found through the cards."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from discovery import found, named, wrong_settings
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.generator import Generator

GENERATORS = found(Generator)
REFUSED = [(name, wrong) for name, component in GENERATORS.items() for wrong in wrong_settings(component)]
ROWS = 3


def build(name: str) -> Generator:
    torch.manual_seed(0)
    component = GENERATORS[name]
    made = named(component.path)(**component.settings)
    assert isinstance(made, Generator)
    if isinstance(made, nn.Module):
        made.eval()
        with torch.no_grad():  # what starts at zero computes something
            for parameter in made.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def condition(generator: Generator, seed: int = 0) -> dict[str, Tensor]:
    """Return inputs as suites lay them out; a generator with another kind of condition adds it here."""
    draws = torch.Generator().manual_seed(seed)
    known = {"image": lambda: torch.randint(256, (ROWS, 16, 16, 3), dtype=torch.uint8, generator=draws)}
    return {name: known[name]() for name in generator.condition_names}


def draw(generator: Generator, seed: int = 1, outputs: tuple[str, ...] | None = None, **inputs: Tensor) -> dict[str, Tensor]:
    given = {**condition(generator), **inputs}
    return generator.sample(given, outputs, count=ROWS, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", GENERATORS)
def test_samples_follow_the_generator_that_is_given_and_leave_the_global_ones(name: str) -> None:
    generator = build(name)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first, again, other = draw(generator), draw(generator), draw(generator, seed=2)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    main = generator.outputs[0]
    assert set(first) == {main}
    assert torch.equal(first[main], again[main])
    assert not torch.equal(first[main], other[main])


@pytest.mark.parametrize("name", GENERATORS)
def test_each_row_gets_a_sample_without_gradient(name: str) -> None:
    generator = build(name)
    drawn = draw(generator, outputs=generator.outputs)
    assert set(drawn) == set(generator.outputs)
    for value in drawn.values():
        assert len(value) == ROWS
        assert not value.requires_grad
        assert not value.is_floating_point() or bool(value.isfinite().all())


@pytest.mark.parametrize("name", GENERATORS)
def test_only_declared_conditions_are_read(name: str) -> None:
    generator = build(name)
    main = generator.outputs[0]
    plain = draw(generator)[main]
    drawn = draw(generator, outputs=generator.outputs)
    extra = {output: value for output, value in drawn.items() if output not in generator.condition_names}
    assert torch.equal(draw(generator, **extra)[main], plain)
    for given in generator.condition_names:
        assert not torch.equal(draw(generator, **{given: condition(generator, 1)[given]})[main], plain)


@pytest.mark.parametrize("name", GENERATORS)
def test_unknown_outputs_and_missing_conditions_are_refused(name: str) -> None:
    generator = build(name)
    with pytest.raises(ConfigError, match="no such output"):
        draw(generator, outputs=("no such output",))
    with pytest.raises(ConfigError):
        generator.sample({})


@pytest.mark.parametrize(("name", "wrong"), REFUSED)
def test_wrong_settings_are_refused(name: str, wrong: dict[str, object]) -> None:
    with pytest.raises((ConfigError, TypeError)):
        named(GENERATORS[name].path)(**{**GENERATORS[name].settings, **wrong})


def test_some_generators_are_found() -> None:
    assert GENERATORS
