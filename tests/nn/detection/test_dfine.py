"""D-FINE: the same as transformers' own model, trainable from any batch, and decoded as published."""

import copy
import pickle
import re

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("scipy")

from tiny_dfine import images, targets, tiny_dfine, transformers_twin

import van
from van.configs.dfine import DFINES
from van.errors import ConfigError
from van.nn.detection.boxes import to_centers, to_corners
from van.nn.object_model import detections


@pytest.mark.parametrize("options", [{}, {"encoder_channels": 24, "encoder_layers": 2, "decoder_layers": 2}])
def test_outputs_are_those_of_transformers_own_model(options, monkeypatch):
    model = tiny_dfine(**options).eval()
    twin = transformers_twin(model, monkeypatch).eval()
    with torch.no_grad():
        ours, theirs = model.raw(images()), twin(images())
    assert ours["boxes"].std() > 0.01
    torch.testing.assert_close(ours["logits"], theirs.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours["boxes"], theirs.pred_boxes, atol=1e-5, rtol=0)


def test_gathers_give_what_grid_sample_gives():
    model = tiny_dfine().eval()
    with torch.no_grad():
        for layer in model.decoder.layers:
            layer.encoder_attn.sampling_offsets.weight.add_(1)  # also places outside the maps
        before = model.raw(images())
        model.set_sampling("gather")
        after = model.raw(images())
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=0)
    with pytest.raises(ConfigError, match="'nearest'; expected grid_sample or gather"):
        model.set_sampling("nearest")


@pytest.mark.parametrize("options", [{"denoising_queries": 8}, {"decoder_layers": 1}])
@pytest.mark.parametrize("counts", [(2, 1), (0, 3), (0, 0)])
def test_every_parameter_has_a_gradient_whatever_the_images_show(options, counts):
    model = tiny_dfine(**options).train()
    losses = model.losses(images(), targets(counts))
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert any(name.startswith("denoising") for name in losses) == ("denoising_queries" in options and sum(counts) > 0)


def test_all_norms_train():
    model = tiny_dfine().train()
    norms = [m for m in model.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    model.losses(images(), targets())
    assert len(norms) > 20
    assert all(norm.weight.requires_grad for norm in norms)
    assert not any(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))


def test_training_lowers_the_losses():
    model = tiny_dfine(denoising_queries=8).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    history = []
    for _ in range(8):
        loss = sum(model.losses(images(), targets()).values())
        history.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert history[-1] < 0.8 * history[0], history


def test_losses_in_eval_mode_are_of_all_layers_and_without_noise():
    model = tiny_dfine(denoising_queries=8).eval()
    first, second = (model.losses(images(), targets()) for _ in range(2))
    assert first.keys() == {"vfl", "box", "giou", "fgl", "ddf"}
    assert first == second
    assert first["ddf"] > 0
    assert not model.decoder.training


@pytest.mark.parametrize("options", [{"denoising_queries": 8}, {"decoder_layers": 1}])
def test_losses_get_each_layers_boxes_with_the_distributions_that_they_come_from(options, monkeypatch):
    model, seen = tiny_dfine(**options).train(), []
    monkeypatch.setattr("van.nn.detection.dfine.dfine_losses", lambda *given: seen.append(given) or {"vfl": 0})
    model.losses(images(), targets())
    found, truth, offsets, noisy = seen[0]
    layers = model.config.decoder_layers
    assert [len(found.logits), len(found.boxes), len(found.corners)] == [layers + 2, layers + 2, layers]
    for each in [found, noisy.predictions] if noisy else [found]:
        center, size = each.references[..., :2], each.references[..., 2:] / offsets.scale
        moved = each.corners.softmax(-1) @ offsets.values + offsets.scale / 2  # (L, N, Q, 4)
        corners = torch.cat([center - moved[..., :2] * size, center + moved[..., 2:] * size], -1)
        torch.testing.assert_close(to_corners(each.boxes[:layers]), corners)
        torch.testing.assert_close(each.boxes[layers], each.references)  # the first layer's own box
    torch.testing.assert_close(truth.boxes, to_centers(torch.cat([t["boxes"] for t in targets()]) / 64))
    assert truth.images.tolist() == [0, 0, 1]
    if noisy:  # four copies of each of the three boxes
        assert (noisy.groups, len(noisy.pairs), noisy.predictions.logits.shape[2]) == (4, 12, 16)
        assert noisy.pairs.truths.tolist() == [0, 1] * 4 + [2] * 4
        assert noisy.pairs.images.tolist() == [0] * 8 + [1] * 4


def test_checkpointed_backbones_have_the_same_gradients():
    gradients = []
    for enable in (False, True):
        model = tiny_dfine().train()
        model.set_grad_checkpointing(enable)
        sum(model.losses(images(), targets()).values()).backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, atol=1e-6, rtol=1e-5)


