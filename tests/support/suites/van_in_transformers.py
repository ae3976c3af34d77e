"""transformers' common tests of models and backbones on VAN; run from the root of transformers' source distribution.

tests/test_host_suites.py calls this; the file's name keeps the default run from collecting it.
"""

import sys
import types
import unittest

import torch

# Two folders of transformers' tests are not in its source distribution; nothing in them concerns a vision model.
for name, mixin in (("exporters.test_export", "ExportTesterMixin"), ("generation.test_utils", "GenerationTesterMixin")):
    sys.modules[f"tests.{name.partition('.')[0]}"] = types.ModuleType("a folder that is not there")
    sys.modules[f"tests.{name}"] = types.ModuleType("a file that is not there")
    setattr(sys.modules[f"tests.{name}"], mixin, type(mixin, (), {}))

from tests.test_backbone_common import BackboneTesterMixin  # noqa: E402
from tests.test_modeling_common import ModelTesterMixin  # noqa: E402

import van  # noqa: E402

van.register("transformers")

from transformers.models.auto import modeling_auto  # noqa: E402

from van.hosts.transformers import VanBackbone, VanConfig, VanForImageClassification, VanModel  # noqa: E402

# The tests choose what they do, labels for instance, by these tables of names.
modeling_auto.MODEL_MAPPING_NAMES["van"] = "VanModel"
modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES["van"] = "VanForImageClassification"
modeling_auto.MODEL_FOR_BACKBONE_MAPPING_NAMES["van"] = "VanBackbone"


class VanTester:
    """A small network and a batch for it, as transformers' tests ask for them."""

    batch_size, num_labels, is_training = 3, 4, True

    def __init__(self, parent: unittest.TestCase) -> None:
        self.parent = parent

    def get_config(self) -> VanConfig:
        return VanConfig(
            image_size=32,
            hidden_sizes=[8, 12, 16, 24],
            depths=[1, 1, 2, 1],
            mlp_ratios=[2, 2, 2, 2],
            num_labels=self.num_labels,
            out_features=["stage2", "stage3", "stage4"],
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[VanConfig, dict[str, torch.Tensor]]:
        return self.get_config(), {"pixel_values": torch.randn(self.batch_size, 3, 32, 32)}


class TestVan(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (VanModel, VanForImageClassification, VanBackbone)
    has_attentions = False  # maps of attention: a gate of large kernels has none between tokens
    test_resize_embeddings = False

    def setUp(self) -> None:
        self.model_tester = VanTester(self)

    @unittest.skip("an image has no embedding of tokens")
    def test_model_get_set_embeddings(self) -> None: ...

    def test_hidden_states_output(self) -> None:
        """Maps where a language model has sequences: one per stage, and for the backbone the stem's before them."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            maps = model_class(config).eval()(**inputs, output_hidden_states=True).hidden_states
            shapes = [(width, 8 >> i) for i, width in enumerate(config.hidden_sizes)]
            stem = [shapes[0]] if model_class is VanBackbone else []
            assert [(x.shape[1], x.shape[2]) for x in maps] == stem + shapes


class TestVanBackbone(BackboneTesterMixin, unittest.TestCase):
    all_model_classes = (VanBackbone,)
    config_class = VanConfig
    has_attentions = False

    def setUp(self) -> None:
        self.model_tester = VanTester(self)
