"""What `before/expected.json` holds, taken by the public API and the command line alone: `before/make.py` asks the
code of version 0.1, `tests/test_before.py` the code of today. Inputs come from formulas."""

import contextlib
import csv
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

import van
from van.cli import main

TIMES = ("seconds", "images_per_s")


def images(height: int = 48, width: int = 56) -> torch.Tensor:
    """(1, 3, H, W), float32."""
    count = 3 * height * width
    return torch.from_numpy(np.sin(np.arange(count) * 0.37).astype(np.float32).reshape(1, 3, height, width))


def picture(height: int = 60, width: int = 50) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    channels = [127 + 120 * np.sin(a * x / 9 + b * y / 7) for a, b in ((1, 0.5), (0.3, 1), (0.7, 0.7))]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def model_facts(path: Path) -> dict:
    """What a checkpoint computes (see `output_facts`), as it is and optimised, and all that travels with it."""
    model = van.load(path)
    facts = {"config": json.loads(json.dumps(model.config.to_dict()))}
    facts["classes"] = None if model.classes is None else list(model.classes)
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    facts["state"] = [len(shapes), hashlib.sha256(json.dumps(shapes).encode()).hexdigest()]
    with torch.inference_mode():
        facts["output"] = output_facts(model(images()))
        facts["optimised"] = output_facts(van.optimize(van.load(path))(images()))
    return facts | (predictor_facts(path) if model.num_classes else {})


def output_facts(output: torch.Tensor) -> dict:
    """Logits or features (1, N); of maps (1, N, H, W) their means and deviations per channel."""
    if output.ndim == 2:
        return {"values": output[0].tolist()}
    channels = output[0].double().flatten(1)
    return {"size": list(output.shape), "means": channels.mean(1).tolist(), "deviations": channels.std(1).tolist()}


def predictor_facts(path: Path) -> dict:
    result = van.Predictor(path)(picture())
    if hasattr(result, "mask"):
        return {
            "shape": list(result.mask.shape),
            "areas": (np.bincount(result.mask.ravel()) / result.mask.size).tolist(),
        }
    return {"top": [[label, index, chance] for label, index, chance in result.top]}


def run_facts(folder: Path) -> dict:
    """A run's table; of its weights the mean and the deviation of every tensor; its files."""
    with (folder / "metrics.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    table = [{name: value for name, value in row.items() if name not in TIMES} for row in rows]
    with safe_open(folder / "model.safetensors", "np") as file:
        tensors = {key: file.get_tensor(key).astype(np.float64) for key in file.keys()}  # noqa: SIM118  no dictionary
    weights = {key: [float(tensor.mean()), float(tensor.std())] for key, tensor in tensors.items()}
    return {
        "table": table,
        "weights": weights,
        "files": sorted(path.name for path in folder.iterdir() if path.is_file()),
    }


def resumed_facts(folder: Path) -> dict:
    command("train", "--resume", folder)
    return run_facts(folder)


def command(*words: object) -> str:
    """What `van WORDS` prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        code = main([str(word) for word in words])
    assert code in (0, 1), (words, output.getvalue())  # 1: some findings of `van doctor`
    return output.getvalue()


def json_of(root: Path, work: Path) -> dict:
    """JSON documents of the command line about the files in `root`."""
    picture().save(work / "picture.png")
    for axis, name in enumerate(("across", "along")):
        (work / "data" / name).mkdir(parents=True)
        for number in range(4):
            shifted = np.roll(np.asarray(picture(40 + number, 40)), number, axis)
            Image.fromarray(shifted).save(work / "data" / name / f"{number}.png")
    commands = {
        "info classifier": ("info", root / "classifier.safetensors", "--json"),
        "info light_ham": ("info", root / "light_ham.safetensors", "--json"),
        "info classifier.onnx": ("info", root / "classifier.onnx", "--json"),
        "info light_ham.onnx": ("info", root / "light_ham.onnx", "--json"),
        "info last.ckpt": ("info", root / "segmentation_interrupted" / "last.ckpt", "--json"),
        "info van_b0": ("info", "van_b0", "--json"),
        "info light_ham_van_b0": ("info", "light_ham_van_b0", "--json"),
        "predict classifier": ("predict", root / "classifier.safetensors", work / "picture.png", "--format", "json"),
        "predict light_ham": (
            *("predict", root / "light_ham.safetensors", work / "picture.png", "--format", "json"),
            *("--out", work / "masks"),
        ),
    }
    writing = {
        "eval classification": ("eval", root / "classification_finished", "--data", "digits", "--per-class"),
        "eval segmentation": ("eval", root / "segmentation_finished", "--data", "scenes"),
        "export": ("export", root / "classifier.safetensors", work / "x.pt2"),
        "doctor images": ("doctor", work / "data"),
        "doctor scenes": ("doctor", "scenes", "--limit", "2"),
    }
    found = {name: json.loads(command(*words)) for name, words in commands.items()}
    for name, words in writing.items():
        command(*words, "--json", work / f"{name}.json")
        found[name] = json.loads((work / f"{name}.json").read_text())
    return found


def command_facts(root: Path, work: Path) -> dict:
    """The keys of every JSON document of the command line, and the scores in those of `van eval`."""
    documents = json_of(root, work)
    scores = {}
    for name in ("eval classification", "eval segmentation"):
        (result,) = documents[name]["results"]
        scores[name] = {
            key: value
            for key, value in result.items()
            if isinstance(value, float) and key not in ("seconds", "images_per_second")
        }
    return {"keys": {name: key_paths(document) for name, document in documents.items()}, "scores": scores}


def key_paths(value: object, where: str = "") -> list[str]:
    """Every key of nested JSON as a path; the items of a list share one."""
    if isinstance(value, dict):
        below = [path for key, each in value.items() for path in key_paths(each, f"{where}/{key}")]
    elif isinstance(value, list):
        below = [path for each in value for path in key_paths(each, f"{where}[]")]
    else:
        return [where]
    return sorted({where, *below} - {""})
