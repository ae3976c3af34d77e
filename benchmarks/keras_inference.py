"""Milliseconds per batch of van.keras on this CPU, per backend and data format, against the TensorFlow port.

    python benchmarks/keras_inference.py --peer-python PEER/bin/python [--backends tensorflow jax torch] [--quick]

The port, `van-classification-tensorflow` 1.0.3, imports with Keras 2 only and wants an environment of its own, of
Python 3.11 or older: pip install 'tensorflow-cpu==2.15.*' tensorflow-addons==0.23.0 tensorflow-probability==0.23.0,
then pip install --no-deps van-classification-tensorflow. Ours runs with this Python, which needs the backends asked
for.

Each side is a process that computes and times in itself, in turn, round by round (benchmarks/interleaved.py). The
weights are a file that the port itself saved; before anything is timed, all have to give the same logits. Ways to run:
"call" (`model(x)`, op by op) and "predict" (`model.predict_on_batch(x)`, as a graph).
Medians over the rounds; the ratio is the median of the port's time over ours of the same data format and way, and
every one has to be 1 at least, the default (TensorFlow, channels_last) 1.5. Exit code 1 when one is not. Writes
docs/results.json; --quick writes and requires nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import interleaved
from interleaved import Ask

PORT = "peer"
BACKENDS = ("tensorflow", "jax", "torch")
FORMATS, WAYS = ("channels_last", "channels_first"), ("call", "predict")
DEFAULT = ("tensorflow", "channels_last")
REQUIRED, REQUIRED_OF_DEFAULT = 1.0, 1.5
TOLERANCE = 1e-4  # of logits, as a part of the largest: float32 rounding
BURST_S = 0.3  # a timing is the best of a burst of this length
# As the table in docs/keras.md has them.
ROWS = {PORT: "the port", "tensorflow": "TensorFlow", "jax": "JAX", "torch": "torch"}
COLUMNS = {"call": "`model(x)`", "predict": "`predict_on_batch`"}


def main() -> int:
    """Measure, print, record; returns the exit code."""
    options = _options()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        weights = str(Path(folder) / "van_b0.h5")
        sides = {name: stack.enter_context(_worker(options, name)) for name in (PORT, *options.backends)}
        versions = {name: ask(do="versions") for name, ask in sides.items()}
        print(*(f"{name}: {version}" for name, version in versions.items()), sep="\n", flush=True)
        sides[PORT](do="write", path=weights)
        for data_format in options.formats:
            for ask in sides.values():
                ask(do="load", path=weights, data_format=data_format, size=options.size)
            for batch in options.batches:
                _require_same(sides, batch)
                for way in WAYS:
                    rows += _rows(_measure(sides, way, batch, options.rounds), data_format, way, batch)
                    _print(rows[-len(sides) :])
    missed = [] if options.quick else list(_missed(rows))
    print(*(missed or ["nothing is required" if options.quick else "every requirement is met"]), sep="\n")
    if options.record and not options.quick:
        _record(rows, versions, options)
    return 1 if missed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--size", type=int, default=224, help="side of the images")
    parser.add_argument("--rounds", type=int, default=7)
    interleaved.add_options(parser, sides=(PORT, *BACKENDS), peer="van-classification-tensorflow")
    options = parser.parse_args()
    if options.worker:
        sys.exit(_serve(options))
    if options.peer_python is None:
        parser.error("--peer-python is needed: the port does not install beside this package")
    if options.quick:
        options.size, options.rounds = 64, 2
    return options


# --- the processes


def _worker(options: argparse.Namespace, side: str) -> AbstractContextManager[Ask]:
    """The process of a side."""
    environment = {
        "TF_NUM_INTRAOP_THREADS": str(options.threads),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": "tensorflow" if side == PORT else side,
    }
    return interleaved.worker(__file__, options, side, environment=environment)


def _serve(options: argparse.Namespace) -> int:
    if options.worker == PORT:
        return interleaved.serve(_Port())
    return interleaved.serve(_Ours(options.worker), options.threads if options.worker == "torch" else None)


class _Worker:
    """What every side answers."""

    model: Any
    shape: tuple[int, int, int]

    def logits(self, batch: int) -> list[float]:
        """All logits of the images that the batch stands for, as predicted."""
        return self.model.predict_on_batch(self.images(batch)).flatten().tolist()

    def time(self, way: str, batch: int) -> float:
        """Milliseconds per batch, the best of a burst after one run."""
        images = self.images(batch)
        tensor = self.tensor(images)
        run = (lambda: self.host(self.model(tensor, training=False))) if way == "call" else None
        run = run or (lambda: self.model.predict_on_batch(images))
        run()
        spent: list[float] = []
        while sum(spent) < BURST_S:
            start = time.perf_counter()
            run()
            spent.append(time.perf_counter() - start)
        return 1e3 * min(spent)

    def images(self, batch: int) -> Any:
        """The same random images in every process, in the data format."""
        import numpy as np

        size, last = max(self.shape), self.shape[-1] == 3
        x = np.random.default_rng(batch).standard_normal((batch, size, size, 3)).astype("float32")
        return x if last else np.ascontiguousarray(x.transpose(0, 3, 1, 2))

    def tensor(self, images: Any) -> Any:
        """The images as the framework has them."""
        import tensorflow as tf

        return tf.constant(images)

    def host(self, output: Any) -> Any:
        """The output, computed to its end."""
        return output.numpy()


class _Port(_Worker):
    """The TensorFlow port."""

    def versions(self) -> str:
        import tensorflow as tf

        return f"van-classification-tensorflow 1.0.3, tensorflow {tf.__version__}"

    def write(self, path: str) -> None:
        """A network that looks trained, in the port's own file."""
        import numpy as np

        self.load("", "channels_last", 64)
        draw = np.random.default_rng(0)
        for weight in self.model.weights:
            name, shape = weight.name, weight.shape
            if "gamma" in name or "moving_variance" in name:
                weight.assign(draw.uniform(0.5, 1.5, shape))
            elif "layer_scale" in name:
                weight.assign(draw.uniform(0.05, 0.15, shape))
            elif "kernel" not in name:
                weight.assign(draw.normal(0, 0.1, shape))
        self.model.save_weights(path)

    def load(self, path: str, data_format: str, size: int) -> None:
        from van_classification_tensorflow import VAN

        self.shape = (size, size, 3) if data_format == "channels_last" else (3, size, size)
        self.model = VAN(configuration="van_b0", data_format=data_format)
        self.model.build((None, *self.shape))
        if path:
            self.model.load_weights(path)


