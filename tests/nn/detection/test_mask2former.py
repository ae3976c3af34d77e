"""Mask2Former against transformers' own with the same weights, its fresh starts, and what it refuses."""

import json

import pytest
import torch

pytest.importorskip("transformers")

import transformers

import van
from van import create_model as create
from van.configs.mask2former import INSTANCE_MASK2FORMERS, PANOPTIC_MASK2FORMERS, Mask2FormerConfig
from van.errors import ConfigError, DataError, UnknownNameError

TINY = {
    "embed_dims": (8, 16, 24, 32),
    "depths": (1, 1, 1, 1),
    "mlp_ratios": (2, 2, 2, 2),
    "num_classes": 5,
    "hidden_size": 32,
    "mask_size": 16,
    "heads": 4,
    "queries": 6,
    "encoder_layers": 1,
    "encoder_feed_forward": 16,
    "decoder_layers": 4,
    "feed_forward": 24,
    "train_points": 32,
}
PANOPTIC = TINY | {"num_things": 3}
HEIGHT, WIDTH = 64, 96


def images(count=2):
    return torch.randn(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))


def targets(*counts):
    generator = torch.Generator().manual_seed(2)
    return [
        {
            "size": (HEIGHT, WIDTH),
            "boxes": torch.zeros(count, 4),
            "labels": torch.randint(0, 5, (count,), generator=generator),
            "masks": torch.randint(0, 2, (count, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator),
        }
        for count in counts
    ]


def theirs(model):
    """transformers' network, all of whose weights are the model's."""
    van.register("transformers")
    from van.hosts.transformers import VanConfig

    c = model.config
    config = transformers.Mask2FormerConfig(
        backbone_config=VanConfig.from_van(c.backbone, out_features=["stage1", "stage2", "stage3", "stage4"]),
        feature_size=c.hidden_size,
        mask_feature_size=c.mask_size,
        hidden_dim=c.hidden_size,
        encoder_feedforward_dim=c.encoder_feed_forward,
        encoder_layers=c.encoder_layers,
        decoder_layers=c.decoder_layers + 1,
        num_attention_heads=c.heads,
        dim_feedforward=c.feed_forward,
        num_queries=c.queries,
        num_labels=c.num_classes,
        train_num_points=c.train_points,
        oversample_ratio=c.oversample_ratio,
        importance_sample_ratio=c.importance_ratio,
        no_object_weight=c.no_object_weight,
        class_weight=c.class_weight,
        mask_weight=c.mask_weight,
        dice_weight=c.dice_weight,
    )
    prefixes = {
        "backbone.": "model.pixel_level_module.encoder.backbone.",
        "pixel_decoder.": "model.pixel_level_module.decoder.",
        "transformer.": "model.transformer_module.",
        "class_predictor.": "class_predictor.",
    }
    state = {}
    for key, value in model.state_dict().items():
        prefix = next(prefix for prefix in prefixes if key.startswith(prefix))
        state[prefixes[prefix] + key.removeprefix(prefix)] = value
    network = transformers.Mask2FormerForUniversalSegmentation(config)
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert missing == ["criterion.empty_weight"]
    assert not unexpected
    return network.train(model.training)


def same_points(*shape, device=None):
    """A cloud of points that depends on nothing but how many there are."""
    points = torch.empty(shape[-2:]).uniform_(generator=torch.Generator().manual_seed(shape[-2]))
    return points.expand(shape).clone()


def test_outputs_are_those_of_transformers_with_the_same_weights():
    model = create("mask2former_van_b0", seed=0, **PANOPTIC).eval()
    with torch.inference_mode():
        ours, expected = model.raw(images()), theirs(model)(images())
    assert ours["class_logits"].shape == (2, 6, 6)
    assert ours["mask_logits"].shape == (2, 6, HEIGHT // 4, WIDTH // 4)
    torch.testing.assert_close(ours["class_logits"], expected.class_queries_logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours["mask_logits"], expected.masks_queries_logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"importance_ratio": 1.0, "no_object_weight": 0.3, "class_weight": 1.0}])
