"""VAN's configuration in transformers: the original's fields under the original's names, and what it lacked.

Shape legend: one entry per stage in every sequence.
"""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin

from ...checkpoints import timm_config
from ...checkpoints.transformers import FIELDS
from ...configs import backbone as variants

RECORD = "van"  # our own description of a file, in its config.json; see checkpoints/reading.py
# Fields that the original lacks, under our names.
OWN_FIELDS = ("kernel_size", "dilation", "attention")


@strict
class VanConfig(BackboneConfigMixin, PreTrainedConfig):
    """A Visual Attention Network as transformers configures one; the defaults are those of van-base (B2).

    hidden_sizes, depths, mlp_ratios, patch_sizes, strides: one entry per stage.
    kernel_size, dilation, attention: as in van.VanConfig; the original knows their defaults only.
    legacy: train with the original's drop path, one rate per stage (its first numbers of the schedule over all
        blocks), instead of one per block.
    out_features, out_indices: of the backbone, among stem, stage1, …; the stem is the first patch embedding's map.
    """

    model_type = "van"

    image_size: int | list[int] | tuple[int, int] = 224
    num_channels: int = 3
    patch_sizes: list[int] | tuple[int, ...] = (7, 3, 3, 3)
    strides: list[int] | tuple[int, ...] = (4, 2, 2, 2)
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 320, 512)
    depths: list[int] | tuple[int, ...] = (3, 3, 12, 3)
    mlp_ratios: list[float | int] | tuple[float | int, ...] = (8, 8, 4, 4)
    hidden_act: str = "gelu"
    initializer_range: float | int = 0.02
    layer_norm_eps: float = 1e-6
    layer_scale_init_value: float | int = 1e-2
    drop_path_rate: float | int = 0.0
    dropout_rate: float | int = 0.0
    kernel_size: int = 21
    dilation: int = 3
    attention: str = "lka"
    legacy: bool = False
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        record = kwargs.pop(RECORD, None)
        for name in timm_config.FIELDS:  # they describe the folder that was read, as our record does
            kwargs.pop(name, None)
        if isinstance(record, dict):
            self._adopt(record.get("config") or {})
        self.stage_names = ["stem", *(f"stage{i}" for i in range(1, len(self.depths) + 1))]
        self.set_output_features_output_indices(
            out_features=kwargs.pop("out_features", None), out_indices=kwargs.pop("out_indices", None)
        )
        super().__post_init__(**kwargs)
        if self.hidden_act != "gelu":
            raise ValueError(f"hidden_act is {self.hidden_act!r}; the Visual Attention Network has 'gelu' only")
        self.to_van()  # raises ConfigError for impossible values

    def _adopt(self, stated: dict[str, Any]) -> None:
        """Take what our record has beyond the original's fields; the record itself is not kept.

        It describes the file it came with: weights trained further or saved with another head would contradict it.
        """
        for name in OWN_FIELDS:
            if name in stated:
                setattr(self, name, stated[name])

    def to_van(self) -> variants.VanConfig:
        """The same network in this package's terms."""
        values = {ours: getattr(self, theirs) for ours, theirs in FIELDS.items()}
        values |= {name: getattr(self, name) for name in OWN_FIELDS}
        return variants.VanConfig(**values, num_classes=self.num_labels)

    @classmethod
    def from_van(cls, config: variants.VanConfig, **options: Any) -> VanConfig:
        """The configuration of a network of this package; options: further fields (`out_features`, `id2label`, …)."""
        values = config.to_dict()
        fields = {theirs: values[ours] for ours, theirs in FIELDS.items()} | {name: values[name] for name in OWN_FIELDS}
        return cls(**{"num_labels": config.num_classes, **fields, **options})
