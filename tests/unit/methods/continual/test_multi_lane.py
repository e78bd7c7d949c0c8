from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_streams import CLASSES, DEPTH, WIDTH, make_backbone, make_stream, make_suite, pictures
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError, GraftworkError
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.evaluation.probes import flops_per_sample
from graftwork.methods.continual.multi_lane import LaneNetwork, MultiLane
from graftwork.nn.backbones.class_token_vit import ClassTokenViT
from graftwork.nn.growing_head import UNSEEN
from graftwork.training.config import LoopConfig
from graftwork.training.continual import learn_stream

TASK = make_suite().tasks[0]
SMALL: dict[str, Any] = {"num_selectors": 3, "num_prompts": 2, "prompt_blocks": 2}
GROUPS = ((0, 3), (1, 4), (2, 5))


def make_network(groups: tuple[tuple[int, ...], ...] = GROUPS, *, shuffled: bool = True, **changed: Any) -> LaneNetwork:
    """Return a network whose lanes differ."""
    network = LaneNetwork(TASK, make_backbone(), **{**SMALL, **changed})
    for group in groups:
        network.add_lane(group)
    if shuffled:
        with torch.no_grad():
            for parameter in network.lanes.parameters():
                parameter.copy_(torch.randn_like(parameter))
    return network.eval()