def test_losses_and_gradients_are_those_of_transformers_at_the_same_points(options, monkeypatch):
    model = create("mask2former_van_b0", seed=0, **PANOPTIC, **options)
    other, truth = theirs(model), targets(3, 1)
    model.criterion.draw = same_points
    monkeypatch.setattr(torch, "rand", same_points)
    ours = sum(model.losses(images(), truth).values())
    loss = other(
        images(),
        mask_labels=[target["masks"].float() for target in truth],
        class_labels=[target["labels"] for target in truth],
    ).loss
    torch.testing.assert_close(ours, loss, atol=1e-5, rtol=1e-5)
    ours.backward()
    loss.backward()
    gradient = other.model.transformer_module.queries_features.weight.grad
    torch.testing.assert_close(model.transformer.queries_features.weight.grad, gradient, atol=1e-5, rtol=1e-4)


def test_keys_of_the_state_dict_stay():
    keys = set(create("mask2former_van_b0", **PANOPTIC).state_dict())
    assert {key.split(".")[0] for key in keys} == {"backbone", "pixel_decoder", "transformer", "class_predictor"}
    attention = ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
    layer = "transformer.decoder.layers.3."
    expected = {
        *(f"pixel_decoder.encoder.layers.0.self_attn.{name}.weight" for name in attention),
        *(f"pixel_decoder.input_projections.{level}.{part}.weight" for level in range(3) for part in range(2)),
        *("pixel_decoder.level_embed", "pixel_decoder.mask_projection.weight", "pixel_decoder.adapter_1.0.weight"),
        *("pixel_decoder.layer_1.0.weight", "transformer.queries_embedder.weight"),
        *("transformer.queries_features.weight", "transformer.level_embed.weight", f"{layer}fc1.weight"),
        *(f"{layer}self_attn.{name}_proj.weight" for name in ("q", "k", "v", "out")),
        *(f"{layer}cross_attn.in_proj_weight", f"{layer}cross_attn.out_proj.weight"),
        *(f"transformer.decoder.mask_predictor.mask_embedder.{i}.0.weight" for i in range(3)),
        *("transformer.decoder.layernorm.weight", "class_predictor.weight", "class_predictor.bias"),
    }
    assert expected <= keys
    assert len([key for key in keys if not key.startswith("backbone.")]) == 138


