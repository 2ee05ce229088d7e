"""The model computes what the paper's plain math says, in every attention order, and hides nothing."""

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch.nn import functional as F
from torch.testing import assert_close

from modeling_stt import STTConfig, STTForVideoClassification, STTModel
from modeling_stt.configuration_stt import ATTENTION_ORDERS
from modeling_stt.modeling_stt import STTAttention, STTBackbone, STTBasicBlock, STTDropPath, STTLayer

NUM_FRAMES, SIZE, GRID, NUM_POSITIONS, WIDTH, HEADS, NUM_LABELS = 4, 24, 3, 9, 32, 2, 3

every_order = pytest.mark.parametrize("order", ATTENTION_ORDERS)
slow = pytest.mark.skipif(
    os.environ.get("RUN_SLOW", "no") not in ("1", "yes", "true"),
    reason="compiles C++ for most of a minute; set RUN_SLOW=1",
)


def tiny_config(**changes: Any) -> STTConfig:
    arguments = {
        "image_size": SIZE,
        "num_frames": NUM_FRAMES,
        "backbone_stem_width": 8,
        "backbone_widths": (8, 12),
        "backbone_depths": (1, 1),
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "intermediate_size": 48,
        "num_labels": NUM_LABELS,
        # Ten times the usual, so that attention is far from uniform and positions are not lost beside the features.
        "initializer_range": 0.2,
    }
    return STTConfig(**(arguments | changes))


