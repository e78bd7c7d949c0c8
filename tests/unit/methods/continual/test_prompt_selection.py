from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from small_streams import WIDTH, make_backbone, make_stream, make_suite, pictures
from torch import Tensor
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds
from graftwork.methods.continual.prompt_selection import PromptNetwork, PromptSelection
from graftwork.training.config import LoopConfig
from graftwork.training.continual import learn_stream

TASK = make_suite().tasks[0]
SMALL: dict[str, Any] = {"num_prompts": 2, "prompt_blocks": 2, "pool_size": 4, "top_k": 2}


def make_method(**changed: Any) -> PromptSelection:
    torch.manual_seed(0)
    return PromptSelection([TASK], make_backbone(), **{**SMALL, **changed})


def test_a_picture_gets_the_prompts_with_the_nearest_keys() -> None:
    network = make_method().model.eval()
    with torch.no_grad():
        for number, key in enumerate(network.keys):
            key.copy_(torch.eye(WIDTH)[number] * (number + 1))  # lengths must not matter
    queries = torch.zeros(2, WIDTH)
    queries[0, [0, 3]] = torch.tensor([1.0, 2.0])
    queries[1, [1, 2]] = torch.tensor([3.0, 1.0])
    chosen, cosine = network.choose(queries)
    assert chosen.tolist() == [[3, 0], [1, 2]]
    torch.testing.assert_close(cosine, torch.tensor([[2.0, 1.0], [3.0, 1.0]]) / torch.tensor([[5.0**0.5], [10.0**0.5]]))


def test_rows_read_their_own_prompts() -> None:
    method = make_method()
    method.begin(make_stream().experience(0))
    network, inputs = method.model.eval(), pictures(6)
    with torch.no_grad():
        chosen, _ = network.choose(network.trunk(inputs))
        assert len(set(map(tuple, chosen.tolist()))) > 1, "otherwise the test shows nothing"
        whole = network(inputs)["objects"]
        for row in range(6):
            torch.testing.assert_close(network({"image": inputs["image"][row : row + 1]})["objects"], whole[row : row + 1])


def test_an_experience_knows_its_prompt_in_training_and_guesses_it_in_use() -> None:
    method, stream = make_method(select="experience"), make_stream()
    for experience in stream:
        method.begin(experience)
    network = method.model
    with torch.no_grad():
        for number, key in enumerate(network.keys):
            key.copy_(torch.eye(WIDTH)[number])
    queries = torch.eye(WIDTH)[:2]
    assert network.train().choose(queries)[0].tolist() == [[2], [2]]
    assert network.eval().choose(queries)[0].tolist() == [[0], [1]]


def test_keys_are_pulled_to_the_queries_that_chose_them_and_queries_stay() -> None:
    method = make_method(pull=0.7)
    method.begin(make_stream().experience(0))
    network = method.model.train()
    network(pictures())
    extra = network.pop_auxiliary_loss()
    assert extra is not None
    _, cosine = network.choose(network.trunk(pictures()))
    torch.testing.assert_close(extra, 0.7 * (1.0 - cosine).mean())
    assert network.pop_auxiliary_loss() is None
    extra.backward()
    assert any(key.grad is not None and bool(key.grad.any()) for key in network.keys)
    assert all(parameter.grad is None for parameter in network.trunk.parameters())
    network.eval()(pictures())
    assert network.pop_auxiliary_loss() is None


@pytest.mark.parametrize("select", ["pool", "experience"])
def test_what_later_experiences_move(select: str) -> None:
    stream, snapshots = make_stream(), list[dict[str, Tensor]]()
    method = make_method(select=select, num_general=1)
    learn_stream(
        method,
        stream,
        batch_size=4,
        config=LoopConfig(max_steps=2, learning_rate=0.05, optimizer="adam"),
        seeds=Seeds(0),
        after=lambda experience: snapshots.append(copy.deepcopy(method.model.state_dict())),
    )
    moved = {name for name, value in snapshots[0].items() if not torch.equal(value, snapshots[-1][name])}
    assert "general" in moved
    assert not any(name.startswith(("trunk.", "head.")) for name in moved)
    assert any(name.startswith("prompts.") for name in moved) == (select == "pool")
    assert len(method.model.prompts) == (4 if select == "pool" else 3)


def test_features_have_length_one_and_prompts_change_them() -> None:
    method = make_method()
    method.begin(make_stream().experience(0))
    with torch.no_grad():
        found = method.model.eval().encode(pictures())
        torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
        assert not torch.allclose(found, F.normalize(make_backbone()(pictures()), dim=1), atol=1e-3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"select": "nearest"}, "select"),
        ({"num_prompts": 0}, "num_prompts"),
        ({"prompt_blocks": 4}, "prompt_blocks"),
        ({"top_k": 5}, "top_k"),
        ({"pull": float("nan")}, "pull"),
    ],
)
def test_settings_out_of_range_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_method(**changed)
    assert any(message in problem for problem in caught.value.problems)


def test_the_network_is_built_by_the_method_alone() -> None:
    assert isinstance(make_method().model, PromptNetwork)
