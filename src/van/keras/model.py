"""The Visual Attention Network as a functional Keras 3 model.

Its layers are named as in the TensorFlow port, but that Keras 3 allows no slash: patch_embed1, block1_0, …, norm4,
head, pred. The class follows keras-hub's habits where they apply: pyramid_outputs, presets, from_preset, preprocessor.

Source: arXiv 2202.09741; the arguments of EMalagoli92/VAN-Classification-TensorFlow.
Shapes: N batch, H and W sides of the images, C channels of the last stage, K classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from ..checkpoints import Checkpoint
from ..checkpoints.reading import for_channels
from ..errors import ConfigError, UnknownNameError, VanNotice
from ..preprocess import OFFICIAL, Preprocess
from ..variants import VanConfig, name_of, resolve
from . import options as arguments
from . import weights as files
from .converter import VANImageConverter
from .layers import PACKAGE, Block, PatchEmbed


@keras.saving.register_keras_serializable(package=PACKAGE)
class VAN(keras.Model):
    """A Visual Attention Network: images -> (N, K), with `include_top=False` (N, C) or the last map.

    configuration: "van_b0" … "van_b6" or an alias; None for that of the weights, else van_b0.
    weights: a file, folder, preset or hub id of any format that this package reads; ema: its averaged weights;
        pretrained: the published ImageNet-1K weights of the configuration, downloaded. A head of another width than
        `num_classes` starts afresh.
    include_top: with the classifier; classifier_activation: of its output `pred`, None for logits.
    pooling: "avg", "max", or None for the map itself.
    embed_dims, mlp_ratios, depths: one entry per stage; num_stages: how many, by default all.
    drop_rate, drop_path_rate: regularisation in training.
    data_format: "channels_last" or "channels_first", of images and maps; None for Keras's setting.
    img_resolution (pixels, or height and width) or input_shape (without the batch): None for any size.
    classes: names in the head's order; preprocess: how images are prepared, by default the weights' own way.
    architecture: other fields of VanConfig (patch_sizes, layer_norm_eps, attention, frozen_stages, …).
    Raises ConfigError or UnknownNameError (ValueErrors) for what cannot be, CheckpointError for weights that misfit.
    Warns with VanNotice about whatever of the weights is left out or made up.
    """

    presets = files.PRESETS

    def __init__(
        self,
        configuration: str | None = None,
        *,
        pretrained: bool = False,
        weights: str | Path | None = None,
        ema: bool = False,
        include_top: bool = True,
        classifier_activation: Any = None,
        pooling: str | None = "avg",
        num_classes: int | None = None,
        in_chans: int | None = None,
        embed_dims: Sequence[int] | None = None,
        mlp_ratios: Sequence[float] | None = None,
        depths: Sequence[int] | None = None,
        num_stages: int | None = None,
        drop_rate: float | None = None,
        drop_path_rate: float | None = None,
        data_format: str | None = None,
        img_resolution: int | Sequence[int] | None = None,
        input_shape: Sequence[int | None] | None = None,
        classes: Sequence[str] | None = None,
        preprocess: Preprocess | Mapping[str, Any] | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        **architecture: Any,
    ) -> None:
        data_format = arguments.data_format_of(data_format)
        sides, channels = arguments.sides_of(img_resolution, input_shape, data_format)
        sizes = {"embed_dims": embed_dims, "mlp_ratios": mlp_ratios, "depths": depths}
        ends = {"in_chans": in_chans, "num_classes": num_classes}
        rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
        given = arguments.given_of({**ends, **sizes, **rates, **architecture}, channels, classes)
        checkpoint = _checkpoint(configuration, num_stages, given, weights, pretrained, ema)
        config = _config(configuration, num_stages, given, checkpoint, include_top)
        _check(config, include_top, classifier_activation, pooling, classes)
        policy = keras.dtype_policies.get(dtype) if dtype is not None else keras.config.dtype_policy()
        images = _images(config, sides, data_format)
        outputs = _layers(images, config, pooling, classifier_activation, data_format, policy)
        super().__init__(images, outputs, name=name or name_of(config), trainable=trainable)
        self.dtype_policy, self.config, self.data_format, self.pooling = policy, config, data_format, pooling
        self.classifier_activation = keras.activations.serialize(keras.activations.get(classifier_activation))
        self.classes = tuple(classes) if classes is not None else _classes(checkpoint, config)
        self.preprocess = _preprocess(preprocess, checkpoint, config, sides)
        self.provenance = dict(checkpoint.provenance) if checkpoint else {}
        self._freeze()
        if checkpoint is not None:
            files.assign(self, checkpoint)

    @property
    def include_top(self) -> bool:
        """Whether there is a classifier."""
        return self.config.num_classes > 0

    @property
    def pyramid_outputs(self) -> dict[str, Any]:
        """P2 … P5: symbolic maps after each stage's norm (of strides 4, 8, 16, 32), for a keras.Model of your own."""
        maps = {i: self.get_layer(f"norm{i + 1}").output for i in self.config.out_indices}
        return {f"P{i + 2}": _in_format(x, self.data_format) for i, x in maps.items()}

    @property
    def backbone(self) -> Any:
        """A model of the same layers without head and pooling: images -> the last map."""
        last = _in_format(self.get_layer(f"norm{self.config.num_stages}").output, self.data_format)
        return keras.Model(self.input, last, name=f"{self.name}_backbone")

    @property
    def preprocessor(self) -> VANImageConverter | None:
        """The layer that prepares images as the weights were evaluated; None where nothing tells how."""
        if self.preprocess is None:
            return None
        return VANImageConverter(**self.preprocess.to_dict(), data_format=self.data_format)

    @classmethod
    def from_preset(cls, preset: str | Path, *, load_weights: bool = True, **options: Any) -> VAN:
        """The model of a preset ("keras/van_b0", see `presets`), of a size's own ("van_b0"), or of any checkpoint.

        load_weights: False for the architecture of a preset with fresh weights. options: as for the class.
        Raises UnknownNameError for a name that is neither; everything else as the class does.
        """
        if Path(preset).exists():
            if not load_weights:
                raise ConfigError(f"{preset} is a file; load_weights=False is for presets, give a configuration")
            return cls(weights=preset, **options)
        row = files.row_of(str(preset))
        return cls(weights=row.name, **options) if load_weights else cls(row.model, **options)

    def get_config(self) -> dict[str, Any]:
        """Every argument that makes this architecture again, plain and JSON-ready."""
        config = self.config.to_dict()
        images = self.inputs[0].shape[1:]
        return {
            **{key: config.pop(key) for key in ("embed_dims", "depths", "mlp_ratios")},
            **config,
            "include_top": self.include_top,
            "classifier_activation": self.classifier_activation if self.include_top else None,
            "pooling": self.pooling,
            "data_format": self.data_format,
            "input_shape": list(images),
            "classes": list(self.classes) if self.classes is not None else None,
            "preprocess": self.preprocess.to_dict() if self.preprocess is not None else None,
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> VAN:
        """The model of `get_config`, with fresh weights."""
        return cls(**{key: value for key, value in config.items() if value is not None or key == "pooling"})

    def load_weights(self, filepath: str | Path, **options: Any) -> None:
        """Keras's own files as Keras loads them, every other checkpoint format through this package, all or nothing."""
        if str(filepath).endswith((".weights.h5", ".weights.json", ".keras")):
            super().load_weights(filepath, **options)
            return
        checkpoint = files.read(filepath, {})
        files.require_fit(self, checkpoint)
        files.assign(self, checkpoint)

    def save_weights(self, filepath: str | Path, **options: Any) -> None:
        """Keras's `.weights.h5`, with this package's record in it, so that `van.load` reads it without guessing."""
        super().save_weights(filepath, **options)
        if str(filepath).endswith(".weights.h5"):
            files.add_record(self, filepath)

    def plot_model(self, *args: Any, **options: Any) -> Any:
        """keras.utils.plot_model of this model; it needs pydot and graphviz."""
        return keras.utils.plot_model(self, *args, **options)

    def _freeze(self) -> None:
        """Stages up to `frozen_stages` are not trained."""
        frozen = tuple(start for s in range(self.config.frozen_stages + 1) for start in _names(s))
        for layer in self.layers:
            if layer.name.startswith(frozen):
                layer.trainable = False


VANImageClassifier = VAN


@keras.saving.register_keras_serializable(package=PACKAGE)
class VANBackbone(VAN):
    """A VAN whose output is the last map; `pyramid_outputs` has all of them. Arguments as in VAN."""

    def __init__(
        self,
        configuration: str | None = None,
        *,
        include_top: bool = False,
        pooling: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(configuration, include_top=include_top, pooling=pooling, **options)


def _checkpoint(
    configuration: str | None,
    num_stages: int | None,
    given: dict[str, Any],
    weights: Any,
    pretrained: bool,
    ema: bool,
) -> Checkpoint | None:
    """What the arguments ask to be loaded."""
    if pretrained and weights is not None:
        raise ConfigError(f"pretrained and weights={str(weights)!r} were both given; leave one out")
    if pretrained:
        configuration = resolve(configuration or arguments.DEFAULT)
        weights = files.pretrained_row(configuration).name
    if weights is None:
        if ema:
            raise ConfigError("ema chooses between the weights of a file, and none is given; leave it out")
        return None
    return files.read(weights, arguments.known_of(configuration, num_stages, given), ema=ema)


def _config(
    configuration: str | None,
    num_stages: int | None,
    given: dict[str, Any],
    checkpoint: Checkpoint | None,
    include_top: bool,
) -> VanConfig:
    """The configuration of the model; says what becomes of the checkpoint's head."""
    wanted = given.get("num_classes") if include_top else 0
    if checkpoint is None:
        config = arguments.config_of(configuration, num_stages, given)
        return config if wanted is None else config.with_options(num_classes=wanted)
    has = checkpoint.config.num_classes
    if wanted is None and not has:
        raise ConfigError("these weights have no head; give num_classes for a fresh one, or include_top=False")
    notes = [note for note in checkpoint.notes if "num_batches_tracked" not in note]  # which Keras has not
    if wanted and wanted != has:
        old = f"the file's head of {has} classes is left out" if has else "the file has no head"
        notes.append(f"{old}, a fresh one of {wanted} classes is put on")
    for note in notes:
        warnings.warn(note, VanNotice, stacklevel=4)
    return checkpoint.config if wanted is None else checkpoint.config.with_options(num_classes=wanted)


def _check(config: VanConfig, include_top: bool, activation: Any, pooling: str | None, classes: Any) -> None:
    if pooling is not None and pooling not in arguments.POOLINGS:
        raise UnknownNameError.of("pooling", str(pooling), [*arguments.POOLINGS, "None"])
    if config.num_classes and pooling is None:
        raise ConfigError("pooling=None gives the map, which no classifier takes; use 'avg', or include_top=False")
    if not config.num_classes and activation is not None:
        reason = "num_classes=0" if include_top else "include_top=False"
        raise ConfigError(f"classifier_activation={activation!r} belongs to the head; leave it out with {reason}")
    if classes is not None and len(classes) != config.num_classes:
        raise ConfigError(f"{len(classes)} names of classes for a head of {config.num_classes}; give one for each")


def _images(config: VanConfig, sides: tuple[int | None, int | None], data_format: str) -> Any:
    """The input of the graph, in the model's data format."""
    last = (*sides, config.in_chans)
    return keras.Input(last if data_format == "channels_last" else (config.in_chans, *sides), name="images")


def _layers(images: Any, config: VanConfig, pooling: str | None, activation: Any, data_format: str, policy: Any) -> Any:
    """The graph from the images to the output."""
    x = images
    for s in range(config.num_stages):
        x = _stage(x, s, config, data_format if s == 0 else "channels_last", policy)
    if pooling is None:
        return _in_format(x, data_format)
    pool = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}[pooling]
    x = pool(data_format="channels_last", dtype=policy, name="pool")(x)
    if config.num_classes:
        # float32 in mixed precision, as Keras advises for what a loss is computed of
        kind = policy.variable_dtype if policy.name.startswith("mixed") else policy
        if config.head_drop_rate:
            x = keras.layers.Dropout(config.head_drop_rate, dtype=policy, name="head_drop")(x)
        start = keras.initializers.TruncatedNormal(stddev=0.02)
        x = keras.layers.Dense(config.num_classes, kernel_initializer=start, dtype=kind, name="head")(x)
        if activation is not None:
            x = keras.layers.Activation(activation, dtype=kind, name="pred")(x)
    return x


def _stage(x: Any, s: int, config: VanConfig, data_format: str, policy: Any) -> Any:
    """Patch embedding, blocks, LayerNorm -> (N, H, W, C)."""
    channels, norms = config.embed_dims[s], {"norm_eval": config.norm_eval, "dtype": policy}
    patch, stride = config.patch_sizes[s], config.strides[s]
    x = PatchEmbed(channels, patch, stride, data_format=data_format, name=f"patch_embed{s + 1}", **norms)(x)
    for j, rate in enumerate(config.drop_path_rates[s]):
        x = Block(
            channels,
            config.hidden_dim(s),
            near=config.near_kernel,
            far=config.far_kernel,
            dilation=config.dilation,
            attention=config.attention,
            drop_rate=config.drop_rate,
            drop_path_rate=rate,
            layer_scale_init=config.layer_scale_init,
            name=f"block{s + 1}_{j}",
            **norms,
        )(x)
    return keras.layers.LayerNormalization(epsilon=config.layer_norm_eps, dtype=policy, name=f"norm{s + 1}")(x)


def _names(s: int) -> tuple[str, ...]:
    """How the names of a stage's layers begin."""
    return f"patch_embed{s + 1}", f"block{s + 1}_", f"norm{s + 1}"


def _in_format(x: Any, data_format: str) -> Any:
    """(N, H, W, C) in the model's data format."""
    return x if data_format == "channels_last" else keras.layers.Permute((3, 1, 2))(x)


def _classes(checkpoint: Checkpoint | None, config: VanConfig) -> tuple[str, ...] | None:
    same = checkpoint is not None and checkpoint.config.num_classes == config.num_classes
    return checkpoint.classes if checkpoint is not None and same else None


def _preprocess(
    preprocess: Any, checkpoint: Checkpoint | None, config: VanConfig, sides: tuple[int | None, int | None]
) -> Preprocess | None:
    """The given record; else the weights', at the model's own size where it has one."""
    if preprocess is not None:
        return preprocess if isinstance(preprocess, Preprocess) else Preprocess.from_dict(preprocess)
    own = checkpoint.preprocess if checkpoint is not None else for_channels(OFFICIAL, config.in_chans)
    return own if own is None or None in sides else own.with_overrides(size=sides)