def tiny_classifier(**changes: Any) -> STTForVideoClassification:
    """A seeded classifier in evaluation mode of whose parameters none is left at zero or one."""
    torch.manual_seed(0)
    model = STTForVideoClassification(tiny_config(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def make_clips(
    num_clips: int = 2, num_frames: int = NUM_FRAMES, height: int = SIZE, width: int = SIZE
) -> torch.Tensor:
    return torch.rand(num_clips, num_frames, 3, height, width, generator=torch.Generator().manual_seed(1))


# --- what goes in and comes out --------------------------------------------------------------------------------------


@every_order
def test_shape_of_every_output(order: str) -> None:
    model = tiny_classifier(attention_order=order, attn_implementation="eager")
    with torch.no_grad():
        outputs = model(make_clips(), output_attentions=True, output_hidden_states=True, labels=torch.tensor([0, 2]))
        base_outputs = model.stt(make_clips())
    num_tokens = 1 + NUM_FRAMES * NUM_POSITIONS
    assert outputs.loss.shape == ()
    assert outputs.logits.shape == (2, NUM_LABELS)
    assert outputs.pooler_output.shape == (2, WIDTH)
    assert [states.shape for states in outputs.hidden_states] == [(2, num_tokens, WIDTH)] * 3
    assert base_outputs.last_hidden_state.shape == (2, num_tokens, WIDTH)
    assert_close(base_outputs.pooler_output, base_outputs.last_hidden_state[:, 0])
    assert_close(base_outputs.pooler_output, outputs.pooler_output)
    assert_close(model.classifier(outputs.pooler_output), outputs.logits)
    assert base_outputs.keys() == {"last_hidden_state", "pooler_output"}


def test_default_model_has_the_number_of_parameters_that_the_configuration_states() -> None:
    with torch.device("meta"):
        model = STTForVideoClassification(STTConfig())
    assert model.num_parameters() == 19_765_319


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((NUM_FRAMES, 3, SIZE, SIZE), r"\(4, 3, 24, 24\).*\(clips, frames, 3, height, width\)"),
        ((2, 3, NUM_FRAMES, SIZE, SIZE), r"\(2, 3, 4, 24, 24\).*\(clips, frames, 3, height, width\)"),
        ((2, 5, 3, SIZE, SIZE), "5 frames of 24×24 px.*4 frames of 24×24 px.*interpolate_pos_encoding"),
        ((2, NUM_FRAMES, 3, SIZE, 40), "4 frames of 24×40 px.*4 frames of 24×24 px.*interpolate_pos_encoding"),
        ((0, NUM_FRAMES, 3, SIZE, SIZE), r"\(0, 4, 3, 24, 24\).*axis is empty"),
        ((2, 0, 3, SIZE, SIZE), r"\(2, 0, 3, 24, 24\).*axis is empty"),
    ],
)
def test_wrong_shapes_are_refused_saying_what_came_and_what_was_expected(shape: tuple, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        tiny_classifier()(torch.rand(shape))


def test_temperature_divides_the_logits_and_the_bias_is_added_in_evaluation_only() -> None:
    model, clips = tiny_classifier(), make_clips()
    raw = model(clips).logits
    model.config.temperature = 2.5
    assert_close(model(clips).logits, raw / 2.5)
    model.config.logit_bias = [float(k) for k in range(raw.shape[1])]
    assert_close(model(clips).logits, raw / 2.5 + torch.arange(raw.shape[1]))
    features = model(clips).pooler_output
    assert_close(model.train().classify(features), model.classifier(features))


@every_order
def test_frames_to_maps_and_maps_to_outputs_are_the_two_halves_of_the_model(order: str) -> None:
    """Clips that share frames may share their maps, as the windows of a timeline do."""
    model, clips = tiny_classifier(attention_order=order, attn_implementation="eager"), make_clips(3)
    whole = model(clips, output_attentions=True, output_hidden_states=True)
    maps = model.stt.encode_frames(clips)
    assert maps.shape == (3, NUM_FRAMES, 12, GRID, GRID)
    assert_close(model.stt.encode_frames(clips[0]), maps[0])
    halves = model(feature_maps=maps, output_attentions=True, output_hidden_states=True)
    assert whole.keys() == halves.keys()
    for name in whole:
        assert_close(halves[name], whole[name], msg=name)
    assert_close(model.stt(feature_maps=maps[1:2]).pooler_output, whole.pooler_output[1:2])
    halves.logits.sum().backward()
    assert model.stt.backbone.conv1.weight.grad.abs().sum() > 0


def test_feature_maps_of_other_shapes_are_refused_or_read_on_request() -> None:
    model = tiny_classifier()
    maps = model.stt.encode_frames(make_clips())
    for wrong in (maps[0], maps[:, :2], maps[:, :, :5], maps[..., :2], maps[:0]):
        with pytest.raises(ValueError, match=r"feature_maps has shape .* expected \(clips, 4, 12, 3, 3\)"):
            model(feature_maps=wrong)
    for both_or_neither in ({}, {"pixel_values": make_clips(), "feature_maps": maps}):
        with pytest.raises(ValueError, match="either pixel_values or feature_maps"):
            model(**both_or_neither)
    clips = make_clips(num_frames=6, width=32)
    with torch.no_grad():
        expected = model(clips, interpolate_pos_encoding=True).logits
        logits = model(feature_maps=model.stt.encode_frames(clips), interpolate_pos_encoding=True).logits
    assert_close(logits, expected)


def test_bytes_are_refused() -> None:
    """Raw frames, 0 to 255, would give a confident answer about nothing if they were cast silently."""
    with pytest.raises(ValueError, match=r"torch\.uint8.*divide"):
        tiny_classifier()((make_clips() * 255).to(torch.uint8))


def test_a_clip_with_the_ignored_label_is_not_part_of_the_loss() -> None:
    model, clips = tiny_classifier(), make_clips(3)
    labels = torch.tensor([0, -100, 2])
    assert_close(model(clips, labels=labels).loss, model(clips[[0, 2]], labels=labels[[0, 2]]).loss)
    logits = model(clips[[0, 2]]).logits
    expected = F.cross_entropy(logits, labels[[0, 2]], reduction="sum") / 7
    assert_close(model(clips, labels=labels, num_items_in_batch=7).loss, expected)


# --- what it computes ------------------------------------------------------------------------------------------------


def reference_attention(attention: STTAttention, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """MSA(Z) of one sequence `(L, D)` head by head, and its weights `(heads, L, L)`."""
    head_dim = WIDTH // HEADS
    results, all_weights = [], []
    for head in range(HEADS):
        rows = slice(head * head_dim, (head + 1) * head_dim)
        query = tokens @ attention.q_proj.weight[rows].T + attention.q_proj.bias[rows]
        key = tokens @ attention.k_proj.weight[rows].T
        value = tokens @ attention.v_proj.weight[rows].T + attention.v_proj.bias[rows]
        weights = (query @ key.T / head_dim**0.5).softmax(-1)
        results.append(weights @ value)
        all_weights.append(weights)
    return attention.o_proj(torch.cat(results, dim=-1)), torch.stack(all_weights)


def reference_mlp(layer: STTLayer, tokens: torch.Tensor) -> torch.Tensor:
    return tokens + layer.mlp.fc2(F.gelu(layer.mlp.fc1(layer.mlp_norm(tokens))))


def reference_space_time(layer: STTLayer, class_token: torch.Tensor, frames: torch.Tensor) -> dict[str, torch.Tensor]:
    """One block on one clip: class token `(D,)` and frames `(T, P, D)`, one sequence after the other."""
    frames, spatial_weights, temporal_weights, class_updates = frames.clone(), [], [], []
    for t in range(NUM_FRAMES):
        update, weights = reference_attention(layer.spatial_attention, layer.spatial_norm(frames[t]))
        frames[t] += update
        spatial_weights.append(weights)
    for p in range(NUM_POSITIONS):
        sequence = torch.stack([class_token, *frames[:, p]])
        update, weights = reference_attention(layer.temporal_attention, layer.temporal_norm(sequence))
        frames[:, p] += update[1:]
        class_updates.append(update[0])
        temporal_weights.append(weights)
    return {
        "class_token": reference_mlp(layer, class_token + torch.stack(class_updates).mean(0)),
        "frames": reference_mlp(layer, frames),
        "spatial": torch.stack(spatial_weights),
        "temporal": torch.stack(temporal_weights),
    }


def reference_time_space(layer: STTLayer, class_token: torch.Tensor, frames: torch.Tensor) -> dict[str, torch.Tensor]:
    """The mirror: time over patches only, through its projection, then space with the class token in every frame."""
    frames, class_updates = frames.clone(), []
    for p in range(NUM_POSITIONS):
        update, _ = reference_attention(layer.temporal_attention, layer.temporal_norm(frames[:, p]))
        frames[:, p] += layer.temporal_projection(update)
    for t in range(NUM_FRAMES):
        sequence = torch.stack([class_token, *frames[t]])
        update, _ = reference_attention(layer.spatial_attention, layer.spatial_norm(sequence))
        frames[t] += update[1:]
        class_updates.append(update[0])
    return {
        "class_token": reference_mlp(layer, class_token + torch.stack(class_updates).mean(0)),
        "frames": reference_mlp(layer, frames),
    }


@torch.no_grad()
def test_the_whole_model_equals_the_papers_math_written_out() -> None:
    """Embedding, blocks, class token and head, with loops over frames, positions and heads; attentions too."""
    model = tiny_classifier(attn_implementation="eager")
    stt, clips = model.stt, make_clips(1)
    maps = stt.backbone(clips[0])
    weight, bias = stt.embeddings.projection.weight[:, :, 0, 0], stt.embeddings.projection.bias
    space, time = stt.embeddings.spatial_positions[0], stt.embeddings.temporal_positions[0]
    frames = torch.stack(
        [
            torch.stack([weight @ maps[t, :, p // GRID, p % GRID] + bias + space[p] + time[1 + t] for p in range(9)])
            for t in range(NUM_FRAMES)
        ]
    )
    class_token = stt.embeddings.class_token[0, 0] + time[0]
    outputs = model(clips, output_attentions=True)
    for i, layer in enumerate(stt.layers):
        result = reference_space_time(layer, class_token, frames)
        class_token, frames = result["class_token"], result["frames"]
        assert_close(outputs.spatial_attentions[i][0], result["spatial"])
        assert_close(outputs.temporal_attentions[i][0], result["temporal"])
    assert_close(outputs.logits[0], model.classifier(stt.norm(class_token)), atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    ("order", "reference"), [("space_time", reference_space_time), ("time_space", reference_time_space)]
)
def test_a_block_equals_its_reference(order: str, reference: Any) -> None:
    layer = tiny_classifier(attention_order=order).stt.layers[0]
    tokens = torch.randn(2, 1 + NUM_FRAMES * NUM_POSITIONS, WIDTH)
    result = layer(tokens, NUM_FRAMES)
    for clip in range(2):
        expected = reference(layer, tokens[clip, 0], tokens[clip, 1:].unflatten(0, (NUM_FRAMES, NUM_POSITIONS)))
        assert_close(result[clip, 0], expected["class_token"], atol=1e-5, rtol=1e-4)
        assert_close(result[clip, 1:], expected["frames"].flatten(0, 1), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_joint_block_is_one_attention_over_all_tokens() -> None:
    layer = tiny_classifier(attention_order="joint").stt.layers[0]
    tokens = torch.randn(2, 1 + NUM_FRAMES * NUM_POSITIONS, WIDTH)
    result = layer(tokens, NUM_FRAMES)
    for clip in range(2):
        update, _ = reference_attention(layer.joint_attention, layer.joint_norm(tokens[clip]))
        assert_close(result[clip], reference_mlp(layer, tokens[clip] + update), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_backbone_is_torchvisions_resnet18_to_layer3() -> None:
    torch.manual_seed(0)
    reference = torchvision.models.resnet18(weights=None).eval()
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    backbone = STTBackbone(STTConfig()).eval()
    weights = {k: v for k, v in reference.state_dict().items() if not k.startswith(("layer4", "fc"))}
    backbone.load_state_dict(weights, strict=True)
    # In the backbone's own memory layout: other layouts are summed up in another order.
    frames = make_clips(1, 2, 112, 112)[0].contiguous(memory_format=torch.channels_last)
    expected = torch.nn.Sequential(*list(reference.children())[:-3])(frames)
    assert expected.shape == (2, 256, 7, 7)
    assert torch.equal(backbone(frames.contiguous()), expected)


# --- what may and what may not depend on what ------------------------------------------------------------------------


@every_order
@torch.no_grad()
def test_a_clip_doesnt_depend_on_its_neighbours_in_the_batch(order: str) -> None:
    model, clips = tiny_classifier(attention_order=order), make_clips(5)
    together = model(clips).logits
    assert_close(together, torch.cat([model(clip[None]).logits for clip in clips]), atol=1e-5, rtol=1e-4)
    permutation = [3, 0, 4, 2, 1]
    assert_close(together[permutation], model(clips[permutation]).logits, atol=1e-5, rtol=1e-4)
    clips[2] += 1.0
    assert_close(together[[0, 1, 3, 4]], model(clips).logits[[0, 1, 3, 4]], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_tokens_are_the_frames_positions_in_time_order() -> None:
    model, clips = tiny_classifier(), make_clips(1)
    before = model(clips, output_hidden_states=True).hidden_states[0][0]
    for t in range(NUM_FRAMES):
        changed = clips.clone()
        changed[0, t] = 0.0
        after = model(changed, output_hidden_states=True).hidden_states[0][0]
        tokens = torch.nonzero((before != after).any(-1))[:, 0].tolist()
        assert tokens == list(range(1 + t * NUM_POSITIONS, 1 + (t + 1) * NUM_POSITIONS))


@every_order
@torch.no_grad()
def test_only_space_only_is_blind_to_the_order_of_frames(order: str) -> None:
    model, clips = tiny_classifier(attention_order=order), make_clips()
    in_order, shuffled = model(clips).logits, model(clips[:, [2, 0, 3, 1]]).logits
    if order == "space_only":
        assert_close(in_order, shuffled, atol=1e-5, rtol=1e-4)
    else:
        assert (in_order - shuffled).abs().max() > 1e-3


@torch.no_grad()
def test_dropped_paths_are_dropped_for_whole_clips_and_made_up_for() -> None:
    torch.manual_seed(0)
    drop_path = STTDropPath(0.25)
    branch = torch.ones(4000, 2, 3, 5)
    dropped = drop_path(branch)
    per_clip = dropped.flatten(1)
    assert per_clip.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(per_clip.amin(1), per_clip.amax(1))
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(drop_path.eval()(branch), branch)


@every_order
@torch.no_grad()
def test_every_branch_of_a_block_can_be_dropped(order: str) -> None:
    layer = STTLayer(tiny_config(attention_order=order), drop_path_rate=1 - 1e-7).train()
    tokens = torch.randn(2, 1 + NUM_FRAMES * NUM_POSITIONS, WIDTH)
    assert torch.equal(layer(tokens, NUM_FRAMES), tokens)
    assert not torch.equal(layer.eval()(tokens, NUM_FRAMES), tokens)


def test_paths_are_dropped_more_the_deeper_the_block() -> None:
    model = STTModel(tiny_config(num_hidden_layers=3, drop_path_rate=0.3))
    assert [layer.drop_path.rate for layer in model.layers] == pytest.approx([0.0, 0.15, 0.3])


# --- other sizes and lengths -----------------------------------------------------------------------------------------


@every_order
@torch.no_grad()
def test_other_sizes_and_lengths_are_read_on_request(order: str) -> None:
    model = tiny_classifier(attention_order=order)
    clips = make_clips()
    assert torch.equal(model(clips).logits, model(clips, interpolate_pos_encoding=True).logits)
    for num_frames, height, width in [(1, SIZE, SIZE), (9, SIZE, SIZE), (NUM_FRAMES, 40, 16), (6, 17, 56)]:
        outputs = model.stt(make_clips(2, num_frames, height, width), interpolate_pos_encoding=True)
        grid = model.config.feature_grid(height, width)
        assert outputs.last_hidden_state.shape == (2, 1 + num_frames * grid[0] * grid[1], WIDTH)
        assert outputs.last_hidden_state.isfinite().all()


@torch.no_grad()
def test_a_size_with_the_same_feature_map_needs_no_request() -> None:
    assert tiny_classifier()(make_clips(1, NUM_FRAMES, SIZE - 7, SIZE - 1)).logits.shape == (1, NUM_LABELS)


@torch.no_grad()
@pytest.mark.parametrize("order", ["space_time", "time_space"])
def test_interpolation_keeps_rows_columns_and_frames_apart(order: str) -> None:
    """Tables that grow along one axis only still do after interpolation to a map of another shape."""
    embeddings = tiny_classifier(attention_order=order).stt.embeddings
    embeddings.projection.weight.zero_()
    embeddings.projection.bias.zero_()
    space_class_rows = int(embeddings.class_token_in_space)
    rows = torch.arange(GRID, dtype=torch.float)[:, None, None].expand(GRID, GRID, WIDTH)
    for axis, table in ((1, rows), (2, rows.transpose(0, 1))):
        embeddings.spatial_positions[0, space_class_rows:] = table.flatten(0, 1)
        embeddings.temporal_positions.zero_()
        tokens = embeddings(torch.zeros(5, 12, 4, 6), num_frames=5)[0, 1:].unflatten(0, (5, 4, 6))
        along, across = tokens.diff(dim=axis), tokens.diff(dim=3 - axis)
        assert (along > 0).all()
        assert across.abs().max() < 1e-5
        assert tokens.diff(dim=0).abs().max() == 0
    embeddings.spatial_positions.zero_()
    time = embeddings.temporal_positions[0, 1 - space_class_rows :]
    time.copy_(torch.arange(NUM_FRAMES, dtype=torch.float)[:, None].expand(-1, WIDTH))
    tokens = embeddings(torch.zeros(7, 12, 4, 6), num_frames=7)[0, 1:].unflatten(0, (7, 24))
    assert (tokens.diff(dim=0) > 0).all()
    assert tokens.diff(dim=1).abs().max() == 0
    assert tokens[3, 0, 0].item() == pytest.approx((NUM_FRAMES - 1) / 2)


# --- attentions ------------------------------------------------------------------------------------------------------


@every_order
@torch.no_grad()
def test_attentions_sum_to_one(order: str) -> None:
    model = tiny_classifier(attention_order=order, attn_implementation="eager")
    outputs = model(make_clips(), output_attentions=True)
    names = [key for key in outputs if key.endswith("attentions")]
    assert names
    for name in names:
        for weights in outputs[name]:
            assert weights.min() >= 0
            assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_attentions_have_gradients_for_explaining_a_decision() -> None:
    """Weights reshaped after their use would be a dead end of the graph."""
    model = tiny_classifier(attn_implementation="eager")
    outputs = model(make_clips(), output_attentions=True)
    recorded = [*outputs.spatial_attentions, *outputs.temporal_attentions]
    for gradient in torch.autograd.grad(outputs.logits[:, 0].sum(), recorded):
        assert gradient.abs().max() > 0


def test_attentions_are_refused_if_the_back_end_does_not_return_them() -> None:
    with pytest.raises(ValueError, match=r"'sdpa'.*set_attn_implementation\(\"eager\"\)"):
        tiny_classifier(attn_implementation="sdpa")(make_clips(), output_attentions=True)
    with pytest.raises(ValueError, match=r"sdpa.*eager"):
        tiny_classifier(output_attentions=True)(make_clips())


# --- training --------------------------------------------------------------------------------------------------------


@every_order
def test_gradient_reaches_every_parameter(order: str) -> None:
    torch.manual_seed(0)
    model = STTForVideoClassification(tiny_config(attention_order=order)).train()
    clips, labels = make_clips(4), torch.tensor([0, 1, 2, 0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def parameters_without_gradient() -> set[str]:
        optimizer.zero_grad()
        model(clips, labels=labels).loss.backward()
        optimizer.step()
        return {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}

    # As in TimeSformer, a zero projection closes off the temporal attention until it has learnt its first step.
    closed_off = {n for n, _ in model.named_parameters() if "temporal_attention" in n or "temporal_norm" in n}
    assert parameters_without_gradient() == (closed_off if order == "time_space" else set())
    assert parameters_without_gradient() == set()


@pytest.mark.parametrize("width", [32, 128])
def test_new_linear_layers_of_narrow_models_keep_the_variance_of_what_they_read(width: int) -> None:
    torch.manual_seed(0)
    config = tiny_config(hidden_size=width, intermediate_size=4 * width, initializer_range=None)
    model = STTForVideoClassification(config)
    layer = model.stt.layers[1]
    for linear in (layer.spatial_attention.q_proj, layer.temporal_attention.o_proj, layer.mlp.fc1, layer.mlp.fc2):
        assert linear.weight.std().item() == pytest.approx(linear.in_features**-0.5, rel=0.1)
    assert model.stt.embeddings.temporal_positions.std().item() == pytest.approx(0.02, rel=0.2)
    config.initializer_range = 0.01
    assert STTForVideoClassification(config).stt.layers[0].mlp.fc1.weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_a_new_model_as_wide_as_the_authors_has_their_standard_deviation() -> None:
    """With 1 / √fan-in, the loss under the SGD of their recipe is higher there, at the start and after 300 steps."""
    torch.manual_seed(0)
    model = STTForVideoClassification(tiny_config(hidden_size=512, intermediate_size=1024, initializer_range=None))
    layer = model.stt.layers[1]
    for linear in (layer.spatial_attention.q_proj, layer.temporal_attention.o_proj, layer.mlp.fc1, layer.mlp.fc2):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_what_differs_between_clips_reaches_the_feature_of_a_narrow_model() -> None:
    """With 0.02 at a width of 64, all clips have nearly the same feature, and training does not leave chance."""
    clips = make_clips(16) * torch.rand(16, 1, 3, 1, 1, generator=torch.Generator().manual_seed(2))
    shares = []
    for initializer_range in (0.02, None):
        torch.manual_seed(0)
        config = tiny_config(hidden_size=64, intermediate_size=256, initializer_range=initializer_range)
        with torch.no_grad():
            features = STTForVideoClassification(config).eval()(clips).pooler_output
        shares.append(((features - features.mean(0)).pow(2).sum() / features.pow(2).sum()).item())
    assert shares[1] > 2 * shares[0]


@pytest.mark.parametrize("order", [order for order in ATTENTION_ORDERS if order != "space_only"])
def test_one_batch_is_overfitted_though_its_classes_differ_in_the_order_of_frames_only(order: str) -> None:
    torch.manual_seed(0)
    config = tiny_config(attention_order=order, initializer_range=0.02, hidden_dropout_prob=0, drop_path_rate=0)
    model = STTForVideoClassification(config).train()
    forward = make_clips(2)
    clips, labels = torch.cat((forward, forward.flip(1))), torch.tensor([0, 0, 1, 1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model(clips, labels=labels).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


@every_order
def test_skipping_the_tokens_that_the_head_ignores_changes_neither_logits_nor_gradients(order: str) -> None:
    """With hidden states asked for, the last block goes the long way; without, its MLP reads the class token alone."""
    short = tiny_classifier(attention_order=order)
    long = copy.deepcopy(short)
    clips, labels = make_clips(3), torch.tensor([0, 1, 2])
    short_outputs, long_outputs = short(clips, labels=labels), long(clips, labels=labels, output_hidden_states=True)
    assert_close(short_outputs.logits, long_outputs.logits, atol=1e-6, rtol=1e-5)
    assert long_outputs.hidden_states[-1].shape == (3, 1 + NUM_FRAMES * NUM_POSITIONS, WIDTH)
    short_outputs.loss.backward()
    long_outputs.loss.backward()
    for (name, parameter), other in zip(short.named_parameters(), long.parameters(), strict=True):
        assert_close(parameter.grad, other.grad, atol=1e-6, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
    base = short.stt(clips, class_token_only=True)
    assert base.last_hidden_state.shape == (3, 1, WIDTH)
    assert_close(base.pooler_output, short.stt(clips).pooler_output, atol=1e-6, rtol=1e-5)
    short.set_attn_implementation("eager")
    attentions = short(clips, output_attentions=True)
    for weights in [each for field, each in attentions.items() if field.endswith("_attentions")]:
        assert weights[-1].shape == weights[0].shape, "spared where somebody looks"


def test_the_classifier_skips_work_unless_hidden_states_are_requested() -> None:
    """Otherwise the test above would compare the long way with itself."""
    model, rows = tiny_classifier(), []
    model.stt.layers[-1].mlp.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[1]))
    model(make_clips())
    model(make_clips(), output_hidden_states=True)
    model.config.output_hidden_states = True
    model(make_clips())
    assert rows == [1, 1 + NUM_FRAMES * NUM_POSITIONS, 1 + NUM_FRAMES * NUM_POSITIONS]


@pytest.mark.parametrize("training", [False, True])
def test_the_memory_layout_of_the_frames_changes_neither_features_nor_gradients(training: bool) -> None:
    """The backbone's layout and its operations in place, against the same modules called one after the other."""
    torch.manual_seed(0)
    backbone = STTBackbone(tiny_config(backbone_depths=(2, 1))).train(training)
    plain = copy.deepcopy(backbone)
    frames = make_clips(1, 5)[0]

    def plain_block(block: STTBasicBlock, features: torch.Tensor) -> torch.Tensor:
        shortcut = features if block.downsample is None else block.downsample(features)
        features = torch.relu(block.bn1(block.conv1(features)))
        return torch.relu(block.bn2(block.conv2(features)) + shortcut)

    features = backbone(frames)
    expected = plain.maxpool(torch.relu(plain.bn1(plain.conv1(frames))))
    for block in (*plain.layer1, *plain.layer2):
        expected = plain_block(block, expected)
    assert_close(features, expected, atol=1e-5, rtol=1e-4)
    features.square().mean().backward()
    expected.square().mean().backward()
    for parameter, other in zip(backbone.parameters(), plain.parameters(), strict=True):
        assert_close(parameter.grad, other.grad, atol=1e-5, rtol=1e-3)
    assert_close(list(backbone.buffers()), list(plain.buffers()))


def test_an_exported_program_is_left_its_own_memory_layouts() -> None:
    """ExecuTorch took channels-last over into its program, and answered something else without a word."""
    model, clips = tiny_classifier(), make_clips(2)
    program = torch.export.export(model, (), {"pixel_values": clips}, strict=False)
    assert torch.channels_last not in {node.kwargs.get("memory_format") for node in program.graph.nodes}
    assert_close(program.module()(pixel_values=clips).logits, model(clips).logits, atol=1e-5, rtol=1e-4)


def test_gradient_checkpointing_changes_neither_loss_nor_gradients_nor_statistics() -> None:
    """With dropout and dropped paths on: the second run of a block must draw what the first drew, and batch norms must
    count it once.
    """
    model = tiny_classifier(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.1, drop_path_rate=0.3).train()
    clips, labels = make_clips(4), torch.tensor([0, 1, 2, 0])

    def step(model: STTForVideoClassification) -> tuple[torch.Tensor, list[torch.Tensor]]:
        torch.manual_seed(3)
        loss = model(clips, labels=labels).loss
        loss.backward()
        return loss.detach(), [p.grad for p in model.parameters()]

    checkpointed = copy.deepcopy(model)
    checkpointed.activation_checkpointing_enable()
    assert checkpointed.is_activation_checkpointing
    loss, gradients = step(model)
    same_loss, same_gradients = step(checkpointed)
    assert_close(loss, same_loss)
    assert_close(gradients, same_gradients)
    assert list(model.stt.backbone.buffers())
    assert_close(list(checkpointed.buffers()), list(model.buffers()), atol=0, rtol=0)


# --- back-ends, precisions, files ------------------------------------------------------------------------------------


@every_order
@torch.no_grad()
def test_eager_and_sdpa_agree(order: str) -> None:
    model = tiny_classifier(attention_order=order, attn_implementation="eager")
    eager = model.stt(make_clips()).last_hidden_state
    model.set_attn_implementation("sdpa")
    assert_close(model.stt(make_clips()).last_hidden_state, eager, atol=1e-5, rtol=1e-4)


def test_plain_products_stand_in_for_sdpa_in_bfloat16_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward: to the bit what `"eager"` gives, and to rounding what SDPA's kernel gives."""
    model = tiny_classifier(attn_implementation="sdpa").to(torch.bfloat16)

    def logits_and_gradients() -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        logits = model(make_clips(), labels=torch.tensor([0, 1])).logits
        F.cross_entropy(logits.float(), torch.tensor([0, 1])).backward()
        return logits.detach(), [p.grad for p in model.parameters() if p.grad is not None]

    kernel = F.scaled_dot_product_attention
    calls = []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or kernel(*a, **k))
    stood_in = logits_and_gradients()
    assert not calls
    monkeypatch.setattr("modeling_stt.modeling_stt.PLAIN_PRODUCTS_UP_TO", 0)
    by_kernel = logits_and_gradients()
    assert calls
    model.set_attn_implementation("eager")
    assert_close(logits_and_gradients(), stood_in, atol=0, rtol=0)
    assert_close(stood_in, by_kernel, atol=2e-2, rtol=5e-2)


@slow
@torch.no_grad()
def test_flex_attention_agrees() -> None:
    model = tiny_classifier(attn_implementation="eager")
    eager = model(make_clips()).logits
    model.set_attn_implementation("flex_attention")
    assert_close(model(make_clips()).logits, eager, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_bfloat16_is_near_and_takes_what_the_processor_makes(tmp_path: Path) -> None:
    model = tiny_classifier()
    model.save_pretrained(tmp_path)
    half = STTForVideoClassification.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    logits = half(make_clips()).logits
    assert logits.dtype == torch.bfloat16
    assert_close(logits.float().softmax(-1), model(make_clips()).logits.softmax(-1), atol=0.03, rtol=0)
    larger = make_clips(1, 6, 40, 40)
    assert half(larger, interpolate_pos_encoding=True).logits.dtype == torch.bfloat16


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=slow)])
def test_compiles_to_one_graph_with_the_same_result(backend: str) -> None:
    model, clips = tiny_classifier(), make_clips()
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    assert_close(compiled(clips).logits, model(clips).logits, atol=1e-5, rtol=1e-4)


def test_a_training_step_compiles_to_one_graph_with_the_same_gradients() -> None:
    """Nothing drawn at random, so that compiled and plain step are the same; batch norm counts its batches in both."""
    model = tiny_classifier(hidden_dropout_prob=0, drop_path_rate=0).train()
    plain = copy.deepcopy(model)
    clips, labels = make_clips(4), torch.tensor([0, 1, 2, 0])
    torch.compiler.reset()
    torch.compile(model, fullgraph=True, backend="aot_eager")(clips, labels=labels).loss.backward()
    plain(clips, labels=labels).loss.backward()
    for (name, parameter), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert_close(parameter.grad, other.grad, atol=1e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")
    assert_close(list(model.buffers()), list(plain.buffers()))


@every_order
@torch.no_grad()
def test_saved_and_loaded_is_the_same_model_bit_for_bit(order: str, tmp_path: Path) -> None:
    model, clips = tiny_classifier(attention_order=order), make_clips()
    model.save_pretrained(tmp_path)
    loaded = STTForVideoClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(clips).logits, model(clips).logits)
    saved_weights, loaded_weights = model.state_dict(), loaded.state_dict()
    assert saved_weights.keys() == loaded_weights.keys()
    assert all(torch.equal(saved_weights[key], loaded_weights[key]) for key in saved_weights)
    base, report = STTModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert torch.equal(base.eval()(clips).pooler_output, model.stt(clips).pooler_output)