def test_a_training_step_reaches_every_parameter_also_without_a_segment():
    model = create("mask2former_instance_van_b0", seed=0, **TINY)
    for truth in (targets(2, 0), targets(0, 0)):
        model.zero_grad()
        losses = model(images(), truth)
        sum(losses.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert losses["mask"] == losses["dice_auxiliary"] == 0
    assert losses["class"] > 0
    assert set(losses) == {f"{part}{end}" for part in ("class", "mask", "dice") for end in ("", "_auxiliary")}


def test_a_generator_gives_the_same_weights_and_the_global_one_is_left_alone():
    one, two, other = (create("mask2former_van_b0", **PANOPTIC) for _ in range(3))
    before = torch.get_rng_state()
    for model, seed in ((one, 3), (two, 3), (other, 4)):
        model.reset_parameters(torch.Generator().manual_seed(seed))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    drawn = [name for name, p in one.named_parameters() if p.dim() > 1 and p.count_nonzero()]
    same = [name for name in drawn if torch.equal(one.get_parameter(name), other.get_parameter(name))]
    assert not same


def test_a_fresh_model_samples_around_every_pixel_and_its_weights_have_the_published_spread():
    model = create("mask2former_van_b0", seed=0, **PANOPTIC)
    attention = model.pixel_decoder.encoder.layers[0].self_attn
    offsets = attention.sampling_offsets.bias.view(4, 3, 4, 2)
    right, down = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    for point in range(4):
        torch.testing.assert_close(offsets[0, 2, point], (point + 1) * right)
        torch.testing.assert_close(offsets[1, 0, point], (point + 1) * down, atol=1e-6, rtol=0)
    assert not attention.sampling_offsets.weight.any()
    queries = model.transformer.decoder.layers[0].self_attn.q_proj.weight
    assert 0.9 * (6 / 128) ** 0.5 < queries.abs().max() < (6 / 128) ** 0.5  # rows of a (96, 32) matrix
    assert 0.8 < model.transformer.queries_embedder.weight.std() < 1.2


def test_without_a_finer_first_map_masks_have_the_stride_of_the_second():
    model = create("mask2former_van_b0", seed=0, **PANOPTIC, strides=(4, 1, 2, 2)).eval()
    assert not hasattr(model.pixel_decoder, "adapter_1")
    assert model.raw(images())["mask_logits"].shape == (2, 6, HEIGHT // 4, WIDTH // 4)


def test_gradient_checkpointing_changes_no_gradient():
    model, gradients = create("mask2former_van_b0", seed=0, **PANOPTIC), []
    model.criterion.draw = same_points
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        sum(model.losses(images(), targets(2, 1)).values()).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert model.backbone.stages[0].grad_checkpointing
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_mixed_precision_leaves_the_pixel_decoder_in_single_precision():
    model, seen = create("mask2former_van_b0", seed=0, **PANOPTIC).eval(), []
    model.pixel_decoder.mask_projection.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        raw = model.raw(images(1))
    assert seen == [torch.float32]
    assert {value.dtype for value in raw.values()} == {torch.float32}


def test_new_classes_get_a_fresh_layer_and_the_rest_stays():
    model = create("mask2former_van_b0", seed=0, **PANOPTIC).eval()
    model.classes = "abcde"
    before = model.raw(images(1))
    model.reset_classifier(2, torch.Generator().manual_seed(5))
    after = model.raw(images(1))
    assert after["class_logits"].shape == (1, 6, 3)
    assert torch.equal(before["mask_logits"], after["mask_logits"])
    assert (model.num_classes, model.config.num_things, model.classes) == (2, 2, None)
    assert model.criterion.config == model.config
    with pytest.raises(ConfigError, match="num_classes is 0"):
        model.reset_classifier(0)


def test_classes_change_places_but_things_stay_before_stuff():
    model = create("mask2former_van_b0", seed=0, **PANOPTIC).eval()
    before = model.raw(images(1))["class_logits"]
    model.reorder_classes((2, 0, 1, 4, 3))
    torch.testing.assert_close(model.raw(images(1))["class_logits"], before[..., [2, 0, 1, 4, 3, 5]])
    with pytest.raises(ConfigError, match="the first 3 classes must stay the things"):
        model.reorder_classes((3, 0, 1, 2, 4))


def test_targets_without_masks_are_refused():
    truth = targets(1)
    del truth[0]["masks"]
    with pytest.raises(DataError, match="no masks, which Mask2Former learns from"):
        create("mask2former_instance_van_b0", seed=0, **TINY).losses(images(1), truth)


def test_published_sizes_on_the_meta_device():
    with torch.device("meta"):
        model = create("mask2former_van_b2")
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert parts["class_predictor"] == 257 * 134
    assert len(model.transformer.decoder.layers) == 9
    assert len(model.pixel_decoder.encoder.layers) == 6
    assert (model.config.num_classes, model.config.num_things) == (133, 80)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 40}, "hidden_size is 40; its GroupNorms need a multiple of 32"),
        ({"hidden_size": 64, "heads": 6}, "hidden_size is 64; its heads need a multiple of 6"),
        ({"queries": 0}, "queries is 0"),
        ({"decoder_layers": 0}, "decoder_layers is 0"),
        ({"mask_weight": -1.0}, "mask_weight is -1.0; expected 0 or more"),
        ({"class_weight": 0, "mask_weight": 0, "dice_weight": 0}, "at least one must be above"),
        ({"oversample_ratio": 0.5}, "oversample_ratio is 0.5; expected 1 to 64"),
        ({"importance_ratio": 1.5}, "importance_ratio is 1.5; expected 0 to 1"),
        ({"importance_ratio": float("nan")}, "expected a finite number"),
        ({"overlap_threshold": 2}, "overlap_threshold is 2; expected 0 to 1"),
        ({"score_threshold": 1.0}, "score_threshold is 1.0"),
        ({"num_things": 200}, "num_things is 200"),
    ],
)
def test_impossible_configurations_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        PANOPTIC_MASK2FORMERS["mask2former_van_b0"].with_options(**options)


def test_instance_models_have_no_panoptic_options():
    assert INSTANCE_MASK2FORMERS["mask2former_instance_van_b0"].num_classes == 80
    with pytest.raises(UnknownNameError, match="overlap_threshold"):
        INSTANCE_MASK2FORMERS["mask2former_instance_van_b0"].with_options(overlap_threshold=0.5)


def test_configuration_round_trips_through_json():
    config = PANOPTIC_MASK2FORMERS["mask2former_van_b1"].with_options(**PANOPTIC)
    assert Mask2FormerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
