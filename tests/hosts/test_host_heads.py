"""Heads for free: VAN as the backbone of transformers' segmenters and detectors, from construction to inference."""

import pytest
import torch

from van.hosts import register

transformers = pytest.importorskip("transformers", minversion="5.17")
register("transformers")

from van.hosts.transformers import VanBackbone, VanConfig  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

SIDE, LABELS = 64, 3
STAGES = ("stage1", "stage2", "stage3", "stage4")
BOXES = {
    "class_labels": torch.tensor([0, 2]),
    "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.3, 0.3, 0.2, 0.2]]),  # (centre x, centre y, width, height)
}


def backbone(*stages):
    return VanConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], mlp_ratios=[2, 2, 2, 2], out_features=list(stages or STAGES)
    )


def decoder(width, layers=1):
    """What every DETR calls alike."""
    sizes = {"encoder_layers": 1, "decoder_layers": layers, "encoder_ffn_dim": width, "decoder_ffn_dim": width}
    return {"d_model": width, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 5, **sizes}


def upernet():
    config = transformers.UperNetConfig(
        backbone_config=backbone(),
        hidden_size=16,
        pool_scales=[1, 2],
        auxiliary_in_channels=24,
        auxiliary_channels=16,
        num_labels=LABELS,
    )
    labels = torch.randint(0, LABELS, (2, SIDE, SIDE))
    return transformers.UperNetForSemanticSegmentation(config), {"labels": labels}, "logits"


def masks():
    return {
        "mask_labels": [torch.randint(0, 2, (2, SIDE, SIDE)).float() for _ in range(2)],
        "class_labels": [BOXES["class_labels"]] * 2,
    }


def mask2former():
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone(),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=32,
        num_queries=5,
        num_labels=LABELS,
        train_num_points=32,
    )
    return transformers.Mask2FormerForUniversalSegmentation(config), masks(), "masks_queries_logits"


def maskformer():
    config = transformers.MaskFormerConfig(
        backbone_config=backbone(),
        decoder_config=transformers.DetrConfig(**decoder(32), backbone_config=backbone("stage4")),
        fpn_feature_size=32,
        mask_feature_size=32,
        num_labels=LABELS,
    )
    return transformers.MaskFormerForInstanceSegmentation(config), masks(), "masks_queries_logits"


def oneformer():
    config = transformers.OneFormerConfig(
        backbone_config=backbone(),
        conv_dim=64,
        mask_dim=64,
        hidden_dim=64,
        encoder_feedforward_dim=32,
        encoder_layers=1,
        decoder_layers=2,
        query_dec_layers=1,
        num_attention_heads=2,
        dim_feedforward=32,
        num_queries=6,
        num_labels=LABELS,
        text_encoder_width=64,
        text_encoder_context_length=7,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=20,
        text_encoder_proj_layers=1,
        text_encoder_n_ctx=2,
        task_seq_len=7,
        train_num_points=32,
        is_training=True,
    )
    words = {"task_inputs": torch.randint(0, 20, (2, 7)), "text_inputs": torch.randint(0, 20, (2, 4, 7))}
    return transformers.OneFormerForUniversalSegmentation(config), {**words, **masks()}, "masks_queries_logits"


def rt_detr(kind="RTDetr"):
    width = 16
    config = getattr(transformers, f"{kind}Config")(
        backbone_config=backbone("stage2", "stage3", "stage4"),
        encoder_in_channels=[16, 24, 32],
        encoder_hidden_dim=width,
        decoder_in_channels=[width] * 3,
        num_denoising=4,
        num_labels=LABELS,
        **decoder(width, layers=2),
    )
    return getattr(transformers, f"{kind}ForObjectDetection")(config), {"labels": [BOXES] * 2}, "pred_boxes"


def d_fine():
    return rt_detr("DFine")


def detr():
    config = transformers.DetrConfig(backbone_config=backbone("stage4"), num_labels=LABELS, **decoder(16))
    return transformers.DetrForObjectDetection(config), {"labels": [BOXES] * 2}, "pred_boxes"


def deformable_detr():
    config = transformers.DeformableDetrConfig(
        backbone_config=backbone("stage2", "stage3", "stage4"), num_labels=LABELS, **decoder(32, layers=2)
    )
    return transformers.DeformableDetrForObjectDetection(config), {"labels": [BOXES] * 2}, "pred_boxes"


@pytest.mark.parametrize(
    "build",
    [upernet, mask2former, rt_detr, maskformer, oneformer, detr, deformable_detr, d_fine],
    ids=lambda f: f.__name__,
)
def test_construct_train_save_load_and_infer(build, tmp_path):
    torch.manual_seed(0)
    model, labels, answer = build()
    images = torch.randn(2, 3, SIDE, SIDE)
    (van,) = (m for m in model.modules() if isinstance(m, VanBackbone))
    weight = van.backbone.stages[-1].patch_embed.conv.weight
    before = weight.detach().clone()
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)

    loss = model.train()(pixel_values=images, **labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    assert loss.isfinite()
    trained = [p for p in van.parameters() if p.requires_grad]
    assert trained
    assert all(p.grad is not None for p in trained)
    assert not torch.equal(weight, before)

    for thing in (model.config, *model.modules()):  # OneFormer has a switch of its own, and reads texts while it is on
        if hasattr(thing, "is_training"):
            thing.is_training = False
    model.save_pretrained(tmp_path)
    again, told = type(model).from_pretrained(tmp_path, output_loading_info=True)
    told["unexpected_keys"] = {key for key in told["unexpected_keys"] if "text_mapper" not in key}
    assert not any(told.values())
    inputs = {"pixel_values": images, **({"task_inputs": labels["task_inputs"]} if "task_inputs" in labels else {})}
    with torch.inference_mode():
        ours, theirs = (getattr(m.eval()(**inputs), answer) for m in (model, again))
    assert ours.isfinite().all()
    assert torch.equal(ours, theirs)


def test_files_of_heads_name_the_backbone_as_the_original_did(tmp_path):
    from safetensors.torch import load_file

    upernet()[0].save_pretrained(tmp_path)
    keys = load_file(tmp_path / "model.safetensors").keys()
    assert "backbone.encoder.stages.3.layers.0.attention.attention_layer.attention.depth_wise.weight" in keys
    assert not any(".blocks." in key for key in keys)


def test_a_published_backbone_goes_under_a_head(tmp_path):
    source = VanBackbone(backbone())
    source.save_pretrained(tmp_path)
    model = upernet()[0]
    model.backbone.load_state_dict(transformers.AutoBackbone.from_pretrained(tmp_path).state_dict())
    images = torch.randn(1, 3, SIDE, SIDE)
    ours = model.eval().backbone(images).feature_maps
    assert all(torch.equal(a, b) for a, b in zip(ours, source.eval()(images).feature_maps, strict=True))


def test_gradient_checkpointing_reaches_the_backbone_inside_a_head():
    model = detr()[0]
    switch = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    switch()
    (van,) = (m for m in model.modules() if isinstance(m, VanBackbone))
    assert all(block.gradient_checkpointing for stage in van.backbone.stages for block in stage.blocks)
