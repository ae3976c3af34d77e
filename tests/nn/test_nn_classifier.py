"""The classifier: head, features, test-time pooling, copying, keys as a contract."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from networks import gap, images, tiny
from torch import nn

import van
from van.errors import ConfigError, UnknownNameError
from van.nn import TestTimePool


class TestHead:
    def test_order_is_last_map_mean_linear_mmpretrain_measured_10(self):
        model = tiny().eval()
        last = model.backbone(images())[-1]
        assert torch.equal(model.forward_features(images()), last)
        want = F.linear(last.mean((2, 3)), model.head.weight, model.head.bias)
        assert torch.allclose(model(images()), want, atol=1e-6)

    def test_no_classes_no_head_measured_01(self):
        model = tiny(num_classes=0).eval()
        assert torch.equal(model(images()), model.forward_features(images()).mean((2, 3)))
        assert model(images()).shape == (2, model.num_features)
        assert not any(key.startswith("head") for key in model.state_dict())

    def test_pooled_features_before_the_head(self):
        model = tiny().eval()
        pooled = model.forward_head(model.forward_features(images()), pre_logits=True)
        assert torch.allclose(model.head(pooled), model(images()))

    def test_dropout_before_the_head(self):
        model = tiny(head_drop_rate=0.5).train()
        features = torch.ones(64, 32, 2, 2)
        pooled = model.forward_head(features, pre_logits=True)
        assert (pooled == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
        assert (model.eval().forward_head(features, pre_logits=True) == 1).all()

    def test_reset_measured_02(self):
        model = tiny().double().eval()
        model.classes = ("a", "b", "c", "d", "e")
        model.reset_classifier(10)
        assert model(images(dtype=torch.float64)).shape == (2, 10)  # on the model's device, in its precision
        assert (model.num_classes, model.config.num_classes, model.head.training) == (10, 10, False)
        assert model.classes is None
        assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.2)
        assert (model.head.bias == 0).all()
        model.reset_classifier(0)
        assert (model.num_classes, model.config.num_classes) == (0, 0)
        assert model(images(dtype=torch.float64)).shape == (2, 32)
        model.reset_classifier(3)
        assert model.config == tiny(num_classes=3).config

    def test_reset_to_an_impossible_width_changes_nothing(self):
        model = tiny()
        head = model.head
        with pytest.raises(ConfigError, match="num_classes is -1"):
            model.reset_classifier(-1)
        assert model.head is head

    def test_linear_probe(self):
        model = tiny()
        model.freeze_backbone()
        assert {key for key, p in model.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
        before = copy.deepcopy(model.state_dict())
        model.train()(images()).sum().backward()
        assert model.head.weight.grad is not None
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class TestTestTimePooling:
    def test_at_the_training_size_it_is_the_classifier(self):
        model, x = tiny().eval(), images(2, 3, 224, 224)
        assert torch.allclose(TestTimePool(model)(x), model(x), atol=1e-5)

    def test_smaller_images_too(self):
        model, x = tiny().eval(), images(2, 3, 64, 100)
        assert torch.allclose(TestTimePool(model)(x), model(x), atol=1e-5)

    @pytest.mark.parametrize("size", [(288, 256), (192, 320)])
    def test_larger_images_head_on_every_window_then_mean_and_max(self, size):
        model, x = tiny().eval(), images(2, 3, *size)
        features = model.forward_features(x)
        side, rows, columns = 7, features.shape[2], features.shape[3]
        windows = [
            model.head(features[:, :, i : i + side, j : j + side].mean((2, 3)))
            for i in range(max(rows - side, 0) + 1)
            for j in range(max(columns - side, 0) + 1)
        ]
        stack = torch.stack(windows)
        want = (stack.mean(0) + stack.max(0).values) / 2
        assert torch.allclose(TestTimePool(model)(x), want, atol=1e-5)
        assert gap(want, model(x)) > 1e-3

    def test_pool_size_of_another_training_size(self):
        model, x = tiny().eval(), images(1, 3, 160, 160)
        assert torch.allclose(TestTimePool(model, pool_size=5)(x), model(x), atol=1e-5)
        assert not torch.allclose(TestTimePool(model, pool_size=4)(x), model(x), atol=1e-4)

    def test_no_window_is_an_error(self):
        with pytest.raises(ConfigError, match="pool_size is 0; expected the side"):
            TestTimePool(tiny(), pool_size=0)


class TestCreateModel:
    def test_it_is_a_plain_module_in_training_mode(self):
        model = van.create_model("van_tiny", num_classes=10, seed=0)
        assert isinstance(model, nn.Module)
        assert model.training
        assert (model.num_classes, model.num_features) == (10, 256)
        assert (model.classes, model.provenance) == (None, {})

    def test_unknown_names_mmpretrain_01(self):
        with pytest.raises(UnknownNameError, match=r"unknown model 'van_b9'; did you mean 'van_b\d'\? known: van_b0"):
            van.create_model("van_b9")
        with pytest.raises(UnknownNameError, match="unknown architecture option 'depth'; did you mean 'depths'"):
            van.create_model("van_b0", depth=(1, 1, 1, 1))

    def test_incomplete_architecture_mmpretrain_02(self):
        with pytest.raises(ConfigError, match="depths has 4 entries, embed_dims has 3"):
            van.create_model("van_b0", embed_dims=(8, 16, 24))


# The names are a contract: files on disk carry them.
BLOCK = (
    "scale1 scale2 norm1.* norm2.* attention.proj_in.+ attention.spatial.near.+ attention.spatial.far.+ "
    "attention.spatial.mix.+ attention.proj_out.+ feed_forward.expand.+ feed_forward.depthwise.+ "
    "feed_forward.project.+"
)
LEAVES = {"+": ("weight", "bias"), "*": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}


def expected_keys(depths):
    patterns = ["head.+"]
    for s, depth in enumerate(depths):
        stage = f"backbone.stages.{s}"
        patterns += [f"{stage}.patch_embed.conv.+", f"{stage}.patch_embed.norm.*", f"{stage}.norm.+"]
        patterns += [f"{stage}.blocks.{j}.{part}" for j in range(depth) for part in BLOCK.split()]
    return [p[:-1] + leaf if p[-1] in LEAVES else p for p in patterns for leaf in LEAVES.get(p[-1], ("",))]


def test_state_keys():
    assert sorted(van.create_model("van_b0").state_dict()) == sorted(expected_keys((3, 3, 5, 2)))


class TestCopies:
    def test_pickle_and_deepcopy(self):
        model = tiny(frozen_stages=0, drop_path_rate=0.1)
        model.classes = tuple("abcde")
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert twin.classes == model.classes
            assert twin.config == model.config
            assert twin.train().backbone.stages[0].training is False
            assert torch.equal(twin.eval()(images()), model.eval()(images()))
            twin.head.weight.data.zero_()
            assert model.head.weight.any()

    def test_state_dict_round_trip(self, tmp_path):
        torch.save(tiny().state_dict(), tmp_path / "state.pt")
        fresh = tiny(seed=1)
        fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True), strict=True)
        assert torch.equal(fresh.eval()(images()), tiny().eval()(images()))

    def test_materialised_from_meta(self):
        with torch.device("meta"):
            model = tiny()
        model = model.to_empty(device="cpu")
        model.load_state_dict(tiny().state_dict())
        assert torch.equal(model.eval()(images()), tiny().eval()(images()))

    def test_synchronised_norms_keep_the_rules(self):
        model = nn.SyncBatchNorm.convert_sync_batchnorm(tiny(norm_eval=True, frozen_stages=0))
        norms = [module for module in model.modules() if isinstance(module, nn.SyncBatchNorm)]
        assert len(norms) == 14
        assert not any(norm.training for norm in model.train().modules() if isinstance(norm, nn.SyncBatchNorm))
        assert torch.equal(model.eval()(images()), tiny().eval()(images()))