def test_a_generator_alone_decides_the_weights():
    model, other = tiny_dfine(denoising_queries=8), tiny_dfine(seed=5, denoising_queries=8)
    before = torch.get_rng_state()
    for each in (model, other):
        each.reset_parameters(torch.Generator().manual_seed(7))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    assert model.decoder.bbox_embed[0].layers[-1].weight.eq(0).all()
    assert model.proposal_classes.bias.sigmoid().sub(0.01).abs().max() < 1e-6


def test_models_are_built_on_the_meta_device_copied_and_pickled():
    model = tiny_dfine(denoising_queries=8).eval()
    with torch.device("meta"):
        empty = type(model)(model.config)
    assert all(value.is_meta for value in empty.state_dict().values())
    empty.load_state_dict(model.state_dict(), assign=True)
    expected = model.raw(images())["boxes"]
    for each in (empty.eval(), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(each.raw(images())["boxes"], expected)


def test_what_is_fixed_is_no_parameter():
    model = tiny_dfine()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert {"decoder.up", "decoder.reg_scale"} <= set(model.state_dict())


def test_a_new_classifier_starts_improbable_and_leaves_the_rest():
    model = tiny_dfine(denoising_queries=8).eval()
    model.classes = ("a", "b", "c")
    before = copy.deepcopy(model.state_dict())
    model.reset_classifier(5, torch.Generator().manual_seed(0))
    assert (model.num_classes, model.config.num_classes, model.classes) == (5, 5, None)
    assert model.raw(images())["logits"].shape == (2, 12, 5)
    assert model.noisy_labels.weight.shape == (6, 16)
    assert model.proposal_classes.bias.sigmoid().max() < 0.011
    changed = {name for name, value in model.state_dict().items() if value.shape != before[name].shape}
    assert {name.split(".")[0] for name in changed} == {"proposal_classes", "noisy_labels", "decoder"}
    same = model.state_dict().keys() - changed
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in same)


def test_reordered_classes_are_the_same_detections_in_another_order():
    model = tiny_dfine(denoising_queries=8).eval()
    before, noisy = model.raw(images()), model.noisy_labels.weight.clone()
    model.reorder_classes([2, 0, 1])
    after = model.raw(images())
    torch.testing.assert_close(after["logits"], before["logits"][..., [2, 0, 1]])
    torch.testing.assert_close(after["boxes"], before["boxes"])
    assert torch.equal(model.noisy_labels.weight, noisy[[2, 0, 1, 3]])


def test_the_surest_of_all_queries_and_classes_are_the_detections():
    config = DFINES["dfine_van_b0"].with_options(num_classes=2, detections_per_image=3)
    logits = torch.tensor([[[0.0, 3.0], [2.0, -1.0], [-4.0, -5.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.1, 0.9, 0.4, 0.4], [0.5, 0.5, 1.0, 1.0]]])
    (found,) = detections(config, {"logits": logits, "boxes": boxes}, [(100, 200)])
    assert found.labels.tolist() == [1, 0, 0]
    torch.testing.assert_close(found.scores, torch.tensor([3.0, 2.0, 0.0]).sigmoid())
    expected = [[80.0, 30, 120, 70], [0, 70, 60, 100], [80, 30, 120, 70]]  # ended at the border
    torch.testing.assert_close(found.boxes, torch.tensor(expected))
    assert found.masks is None
    (sure,) = detections(config.with_options(score_threshold=0.6), {"logits": logits, "boxes": boxes}, [(100, 200)])
    assert sure.labels.tolist() == [1, 0]


def test_decoding_is_that_of_transformers_where_boxes_lie_inside():
    from transformers import RTDetrImageProcessorPil as Processor
    from transformers.models.d_fine.modeling_d_fine import DFineObjectDetectionOutput as Output

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 12, 3, generator=generator)
    boxes = torch.rand(2, 12, 4, generator=generator) * 0.3 + 0.35
    config = DFINES["dfine_van_b0"].with_options(num_classes=3, detections_per_image=12)
    ours = detections(config, {"logits": logits, "boxes": boxes}, [(64, 64), (64, 96)])
    output = Output(logits=logits, pred_boxes=boxes)
    theirs = Processor().post_process_object_detection(output, 0.0, [(64, 64), (64, 96)])
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.boxes, other["boxes"])
        torch.testing.assert_close(mine.scores, other["scores"])
        assert torch.equal(mine.labels, other["labels"])


def test_images_that_the_maps_do_not_fit_are_refused():
    model = tiny_dfine().eval()
    with pytest.raises(ConfigError, match="72 x 64 pixels; D-FINE needs multiples of 16: pad or resize"):
        model.raw(torch.zeros(1, 3, 72, 64))
    with pytest.raises(ConfigError, match="give 21 places, fewer than the 30 queries"):
        tiny_dfine(queries=30).raw(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ConfigError, match=r"expects \(N, 3, H, W\)"):
        model.raw(torch.zeros(1, 1, 64, 64))


