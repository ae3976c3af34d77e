"""The Visual Attention Network as a functional Keras 3 model.

The class follows the conventions of keras.applications and keras-hub where they apply: weights="imagenet",
input_tensor, classes; backbone, pyramid_outputs, presets, from_preset, preprocessor.

Source: arXiv 2202.09741; the arguments of EMalagoli92/VAN-Classification-TensorFlow.
Shapes: N batch, H and W sides of the images, C channels of the last stage, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from ..configs.backbone import name_of
from ..errors import ConfigError
from ..images.preprocess import Preprocess
from . import options as arguments
from . import presets
from . import weights as files
from .build import Ending, network, on_backbone
from .converter import VANImageConverter
from .graph import in_format, names_of
from .layers import PACKAGE
from .parts import Parts


@keras.saving.register_keras_serializable(package=PACKAGE)
class VAN(keras.Model):
    """A Visual Attention Network: images -> (N, K), with `include_top=False` (N, C) or the last map.

    configuration: "van_b0" … "van_b6" or an alias; None for that of the weights, else van_b0.
    backbone: another VAN, whose layers the classifier stands on and shares.
    weights: a file, folder, preset or hub id of any format that this package reads; ema: its averaged weights;
        "imagenet", or pretrained: the published ImageNet-1K weights of the configuration, downloaded. A head of
        another width than `num_classes` is initialised randomly.
    include_top: with the classifier; classifier_activation: of its output `pred`, None for logits.
    pooling: "avg", "max", or None for the map itself.
    embed_dims, mlp_ratios, depths: one entry per stage; num_stages: how many, by default all.
    drop_rate, drop_path_rate: regularisation in training.
    data_format: "channels_last" or "channels_first", of images and maps; None for Keras's setting.
    img_resolution (pixels, or height and width) or input_shape (without the batch): None for any size.
    input_tensor: a Keras tensor to take the images from; the layers before it belong to the model.
    classes: how many, or their names in the head's order; preprocess: how images are prepared, by default the weights'
        own way.
    parts: what was changed in single layers, as `get_config` gives it.
    architecture: other fields of VanConfig (patch_sizes, layer_norm_eps, attention, frozen_stages, …).
    Raises ConfigError or UnknownNameError (ValueErrors) for what cannot be, CheckpointError for weights that misfit.
    Warns with VanNotice about whatever of the weights is left out or made up.
    """

    presets = files.PRESETS

    def __init__(
        self,
        configuration: str | None = None,
        *,
        backbone: VAN | None = None,
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
        input_tensor: Any = None,
        classes: int | Sequence[str] | None = None,
        preprocess: Preprocess | Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        parts: Mapping[str, Any] | None = None,
        **architecture: Any,
    ) -> None:
        if isinstance(configuration, VAN):  # as keras-hub's tasks take it
            configuration, backbone = None, configuration
        flags = {"pretrained": pretrained, "ema": ema, "include_top": include_top, "trainable": trainable}
        arguments.require_types(flags, configuration=configuration, weights=weights, name=name)
        if backbone is not None and not isinstance(backbone, VAN):
            raise ConfigError(f"backbone is a {type(backbone).__name__}; expected a VANBackbone or another VAN")
        if weights == "imagenet":
            weights, pretrained = None, True
        names, num_classes = arguments.classes_of(classes, num_classes)
        ends = {"in_chans": in_chans, "num_classes": num_classes}
        sizes = {"embed_dims": embed_dims, "mlp_ratios": mlp_ratios, "depths": depths}
        rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
        shape: dict[str, Any] = {
            "img_resolution": img_resolution,
            "input_shape": input_shape,
            "input_tensor": input_tensor,
        }
        images = arguments.images_of(data_format=data_format, in_chans=in_chans, **shape)
        given = arguments.given_of({**ends, **sizes, **rates, **architecture}, images)
        activation = arguments.activation_of(classifier_activation)
        record = arguments.preprocess_of(preprocess)
        ending = Ending(include_top, activation, pooling, names, record)
        source: dict[str, Any] = {"weights": weights, "pretrained": pretrained, "ema": ema}
        if backbone is not None:
            settled = {"configuration": configuration, **source, **shape, "data_format": data_format, "dtype": dtype}
            built = on_backbone(backbone, given, ending, {**settled, "num_stages": num_stages})
        else:
            wanted: dict[str, Any] = {
                "configuration": configuration,
                "num_stages": num_stages,
                "given": given,
                **source,
            }
            made = Parts(parts, trainable=trainable or parts is None)
            built = network(ending, images, arguments.policy_of(dtype), made, **wanted)
        super().__init__(built.inputs, built.outputs, name=name or name_of(built.config))
        self._describe(built, pooling, activation, provenance)
        self._set_trainable(trainable, parts)
        if built.checkpoint is not None:
            files.assign(self, built.checkpoint)

    @property
    def include_top(self) -> bool:
        """Whether there is a classifier."""
        return self.config.num_classes > 0

    @property
    def pyramid_outputs(self) -> dict[str, Any]:
        """P2 … P5: symbolic maps after each stage's norm (of strides 4, 8, 16, 32), for a keras.Model of your own."""
        maps = {i: self.parts.layers[f"norm{i + 1}"].output for i in self.config.out_indices}
        return {f"P{i + 2}": in_format(x, self.data_format) for i, x in maps.items()}

    @property
    def backbone(self) -> Any:
        """A model of the same layers without head and pooling: images -> the last map."""
        last = in_format(self.parts.layers[f"norm{self.config.num_stages}"].output, self.data_format)
        return keras.Model(self.input, last, name=f"{self.name}_backbone")

    @property
    def preprocessor(self) -> VANImageConverter | None:
        """The layer that prepares images as the weights were evaluated; None if this is unknown."""
        if self.preprocess is None:
            return None
        return VANImageConverter(**self.preprocess.to_dict(), data_format=self.data_format)

    @classmethod
    def from_preset(cls, preset: str | Path, *, load_weights: bool = True, **options: Any) -> VAN:
        """The model of a preset ("keras/van_b0", see `presets`), of a size's own ("van_b0"), or of any checkpoint.

        preset: also a folder that `save_to_preset` wrote. load_weights: False for the architecture with fresh weights.
        options: as for the class.
        Raises UnknownNameError for a name that is neither; everything else as the class does.
        """
        return presets.load(cls, preset, load_weights, options)

    def save_to_preset(self, folder: str | Path) -> None:
        """Write the folder that `from_preset` reads, in keras-hub's layout; raises CheckpointError where it cannot."""
        presets.save(self, folder)

    def get_config(self) -> dict[str, Any]:
        """Every argument that makes this architecture again, plain and JSON-ready; `parts` has the changed layers."""
        config = self.config.to_dict()
        before = presets.before(self)
        return {
            **{key: config.pop(key) for key in ("embed_dims", "depths", "mlp_ratios")},
            **config,
            "include_top": self.include_top,
            "classifier_activation": self.classifier_activation if "pred" in self.parts.layers else None,
            "pooling": self.pooling,
            "data_format": self.data_format,
            "input_shape": list(self.parts.layers["patch_embed1"].input.shape[1:]),
            "classes": list(self.classes) if self.classes is not None else None,
            "preprocess": self.preprocess.to_dict() if self.preprocess is not None else None,
            "provenance": dict(self.provenance),
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.policy),
            "parts": self.parts.changed(trainable=self.trainable),
            **({"before": keras.saving.serialize_keras_object(before)} if before is not None else {}),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> VAN:
        """The model of `get_config`, with fresh weights."""
        options = {key: value for key, value in config.items() if value is not None or key == "pooling"}
        if "before" in options:
            before = keras.saving.deserialize_keras_object(options.pop("before"), custom_objects)
            options = {**options, "input_tensor": before.output, "input_shape": None}
        return cls(**options)

    def load_weights(self, filepath: str | Path, skip_mismatch: bool = False, **options: Any) -> None:
        """Keras's own files as Keras loads them, every other checkpoint format through this package, all or nothing.

        skip_mismatch: leave tensors of another shape as they are and say which; options: of Keras's own files.
        Raises CheckpointError for what does not fit, ConfigError for options that the format has not.
        """
        if str(filepath).endswith((".weights.h5", ".weights.json", ".keras")):
            super().load_weights(filepath, skip_mismatch=skip_mismatch, **options)
            return
        if options:
            raise ConfigError(
                f"{', '.join(options)}: only for .weights.h5 and .keras, not for {filepath}; leave it out"
            )
        files.load(self, filepath, skip_mismatch)

    def save_weights(self, filepath: str | Path, **options: Any) -> None:
        """Keras's `.weights.h5`, with this package's record in it, so that `van.load` reads it without guessing."""
        super().save_weights(filepath, **options)
        if str(filepath).endswith(".weights.h5"):
            files.add_record(self, filepath)

    def plot_model(self, *args: Any, **options: Any) -> Any:
        """keras.utils.plot_model of this model; it needs pydot and graphviz."""
        return keras.utils.plot_model(self, *args, **options)

    def export(self, filepath: str | Path, format: str = "tf_saved_model", **options: Any) -> None:  # noqa: A002
        """As Keras exports; for ONNX, where Keras cannot, the error names `van export`, which can."""
        if format == "tf_saved_model" and keras.backend.backend() == "jax":
            # for serving; TensorFlow cannot trace the gradient of a custom gradient
            options.setdefault("jax2tf_kwargs", {"with_gradient": False})
        try:
            super().export(filepath, format=format, **options)
        except Exception as error:  # whatever the exporters raise
            if format != "onnx":
                raise
            raise ConfigError(
                f"Keras cannot export this model to ONNX ({' '.join(str(error).split())[:200]}); use van.keras.save("
                f"model, 'model.safetensors', format='van') and then: van export model.safetensors {filepath}"
            ) from error

    def _describe(self, built: Any, pooling: str | None, activation: Any, provenance: Mapping[str, Any] | None) -> None:
        """What is known about the network besides its layers."""
        self.config, self.data_format, self.policy, self.parts = (
            built.config,
            built.data_format,
            built.policy,
            built.parts,
        )
        self.dtype_policy = self.policy
        self.pooling, self.classifier_activation = (
            pooling,
            keras.activations.serialize(keras.activations.get(activation)),
        )
        self.classes, self.preprocess = built.classes, built.preprocess
        self.provenance = dict(provenance or built.provenance)

    def _set_trainable(self, trainable: bool, parts: Mapping[str, Any] | None) -> None:
        """As `parts` has it, layer by layer; without, all alike but for the stages up to `frozen_stages`."""
        if parts is not None:
            self._trainable = trainable  # the property would set all layers, which were made as they are to be
            return
        if not trainable:
            self.trainable = False
        frozen = tuple(start for s in range(self.config.frozen_stages + 1) for start in names_of(s))
        for name, layer in self.parts.layers.items():
            if name.startswith(frozen):
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


# Keras's older whole-model files (.h5) go by the plain name
for _class in (VAN, VANBackbone):
    keras.saving.get_custom_objects().setdefault(_class.__name__, _class)
