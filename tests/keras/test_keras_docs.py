"""What is shown runs: the code of docs/keras.md and of the TensorFlow port's README, and the picture of the network."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from keras_case import BACKEND, keras, small_images
from published import keras_port
from reference_data import state

from van.images.preprocess import IMAGENET
from van.keras import VAN, VANImageConverter

DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "keras.md").read_text()

# The code of the port's README, word for word.
PORT = [
    """
from van_classification_tensorflow import VAN

# Define a custom VAN configuration
model = VAN(
    in_chans=3,
    num_classes=1000,
    embed_dims=[64, 128, 256, 512],
    mlp_ratios=[4, 4, 4, 4],
    drop_rate=0.0,
    drop_path_rate=0.0,
    depths=[3, 4, 6, 3],
    num_stages=4,
    include_top=True,
    classifier_activation="softmax",
    data_format="channels_last",
)
""",
    """
from van_classification_tensorflow import VAN

model = VAN(
    configuration="van_b0", data_format="channels_last", classifier_activation="softmax"
)

model.build((None, 224, 224, 3))
print(model.summary())
""",
    """
# Example
model.compile(
    optimizer="sgd",
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy", "sparse_top_k_categorical_accuracy"],
)
model.fit(x, y)
""",
    """
# Example
from van_classification_tensorflow import VAN

model = VAN(
    configuration="van_b1",
    pretrained=True,
    include_top=True,
    classifier_activation="softmax",
)
y_pred = model(image)
""",
    """
import tensorflow as tf

from van_classification_tensorflow import VAN

# Get Features
inputs = tf.keras.layers.Input(shape=(224, 224, 3), dtype="float32")
features = VAN(configuration="van_b0", pretrained=True, include_top=False)(inputs)


# Custom classification
num_classes = 10
outputs = tf.keras.layers.Dense(num_classes, activation="softmax")(features)
model = tf.keras.models.Model(inputs=inputs, outputs=outputs)
""",
]


@pytest.fixture
def port_files(tmp_path, monkeypatch):
    """The names of the files that are downloaded, each the port's of its size."""
    asked = []

    def fetch(_, url, **options):
        name = url.rsplit("/")[-1]
        asked.append(name)
        return str(keras_port(tmp_path / name, state(f"keras_{Path(name).stem}")))

    monkeypatch.setattr(keras.utils, "get_file", fetch)
    return asked


def test_the_ports_readme_runs(port_files, capsys):
    images = small_images()
    shown, models = {"x": images, "y": np.zeros(2), "image": images}, []
    for code in PORT:
        code = code.replace("van_classification_tensorflow", "van.keras")
        if BACKEND != "tensorflow":
            code = code.replace("import tensorflow as tf", "import keras").replace("tf.keras", "keras")
        exec(compile(code, "README.md", "exec"), shown)
        models.append(shown["model"])
    custom, b0, trained, _, features = models
    assert custom.name == "van_custom"
    assert b0 is trained
    assert "4,113,224" in capsys.readouterr().out
    assert b0.optimizer.iterations == 1
    assert shown["y_pred"].shape == (2, 1000)
    assert features.output_shape == (None, 10)
    assert port_files == ["van_b1.h5", "van_b0.h5"]


def test_presets_are_the_published_weights(port_files):
    assert VAN.from_preset("van_b0").provenance
    assert port_files == ["van_b0.h5"]
    assert type(VAN.from_preset("van_b0", load_weights=False)) is VAN
    assert VANImageConverter.from_preset("openmmlab/van_b4_in21k").record == IMAGENET


def test_the_documents_code_runs(tmp_path, monkeypatch):
    keras_port(tmp_path / "van_b0.h5", state("keras_van_b0"))
    monkeypatch.chdir(tmp_path)
    first, second = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    shown = {}
    exec(compile(first, "keras.md", "exec"), shown)
    assert (shown["model"].config.num_classes, shown["model"].data_format) == (10, "channels_first")
    assert shown["features"].output_shape == (None, 256)
    exec(compile(second, "keras.md", "exec"), shown)
    shapes = {name: tuple(level.shape) for name, level in shown["maps"].items()}
    assert shapes == {"P2": (2, 56, 56, 32), "P3": (2, 28, 28, 64), "P4": (2, 14, 14, 160), "P5": (2, 7, 7, 256)}


def test_plot_model_draws_the_network(tmp_path):
    pytest.importorskip("pydot")
    model = VAN(embed_dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), classifier_activation="softmax")
    graph = keras.utils.model_to_dot(model).to_string()
    for layer in model.layers:
        assert layer.name in graph
    if shutil.which("dot") is None:
        pytest.skip("graphviz, which draws the picture, is not on this machine")
    model.plot_model(tmp_path / "van.png", show_shapes=True)
    assert (tmp_path / "van.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "van.png").stat().st_size > 10_000