class _Ours(_Worker):
    """This package's model on one of Keras's backends."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        if backend == "torch":
            import torch

            torch.set_grad_enabled(False)

    def versions(self) -> str:
        from importlib.metadata import version

        name = "tensorflow-cpu" if self.backend == "tensorflow" else self.backend
        return f"van {__import__('van').__version__}, keras {version('keras')}, {self.backend} {version(name)}"

    def load(self, path: str, data_format: str, size: int) -> None:
        from van.keras import VAN

        self.shape = (size, size, 3) if data_format == "channels_last" else (3, size, size)
        self.model = VAN(weights=path, data_format=data_format)

    def tensor(self, images: Any) -> Any:
        import keras

        return keras.ops.convert_to_tensor(images)

    def host(self, output: Any) -> Any:
        import keras

        return keras.ops.convert_to_numpy(output)


# --- measuring


def _require_same(sides: dict[str, Ask], batch: int) -> None:
    logits = {name: ask(do="logits", batch=batch) for name, ask in sides.items()}
    scale = max(map(abs, logits[PORT]))
    for name, values in logits.items():
        gap = max(abs(a - b) for a, b in zip(values, logits[PORT], strict=True)) / scale
        if not gap < TOLERANCE:
            raise SystemExit(f"{name}: logits differ from the port's by {gap:.2g} of the largest")


def _measure(sides: dict[str, Ask], way: str, batch: int, rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, ask in sides.items():
            times[name].append(ask(do="time", way=way, batch=batch))
    return times


def _rows(times: dict[str, list[float]], data_format: str, way: str, batch: int) -> list[dict[str, Any]]:
    rows = []
    for name, own in times.items():
        ratio = median(a / b for a, b in zip(times[PORT], own, strict=True))
        where = {"side": name, "data_format": data_format, "way": way, "batch": batch}
        rows.append({**where, "ms": median(own), "ratio": ratio})
    return rows


def _missed(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        default = (row["side"], row["data_format"]) == DEFAULT
        required = REQUIRED_OF_DEFAULT if default else REQUIRED
        if row["side"] != PORT and row["ratio"] < required:
            yield f"MISSED: {row}: required {required}"


def _print(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        where = f"{row['side']:<10}  {row['data_format']:<14}  {row['way']:<7}  batch {row['batch']}"
        print(f"{where}  {row['ms']:8.1f} ms  {row['ratio']:6.2f}x", flush=True)


def _record(rows: list[dict[str, Any]], versions: dict[str, str], options: argparse.Namespace) -> None:
    import ledger

    entries = []
    for row in rows:
        where = f"measured/keras/van_b0/batch{row['batch']}/{row['data_format']}/{row['way']}/{row['side']}"
        kind = row["data_format"].replace("_", " ")
        what = f"VAN-B0, batch {row['batch']}, {options.size}², float32, {kind}, {COLUMNS[row['way']]}, "
        what += f"{options.threads} threads, {options.rounds} rounds: {ROWS[row['side']]}"
        common = {"versions": {ROWS[side]: versions[side] for side in dict.fromkeys((row["side"], PORT))}}
        shown = f"{row['ms']:.0f}" + ("" if row["side"] == PORT else f" ({row['ratio']:.1f}×)")
        cell = {"table": "keras", "row": ROWS[row["side"]], "column": f"{COLUMNS[row['way']]}, {kind}", "shown": shown}
        if row["batch"] != 1:
            cell = {"table": None}
        entries.append(
            {"id": f"{where}/ms", "what": what, "value": round(row["ms"], 2), "unit": "ms", **cell, **common}
        )
        if row["side"] != PORT:
            ratio = {"what": f"{what}, speed over the port", "value": round(row["ratio"], 2), "unit": "×"}
            entries.append({"id": f"{where}/ratio", "table": None, **ratio, **common})
    ledger.record(entries, command="python benchmarks/keras_inference.py --peer-python PYTHON")


if __name__ == "__main__":
    sys.exit(main())
