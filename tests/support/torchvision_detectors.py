"""Small detectors of this package, torchvision's own with the same weights, and images and objects for both."""

from collections import OrderedDict

import torch
from torch import nn

from van import create_model
from van.nn import Backbone

TINY = {
    "embed_dims": (8, 16, 24, 32),
    "depths": (1, 1, 1, 1),
    "mlp_ratios": (2, 2, 2, 2),
    "channels": 32,
    "num_classes": 3,
    "min_size": 64,
    "max_size": 96,
    "smallest_anchor": 8,
    "score_threshold": 0.0,
    "detections_per_image": 7,
}
SMALL_HEADS = {"proposals": 50, "hidden_channels": 24, "mask_channels": 16}
NAMES = {
    "retinanet_van_b0": TINY,
    "atss_van_b0": TINY,
    "gfl_van_b0": TINY,
    "mask_rcnn_van_b0": TINY | SMALL_HEADS,
    "cascade_mask_rcnn_van_b0": TINY | SMALL_HEADS,
}
_FEW = {key: TINY[key] for key in ("embed_dims", "depths", "mlp_ratios", "num_classes")}
# Those on transformers' heads.
TRANSFORMERS_NAMES = {
    "dfine_van_b0": _FEW
    | {"min_size": 64, "encoder_channels": 32, "encoder_feed_forward": 48, "hidden_size": 32, "feed_forward": 48}
    | {"decoder_layers": 2, "heads": 4, "queries": 20, "denoising_queries": 8},
    "mask2former_van_b0": _FEW
    | {"hidden_size": 32, "mask_size": 32, "heads": 4, "encoder_layers": 1, "encoder_feed_forward": 48}
    | {"decoder_layers": 2, "feed_forward": 48, "queries": 10, "num_things": 2},
}
TRANSFORMERS_NAMES["mask2former_instance_van_b0"] = {
    key: value for key, value in TRANSFORMERS_NAMES["mask2former_van_b0"].items() if key != "num_things"
}
ALL_NAMES = NAMES | TRANSFORMERS_NAMES


def tiny(name, **options):
    """A small model with weights that differ enough for its objects to do so."""
    model = create_model(name, seed=0, **ALL_NAMES[name] | options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if not key.startswith("backbone"):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model.eval()


class _Pyramid(nn.Module):
    """Backbone and torchvision's own pyramid, as version 0.1 of this package gave them to torchvision's detectors."""

    def __init__(self, config, indices, extra):
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork

        super().__init__()
        self.out_channels = config.channels
        self.backbone = Backbone(config.backbone.with_options(out_indices=indices))
        self.fpn = FeaturePyramidNetwork(list(self.backbone.channels), config.channels, extra)

    def forward(self, images):
        return self.fpn(OrderedDict((str(i), x) for i, x in enumerate(self.backbone(images))))


def torchvisions_own(config):
    """torchvision's RetinaNet or MaskRCNN of a configuration; RetinaNet's classes are counted from 0, as ours are."""
    from torchvision.models.detection import MaskRCNN, RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

    retina = config.method == "retinanet"
    octave = tuple(2 ** (k / 3) for k in range(3)) if retina else (1.0,)
    sizes = tuple(tuple(int(config.smallest_anchor * 2**level * step) for step in octave) for level in range(5))
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    images = {"min_size": config.min_size, "max_size": config.max_size}
    images |= {"image_mean": list(config.mean), "image_std": list(config.std)}
    classes = config.num_classes + 1
    if retina:
        extra = LastLevelP6P7(config.backbone.embed_dims[-1], config.channels)
        extra.use_P5 = False
        return RetinaNet(
            _Pyramid(config, (1, 2, 3), extra),
            config.num_classes,
            **images,
            anchor_generator=anchors,
            score_thresh=config.score_threshold,
            detections_per_img=config.detections_per_image,
        ).eval()
    return MaskRCNN(
        _Pyramid(config, (0, 1, 2, 3), LastLevelMaxPool()),
        num_classes=None,
        **images,
        rpn_anchor_generator=anchors,
        rpn_post_nms_top_n_test=config.proposals,
        box_head=TwoMLPHead(config.channels * 49, config.hidden_channels),
        box_predictor=FastRCNNPredictor(config.hidden_channels, classes),
        mask_head=MaskRCNNHeads(config.channels, (config.mask_channels,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(config.mask_channels, config.mask_channels, classes),
        box_score_thresh=config.score_threshold,
        box_detections_per_img=config.detections_per_image,
    ).eval()


def older_state(state):
    """A state dict of this package's detectors under the keys of torchvision's own."""
    pieces = (
        ("pyramid.laterals.", "backbone.fpn.inner_blocks.", ".0"),
        ("pyramid.outputs.", "backbone.fpn.layer_blocks.", ".0"),
    )
    out = {}
    for key, value in state.items():
        for ours, theirs, inner in pieces:
            if key.startswith(ours):
                number, leaf = key.removeprefix(ours).split(".")
                key = f"{theirs}{number}{inner}.{leaf}"
                break
        else:
            key = key.replace("pyramid.extras.0", "backbone.fpn.extra_blocks.p6")
            key = key.replace("pyramid.extras.1", "backbone.fpn.extra_blocks.p7")
            key = key.replace("backbone.stages", "backbone.backbone.stages")
        out[key] = value
    return out


def objects(count=2, size=(64, 80)):
    """Two objects in each image, labels from 1, as torchvision takes them."""
    boxes = torch.tensor([[4.0, 6.0, 30.0, 40.0], [20.0, 10.0, 60.0, 50.0]])
    masks = torch.zeros(2, *size, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    return [{"boxes": boxes.clone(), "labels": torch.tensor([1, 3]), "masks": masks.clone()} for _ in range(count)]


def targets(count=2, size=(64, 80)):
    """The same for `losses`: labels from 0, the size of the image."""
    return [{**each, "labels": each["labels"] - 1, "size": size} for each in objects(count, size)]


def noise(*shape, seed=0):
    """Random images on the 0 … 1 scale."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def state_of_version_0_1(model):
    """The state dict of a detector as version 0.1 had it: RetinaNet's classifier had a column for the background."""
    state = older_state(model.state_dict())
    for leaf in ("weight", "bias") if model.config.method == "retinanet" else ():
        key = f"head.classification_head.cls_logits.{leaf}"
        rows = state[key].unflatten(0, (9, -1))  # (anchors of a place, classes, …)
        state[key] = torch.cat([torch.full_like(rows[:, :1], 3.0), rows], 1).flatten(0, 1)
    return state
