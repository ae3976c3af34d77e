"""What the peers' tests assert of VAN and what was measured on the originals, by id; transformers' own ids are in
test_host_transformers.py."""

import numpy as np
import published
import pytest
import reference_data as reference
import torch
from torch import nn

import van
from van.configs.backbone import VARIANTS, VanConfig
from van.configs.segmenter import SEGMENTERS
from van.errors import ConfigError, UnknownNameError, VanNotice
from van.nn import Backbone, Classifier
from van.nn.hamburger import NMF

TINY = VARIANTS["van_b0"]


def backbone(**options):
    torch.manual_seed(0)
    return Backbone(TINY.with_options(**options))


def test_mmpretrain_tests_01_an_unknown_architecture_is_refused_and_the_known_are_listed():
    with pytest.raises(UnknownNameError, match=r"unknown model 'unknown'.* known: van_b0, van_b1"):
        van.create_model("unknown")


def test_mmpretrain_tests_02_incomplete_and_overfull_architectures_are_refused():
    with pytest.raises(ConfigError, match="depths has 4 entries, embed_dims has 3"):
        van.create_model("van_b0", embed_dims=(32, 64, 160), mlp_ratios=(8, 8, 4), patch_sizes=(7, 3, 3))
    with pytest.raises(UnknownNameError, match="unknown architecture option 'ffn_ratios'"):
        VanConfig.from_dict({"embed_dims": [32, 64, 160, 256], "depths": [3, 3, 5, 2], "ffn_ratios": [8, 8, 4, 4]})


def test_mmpretrain_tests_03_a_custom_architecture_has_its_depths_and_widths():
    config = VanConfig.from_dict(
        {"embed_dims": [32, 64, 160, 256], "depths": [3, 3, 5, 2], "mlp_ratios": [8, 8, 4, 4], "num_classes": 0}
    )
    network = Backbone(config)
    for stage, depth, width in zip(network.stages, config.depths, config.embed_dims, strict=True):
        assert len(stage.blocks) == depth
        assert stage.blocks[-1].feed_forward.project.out_channels == width


def test_mmpretrain_tests_04_initialising_again_changes_the_weights():
    network = backbone()
    before = network.stages[0].patch_embed.conv.weight.detach().clone()
    network.reset_parameters(torch.Generator().manual_seed(1))
    assert not torch.equal(network.stages[0].patch_embed.conv.weight, before)


@pytest.mark.parametrize(
    ("ident", "options", "side", "shapes"),
    [
        ("05", {"out_indices": (3,)}, (224, 224), [(256, 7, 7)]),
        ("06", {"out_indices": (3,), "patch_sizes": (7, 5, 5, 5)}, (224, 224), [(256, 3, 3)]),
        ("07", {}, (224, 224), [(32, 56, 56), (64, 28, 28), (160, 14, 14), (256, 7, 7)]),
        ("08", {"out_indices": (3,)}, (256, 256), [(256, 8, 8)]),
        ("08", {"out_indices": (3,)}, (256, 309), [(256, 8, 10)]),
    ],
)
def test_mmpretrain_tests_05_to_08_shapes_of_the_pyramid(ident, options, side, shapes):
    maps = backbone(**options).eval()(torch.zeros(3, 3, *side))
    assert isinstance(maps, tuple)
    assert [tuple(m.shape) for m in maps] == [(3, *shape) for shape in shapes]


def test_mmpretrain_tests_09_drop_path_is_linear_over_all_blocks_and_absent_at_zero():
    blocks = [block for stage in backbone(drop_path_rate=0.2).stages for block in stage.blocks]
    for block, rate in zip(blocks, np.linspace(0, 0.2, 13), strict=True):
        if rate == 0:
            assert isinstance(block.drop_path, nn.Identity)
        else:
            assert block.drop_path.rate == pytest.approx(rate)


def test_mmpretrain_tests_10_norms_stay_in_eval_mode():
    norms = [m for m in backbone(norm_eval=True).train().modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)


def test_mmpretrain_tests_11_and_12_a_frozen_stage_is_frozen_and_the_others_are_not():
    network = backbone(frozen_stages=0).train()
    assert not network.stages[0].patch_embed.training
    assert not any(p.requires_grad for p in network.stages[0].parameters())
    assert all(p.requires_grad for stage in network.stages[1:] for p in stage.parameters())
    assert all(stage.patch_embed.training for stage in network.stages[1:])


def test_measured_01_no_classes_give_the_pooled_feature():
    torch.manual_seed(0)
    network = Classifier(TINY.with_options(num_classes=0)).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(network(images), network.forward_features(images).mean((2, 3)))