def test_images_need_not_be_squares():
    assert tiny_dfine().eval().raw(torch.zeros(1, 3, 64, 96))["boxes"].shape == (1, 12, 4)


def test_names_make_models_of_the_published_sizes():
    with torch.device("meta"):
        sizes = {name: van.create_model(name) for name in ("dfine_van_b0", "dfine_van_b2", "dfine_van_b4")}
    heads = {name: sum(p.numel() for n, p in m.named_parameters() if "backbone" not in n) for name, m in sizes.items()}
    assert [len(m.decoder.layers) for m in sizes.values()] == [3, 6, 6]
    assert heads["dfine_van_b0"] < heads["dfine_van_b2"] < heads["dfine_van_b4"]


def test_mixed_precision_places_boxes_to_a_fraction_of_a_pixel():
    model = tiny_dfine(decoder_layers=1).eval()
    corners = torch.randn(1, 12, 36, generator=torch.Generator().manual_seed(0)).bfloat16()
    values = torch.linspace(-1, 1, 9)
    exact = model.decoder.integral(corners.float(), values)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.decoder.integral(corners, values), exact)


def test_a_training_step_of_mixed_precision_is_finite():
    model = tiny_dfine(denoising_queries=8).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.losses(images(), targets())
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    sum(losses.values()).backward()


# The layers by whose names files hold the weights, numbers as 0; transformers names what lies below `encoder` and
# `decoder`. A release of it that renames them makes earlier files unreadable: then `DFine` has to translate.
FUSION = [f"conv{i}.{part}" for i in (1, 2, 3, 4) for part in ("conv", "norm")]
FUSION += [f"csp_rep{i}.conv{j}.{part}" for i in (1, 2) for j in (1, 2) for part in ("conv", "norm")]
FUSION += [f"csp_rep{i}.bottlenecks.0.conv{j}.{part}" for i in (1, 2) for j in (1, 2) for part in ("conv", "norm")]
ATTENTION = [f"self_attn.{name}_proj" for name in "qkvo"] + ["self_attn_layer_norm", "mlp.layers.0", "final_layer_norm"]
CROSS = ["encoder_attn.attention_weights", "encoder_attn.sampling_offsets", "gateway.gate", "gateway.norm"]
KEYS = {
    *(f"encoder.{blocks}.0.{name}" for blocks in ("fpn_blocks", "pan_blocks") for name in FUSION),
    *(f"encoder.downsample_convs.0.conv{i}.{part}" for i in (1, 2) for part in ("conv", "norm")),
    *(f"encoder.lateral_convs.0.{part}" for part in ("conv", "norm")),
    *(f"encoder.aifi.0.layers.0.{name}" for name in ATTENTION),
    *(f"decoder.layers.0.{name}" for name in ATTENTION + CROSS),
    *(f"decoder.{name}" for name in ("bbox_embed.0.layers.0", "class_embed.0", "lqe_layers.0.reg_conf.layers.0")),
    *(f"decoder.{name}.layers.0" for name in ("pre_bbox_head", "query_pos_head")),
    *("input_projections.0.0", "memory.0", "noisy_labels", "proposal_boxes.layers.0", "proposal_classes"),
}


def test_weights_keep_the_names_that_files_hold():
    model = tiny_dfine(denoising_queries=8)
    names = {name.rpartition(".")[0] for name, _ in model.named_parameters() if not name.startswith("backbone")}
    assert {re.sub(r"\b\d+\b", "0", name) for name in names} == KEYS


class Pair(torch.nn.Module):
    """Logits and boxes of a model, as a tuple."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixels):
        raw = self.model.raw(pixels)
        return raw["logits"], raw["boxes"]


@pytest.mark.long
@pytest.mark.parametrize("sampling", ["grid_sample", "gather"])
def test_onnx_runtime_gives_the_same_at_the_traced_size(sampling, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = tiny_dfine(decoder_layers=2).eval()
    model.set_sampling(sampling)
    torch.onnx.export(Pair(model).eval(), (images(),), tmp_path / "dfine.onnx", dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "dfine.onnx")
    assert ("GridSample" in (tmp_path / "dfine.onnx").read_bytes().decode("latin1")) == (sampling == "grid_sample")
    others = images(seed=4)
    logits, boxes = session.run(None, {session.get_inputs()[0].name: others.numpy()})
    with torch.no_grad():
        expected = model.raw(others)
    torch.testing.assert_close(torch.from_numpy(logits), expected["logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.from_numpy(boxes), expected["boxes"], atol=1e-4, rtol=0)