def attend(block: Any, query: Tensor, seen: Tensor, prompts: Tensor | None) -> Tensor:
    """One query ``[C]`` over tokens ``[L, C]``, head by head, written out."""
    width, heads = len(query), block.attention.num_heads
    weight, bias = block.attention.project.weight, block.attention.project.bias
    q = weight[:width] @ query + bias[:width]
    keys = seen @ weight[width : 2 * width].T + bias[width : 2 * width]
    values = seen @ weight[2 * width :].T + bias[2 * width :]
    if prompts is not None:
        keys, values = torch.cat([prompts[0], keys]), torch.cat([prompts[1], values])
    mixed = []
    for head in range(heads):
        part = slice(head * width // heads, (head + 1) * width // heads)
        shares = ((keys[:, part] @ q[part]) / math.sqrt(width // heads)).softmax(0)
        mixed.append(shares @ values[:, part])
    result: Tensor = block.attention.output(torch.cat(mixed))
    return result


def reference(network: LaneNetwork, picture: Tensor, number: int) -> Tensor:
    """Return the feature of one picture in one lane: every token of the lane led through every block, as the paper says it."""
    trunk, lane = network.trunk, network.lanes[number]
    assert isinstance(trunk, ClassTokenViT)
    states = trunk.embed({"image": picture[None]})[0]
    token, selectors = states[0], lane.selectors
    for depth, block in enumerate(trunk.blocks):
        norm = block.attention_norm
        patches, asking = norm(states[1:]), norm(selectors)
        summaries = torch.stack([((patches @ one) / math.sqrt(WIDTH)).softmax(0) @ patches for one in asking])
        tokens = torch.cat([norm(token)[None], summaries])
        prompts = lane.prompts[depth] if depth < len(lane.prompts) else None
        attended = torch.stack([attend(block, one, tokens, prompts) for one in tokens])
        lane_states = torch.cat([token[None], selectors])
        lane_states = lane_states + torch.cat([attended[:1], torch.zeros_like(attended[1:])])  # the class token alone is updated
        lane_states = lane_states + block.feed(block.feed_norm(lane_states))
        token, selectors = lane_states[0], lane_states[1:]
        states = block(states[None])[0]
    return F.normalize(trunk.norm(token), dim=0)


def test_lanes_compute_what_the_paper_says_token_by_token() -> None:
    network, inputs = make_network(), pictures(3)
    with torch.no_grad():
        found = network.encode(inputs)
        for row, number in ((0, 0), (1, 2), (2, 1)):
            torch.testing.assert_close(found[row, number], reference(network, inputs["image"][row], number))


@given(st.permutations(range(3)), st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_all_lanes_in_one_batch_give_what_each_gives_alone(order: list[int], seed: int) -> None:
    network, inputs = make_network(), pictures(4, seed)
    with torch.no_grad():
        together = network.encode(inputs)
        for number in order:
            alone = copy.deepcopy(network)
            alone.lanes = nn.ModuleList([network.lanes[number]])
            torch.testing.assert_close(alone.encode(inputs)[:, 0], together[:, number])


def test_a_lane_in_training_gives_what_it_gives_in_use() -> None:
    network, inputs = make_network(), pictures()
    together = network.encode(inputs)
    torch.testing.assert_close(network.train().encode(inputs), together[:, -1:])


@pytest.mark.parametrize("summarise", [True, False])
def test_rows_do_not_see_each_other(summarise: bool) -> None:
    network, inputs = make_network(summarise=summarise), pictures(4)
    whole = network(inputs)["objects"]
    torch.testing.assert_close(network({"image": inputs["image"][2:3]})["objects"], whole[2:3], rtol=1e-4, atol=1e-5)


def test_each_class_is_read_from_the_lane_of_its_owner() -> None:
    network, inputs = make_network(), pictures()
    with torch.no_grad():
        features, logits = network.encode(inputs), network(inputs)["objects"]
        for number, group in enumerate(GROUPS):
            rows = network.head.rows[number]
            torch.testing.assert_close(logits[:, list(group)], features[:, number] @ rows.weight.T + rows.bias)


def test_a_later_lane_changes_no_answer_of_older_ones() -> None:
    network, inputs = make_network(GROUPS[:2]), pictures()
    before = network(inputs)["objects"]
    assert bool((before[:, [2, 5]] == UNSEEN).all())
    assert bool((before[:, [2, 5]].sigmoid() == 0).all())
    network.add_lane(GROUPS[2])
    after = network.eval()(inputs)["objects"]
    torch.testing.assert_close(after[:, [0, 1, 3, 4]], before[:, [0, 1, 3, 4]])
    assert bool((after[:, [2, 5]] != UNSEEN).all())


def test_a_new_lane_starts_as_a_copy_of_the_last_one_and_is_its_own() -> None:
    network = make_network(GROUPS[:2])
    network.add_lane(GROUPS[2])
    for name, parameter in network.lanes[2].named_parameters():
        assert torch.equal(parameter, network.lanes[1].get_parameter(name))
        assert parameter.data_ptr() != network.lanes[1].get_parameter(name).data_ptr()


@pytest.mark.parametrize("summarise", [True, False])
def test_gradients_reach_the_newest_lane_and_its_rows_alone(summarise: bool) -> None:
    network = make_network(shuffled=False, summarise=summarise).train()
    inputs = dict(pictures().items())
    network(inputs)["objects"][:, list(GROUPS[-1])].square().sum().backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    expected = {"lanes.2.prompts", "head.rows.2.weight", "head.rows.2.bias"} | ({"lanes.2.selectors"} if summarise else set())
    assert reached == expected
    assert {name for name, parameter in network.named_parameters() if parameter.requires_grad} == expected | {"lanes.2.selectors"}


def test_no_gradient_flows_through_the_frozen_patches() -> None:
    network = make_network().train()
    watched: list[Tensor] = []
    embed = network.trunk.embed

    def watch(inputs: Any) -> Tensor:
        watched.append(embed(inputs).requires_grad_())
        return watched[-1]

    network.trunk.embed = watch  # type: ignore[method-assign]
    features = network.encode(pictures())
    # The class token of a lane starts as the embedded one; patches are read without a gradient.
    (gradient,) = torch.autograd.grad(features.sum(), watched[0], allow_unused=True)
    assert gradient is None or not gradient[:, 1:].any()


def test_learning_moves_only_the_lane_of_the_experience() -> None:
    stream = make_stream()
    method = MultiLane(stream.tasks, make_backbone(), **SMALL)
    frozen = copy.deepcopy(method.model.trunk.state_dict())
    snapshots: list[dict[str, Tensor]] = []
    learn_stream(
        method,
        stream,
        batch_size=4,
        config=LoopConfig(max_steps=3, learning_rate=0.05, optimizer="adam"),
        seeds=Seeds(0),
        after=lambda experience: snapshots.append(copy.deepcopy(method.model.state_dict())),
    )
    for name, value in frozen.items():
        assert torch.equal(method.model.trunk.state_dict()[name], value)
    for number, earlier in enumerate(snapshots[:-1]):
        for name, value in earlier.items():
            if name.startswith(("lanes.", "head.")):
                assert torch.equal(snapshots[-1][name], value), f"experience {number}: {name} moved later"
    assert not torch.equal(snapshots[1]["lanes.1.selectors"], snapshots[1]["lanes.0.selectors"])


def test_logits_of_other_classes_move_nothing() -> None:
    stream = make_stream()
    method = MultiLane(stream.tasks, make_backbone(), **SMALL)
    experience = stream.experience(1)
    method.begin(stream.experience(0))
    step = method.begin(experience)
    method.model.train()
    batch = BatchStream(experience.suite, experience.suite.splits["train"], 4, 0).batch(0)
    losses = step.backward(batch, 0)
    logits = method.model(batch.inputs)["objects"]
    group = list(experience.classes["objects"])
    by_hand = F.binary_cross_entropy_with_logits(logits[:, group], batch.targets["objects"][:, group])
    torch.testing.assert_close(losses, by_hand.detach()[None])
    # The paper's way: other logits and their targets 0. Gradients are the same but for the share of classes in the mean.
    mine = method.model.lanes[1].prompts.grad
    masked = torch.zeros_like(logits).index_copy(1, torch.tensor(group), logits[:, group])
    targets = torch.zeros_like(logits).index_copy(1, torch.tensor(group), batch.targets["objects"][:, group])
    (theirs,) = torch.autograd.grad(
        F.binary_cross_entropy_with_logits(masked, targets), [method.model.lanes[1].prompts], allow_unused=True
    )
    assert mine is not None
    torch.testing.assert_close(mine * len(group) / CLASSES, theirs)


def test_single_labels_are_learned_by_a_softmax_over_the_current_classes() -> None:
    stream = make_stream("multiclass")
    method = MultiLane(stream.tasks, make_backbone(), **SMALL)
    method.begin(stream.experience(0))
    experience = stream.experience(1)
    step = method.begin(experience)
    method.model.train()
    batch = BatchStream(experience.suite, experience.suite.splits["train"], 4, 0).batch(0)
    group = list(experience.classes["objects"])
    logits = method.model(batch.inputs)["objects"][:, group]
    places = torch.tensor([group.index(int(target)) for target in batch.targets["objects"]])
    torch.testing.assert_close(step.backward(batch, 0), F.cross_entropy(logits, places).detach()[None])


def test_summaries_cost_less_than_whole_lanes() -> None:
    inputs = {"image": torch.zeros(1, 48, 48, 3, dtype=torch.uint8)}

    def cost(summarise: bool, lanes: int) -> float:
        backbone = ClassTokenViT(48, patch=6, width=16, depth=4, num_heads=2)
        network = LaneNetwork(TASK, backbone, num_selectors=4, num_prompts=2, prompt_blocks=2, summarise=summarise)
        for number in range(lanes):
            network.add_lane((number,))
        return flops_per_sample(network, inputs)

    assert cost(True, 4) < 0.5 * cost(False, 4)
    assert cost(True, 4) - cost(True, 3) < 0.2 * (cost(False, 4) - cost(False, 3))


def test_a_lane_without_prompts_over_all_tokens_is_the_frozen_transformer() -> None:
    network, inputs = make_network(summarise=False, num_prompts=0), pictures()
    with torch.no_grad():
        expected = F.normalize(make_backbone()(inputs), dim=-1)
        torch.testing.assert_close(network.encode(inputs), expected[:, None].expand(-1, 3, -1))


def test_it_works_on_a_vision_transformer_of_timm_and_refuses_one_without_class_token() -> None:
    timm, swin = (pytest.importorskip(f"timm.models.{name}") for name in ("vision_transformer", "swin_transformer"))
    from graftwork.nn.backbones.timm_blocks import TimmSwin, TimmViT

    sizes: dict[str, Any] = {"img_size": 32, "patch_size": 16, "embed_dim": 8, "depth": 2, "num_heads": 2, "num_classes": 0}
    torch.manual_seed(0)
    backbone = TimmViT(timm.VisionTransformer(**sizes, init_values=0.5, qk_norm=True), size=32, layout="vector")
    network = LaneNetwork(TASK, backbone, num_selectors=2, num_prompts=0, prompt_blocks=0, summarise=False)
    network.add_lane(range(CLASSES))
    with torch.no_grad():
        whole = network.eval().encode(pictures())
        torch.testing.assert_close(whole[:, 0], F.normalize(backbone(pictures()), dim=-1))
    pooled = TimmViT(timm.VisionTransformer(**sizes, global_pool="avg", class_token=False), size=32, layout="vector")
    windows = TimmSwin(swin.SwinTransformer(img_size=32, embed_dim=8, depths=(1,), num_heads=(2,), window_size=4), size=32)
    for wrong, message in ((pooled, "class token"), (windows, "block 0 of this trunk is a SwinTransformerBlock")):
        with pytest.raises(ConfigError, match=message):
            LaneNetwork(TASK, wrong, **SMALL)


def test_backbones_that_do_not_fit_are_refused_in_words() -> None:
    from graftwork.nn.backbones.cnn import ConvBackbone
    from graftwork.nn.backbones.vit import ViTBackbone

    with pytest.raises(ConfigError, match="ConvBackbone has none"):
        LaneNetwork(TASK, ConvBackbone(16))
    with pytest.raises(ConfigError, match="class token"):
        LaneNetwork(TASK, ViTBackbone(16, width=8, depth=2, num_heads=2))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_selectors": 0}, "num_selectors"),
        ({"num_prompts": -1}, "num_prompts"),
        ({"prompt_blocks": DEPTH + 1}, "prompt_blocks"),
    ],
)
def test_numbers_out_of_range_are_refused(changed: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LaneNetwork(TASK, make_backbone(), **{**SMALL, **changed})
    assert any(message in problem for problem in caught.value.problems)


def test_a_class_has_one_owner_and_a_network_without_lanes_does_not_answer() -> None:
    network = LaneNetwork(TASK, make_backbone(), **SMALL)
    with pytest.raises(GraftworkError, match="no lane yet"):
        network(pictures())
    network.add_lane((0, 1))
    with pytest.raises(ConfigError, match="new"):
        network.add_lane((1, 2))


def test_other_tasks_are_refused() -> None:
    with pytest.raises(ConfigError, match="one multiclass or multilabel task"):
        MultiLane([TaskSpec(name="price", kind="regression", size=1)], make_backbone())