def test_measured_02_reset_classifier_works_where_the_official_one_fails():
    network = Classifier(TINY)
    network.reset_classifier(10)
    assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 10)


def test_measured_03_vectors_and_biases_are_what_weight_decay_spares():
    pytest.importorskip("timm")
    from timm.optim import create_optimizer_v2

    groups = create_optimizer_v2(Classifier(TINY), "adamw", lr=1e-3, weight_decay=0.05).param_groups
    counts = {g["weight_decay"]: (len(g["params"]), sum(p.numel() for p in g["params"])) for g in groups}
    assert counts == {0.05: (109, 4_067_936), 0.0: (203, 37_864)}


def test_measured_04_each_patch_embedding_rounds_up():
    maps = backbone().eval()(torch.zeros(1, 3, 75, 101))
    assert [tuple(m.shape[2:]) for m in maps] == [(19, 26), (10, 13), (5, 7), (3, 4)]


def test_measured_05_another_number_of_classes_keeps_the_backbone_and_drops_the_head(tmp_path):
    path = published.official(tmp_path / "van.pth.tar", reference.state("official_van_b0"))
    with pytest.warns(VanNotice, match="head of 1000 classes"):
        network = van.load(path, num_classes=10)
    theirs = reference.state("official_van_b0")["block2.1.attn.proj_1.weight"]
    assert np.array_equal(network.backbone.stages[1].blocks[1].attention.proj_in.weight.detach(), theirs)
    assert network.head.weight.shape == (10, 256)


def test_measured_10_mmpretrains_order_is_the_official_one():
    torch.manual_seed(0)
    network = Classifier(TINY).eval()
    images = torch.randn(1, 3, 64, 64)
    last = network.backbone(images)[-1]
    torch.testing.assert_close(network(images), network.head(last.mean((2, 3))))


def test_measured_11_a_keras_file_without_its_top_gives_pooled_features(tmp_path):
    pytest.importorskip("h5py")
    path = published.keras_port(tmp_path / "van.h5", reference.state("keras_van_b0"))
    tag, images = reference.inputs("keras_van_b0")[2]
    with pytest.warns(VanNotice, match="counters"), pytest.warns(VanNotice, match="head of 1000 classes"):
        network = van.load(path, num_classes=0)
    features = network(torch.from_numpy(images)).detach()
    np.testing.assert_allclose(features, reference.golden("keras_van_b0")[f"{tag}/pooled"], rtol=0, atol=1e-5)


def test_measured_12_drop_path_of_block_k_is_a_twelfth_of_k():
    rates = sum(TINY.with_options(drop_path_rate=0.1).drop_path_rates, ())
    np.testing.assert_allclose(rates, [0.1 * k / 12 for k in range(13)])


def test_measured_13_bases_are_drawn_anew_in_training_and_kept_in_evaluation():
    torch.manual_seed(0)
    ham, x = NMF(8, 4), torch.rand(1, 8, 5, 5)
    assert torch.equal(ham.eval()(x), ham(x))
    ham.train()
    assert not torch.equal(ham(x), ham(x))


def test_measured_14_a_zero_input_gives_exactly_zero():
    assert not NMF(8, 4).eval()(torch.zeros(1, 8, 5, 5)).any()


def test_measured_15_six_steps_in_training_seven_in_evaluation_and_gradients_through_all():
    ham = NMF(8, 4)
    assert (ham.train_steps, ham.eval_steps) == (6, 7)
    x = torch.rand(1, 8, 5, 5, requires_grad=True)
    ham.train()(x).sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["semantic_fpn_van_b0", "upernet_van_b1", "upernet_van_b3"])
def test_measured_16_segmenters_build_whose_published_configurations_do_not(name):
    from van.nn.segmenter import Segmenter

    with torch.device("meta"):
        Segmenter(SEGMENTERS[name])


@pytest.mark.network
def test_transformers_tests_09_published_weights_on_the_cats():
    from urllib.request import urlopen

    from PIL import Image

    transformers = pytest.importorskip("transformers")
    from van.hosts import register

    register("transformers")
    name = "Visual-Attention-Network/van-base"
    with urlopen("http://images.cocodataset.org/val2017/000000039769.jpg") as file:
        image = Image.open(file).convert("RGB")
    with pytest.warns(VanNotice, match="It is kept"):
        processor = transformers.AutoImageProcessor.from_pretrained(name, backend="pil")
    model = transformers.AutoModelForImageClassification.from_pretrained(name).eval()
    logits = model(**processor(image, return_tensors="pt")).logits[0].detach()
    np.testing.assert_allclose(logits[:3], [0.1029, -0.0904, -0.6365], rtol=0, atol=1e-4)
