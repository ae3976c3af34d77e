"""The smallest D-FINE that tests need, its targets, and transformers' own model with the same weights."""

import torch
from torch import nn

from van.configs.dfine import DFINES
from van.nn.detection.dfine import DFine

TINY = {
    "embed_dims": (8, 12, 16, 24),
    "depths": (1, 1, 1, 1),
    "mlp_ratios": (2, 2, 2, 2),
    "strides": (4, 1, 2, 2),
    "num_classes": 3,
    "min_size": 64,
    "encoder_channels": 16,
    "encoder_feed_forward": 24,
    "hidden_size": 16,
    "feed_forward": 24,
    "heads": 2,
    "points": (1, 2, 1),
    "queries": 12,
    "bins": 8,
    "quality_hidden": 8,
    "denoising_queries": 0,
    "expansion": 0.5,
    "depth_multiplier": 0.34,
    "decoder_layers": 3,
}
NAMES = {  # ours -> transformers'; the rest is called alike
    "backbone": "model.backbone.model",
    "input_projections": "model.encoder_input_proj",
    "encoder": "model.encoder",
    "memory_projections": "model.decoder_input_proj",
    "memory": "model.enc_output",
    "proposal_classes": "model.enc_score_head",
    "proposal_boxes": "model.enc_bbox_head",
    "noisy_labels": "model.denoising_class_embed",
    "decoder": "model.decoder",
}


def tiny_dfine(seed=0, **options):
    """A model none of whose weights is zero."""
    model = DFine(DFINES["dfine_van_b0"].with_options(**{**TINY, **options}))
    generator = torch.Generator().manual_seed(seed)
    model.reset_parameters(generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("backbone"):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def images(count=2, size=64, seed=1):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def targets(counts=(2, 1), size=64, seed=2):
    generator = torch.Generator().manual_seed(seed)
    result = []
    for count in counts:
        near = torch.rand(count, 2, generator=generator) * size / 2
        sides = torch.rand(count, 2, generator=generator) * size / 3 + 8
        labels = torch.randint(3, (count,), generator=generator)
        result.append({"size": (size, size), "boxes": torch.cat([near, near + sides], 1), "labels": labels})
    return result


def transformers_twin(model, monkeypatch):
    """transformers' own DFineForObjectDetection on our backbone, with the model's weights."""
    from transformers.models.d_fine import modeling_d_fine as theirs

    from van.nn.backbone import Backbone
    from van.nn.detection.dfine import _settings

    class Encoder(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.model = Backbone(model.backbone.config)
            self.intermediate_channel_sizes = self.model.channels

        def forward(self, pixels, mask):
            return [(features, mask) for features in self.model(pixels)]

    monkeypatch.setattr(theirs, "DFineConvEncoder", Encoder)
    twin = theirs.DFineForObjectDetection(_settings(model.config))
    state = {}
    for name, value in model.state_dict().items():
        part, _, rest = name.partition(".")
        state[f"{NAMES[part]}.{rest}"] = value
    for head in ("class_embed", "bbox_embed"):  # which transformers holds twice
        state |= {
            k.removeprefix("model.decoder."): v for k, v in state.items() if k.startswith(f"model.decoder.{head}")
        }
    twin.load_state_dict(state)
    return twin
