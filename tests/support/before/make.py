"""Writes fixtures.tar.xz and expected.json beside it, with the code of version 0.1 (commit 9043f6f):

git worktree add ../before 9043f6f
PYTHONPATH=../before/src:tests/support OMP_NUM_THREADS=1 python tests/support/before/make.py
"""

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import onnx
import torch
from before_facts import command_facts, model_facts, predictor_facts, resumed_facts

import van

HERE = Path(__file__).resolve().parent
CLASSES = ("ant", "bee", "cat", "dog", "élan")
PALETTE = ((1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12), (13, 14, 15))
TINY = {"embed_dims": (4, 8), "depths": (1, 1), "mlp_ratios": (1, 1), "patch_sizes": (3, 3), "strides": (4, 2)}
TINY |= {"kernel_size": 9, "dilation": 2}
TINY4 = {"embed_dims": (4, 4, 4, 8), "depths": (1, 1, 1, 1), "mlp_ratios": (1, 1, 1, 1), "patch_sizes": (3, 3, 3, 3)}
TINY4 |= {"kernel_size": 9, "dilation": 2}
HAM = {"channels": 32, "ham_channels": 32, "ham_rank": 2, "auxiliary": False}
HEADS = {
    "light_ham": HAM,
    "hamnet": {**HAM, "neck_channels": 8},
    "upernet": {"channels": 8, "auxiliary": True, "auxiliary_channels": 8},
    "semantic_fpn": {"channels": 8, "neck_channels": 8},
}
COMMON = {"threads": 1, "progress": "none", "keep": "last", "device": "cpu"}
RUNS = {
    "classification": [
        "digits_van_b0", *("--trainer.ema_decay", "0.9", "--augment.mixup", "0.8", "--model.drop_path_rate", "0.1"),
        *("--epochs", "2", "--batch-size", "128"),
    ],
    "segmentation": [
        "light_ham_digits", *("--steps", "12", "--trainer.val_every", "6", "--batch-size", "2"),
        *("--schedule.warmup_steps", "2", "--data.val_images", "4", "--data.scene_size", "32"),
        *("--augment.crop", "[32,32]", "--model.drop_path_rate", "0.1", "--model.drop_rate", "0.1"),
        *("--optim.lr", "1e-2", "--optim.name", "sgd", "--optim.momentum", "0.9"),
        *("--loss.class_weights", "[0.02,1,1,1,1,1,1,1,1,1,1]"),
    ],
}  # fmt: skip
CUT_AT = {"classification": 14, "segmentation": 8}  # in the second epoch; between two validations
CUT = """
import os, runpy, signal, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
at, steps = int(sys.argv.pop(1)), []
def hook(*_):
    steps.append(1)
    if len(steps) == at:
        os.kill(os.getpid(), signal.SIGTERM)
register_optimizer_step_post_hook(hook)
runpy.run_module("van", run_name="__main__", alter_sys=True)
"""


def drawn(model, seed=0):
    """The model in evaluation mode with every parameter and statistic away from its initial value: multiples of 1/64,
    which compress well."""
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        with torch.no_grad():
            if name.endswith("bases"):  # of a factorisation: not negative
                tensor.uniform_(0.1, 1, generator=draw)
            elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5, generator=draw)
            elif "scale" in name.rsplit(".", 1)[-1]:
                tensor.uniform_(0.2, 0.8, generator=draw)
            elif tensor.ndim > 1:
                tensor.normal_(0, tensor[0].numel() ** -0.5, generator=draw)
            else:
                tensor.normal_(0, 0.1, generator=draw)
            tensor.mul_(64).round_().div_(64)
    return model.eval()


def make_checkpoints(root):
    classifier = drawn(van.create_model("van_b0", num_classes=5, **TINY4))
    classifier.classes = CLASSES
    statistics = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    classifier.preprocess = type(classifier.preprocess)(size=(32, 40), crop_pct=1.0, **statistics)
    classifier.provenance = {"recipe": "none", "scores": {"val/top1": 12.5}}
    for layout, name in {
        "van": "classifier.safetensors", "official": "classifier-official.pth",
        "mmpretrain": "classifier-mmpretrain.pth", "transformers": "classifier-hf", "keras": "classifier.weights.h5",
    }.items():  # fmt: skip
        van.save(classifier, root / name, format=layout)
    van.save(
        drawn(van.create_model("van_b0", num_classes=0, attention="sigmoid", **TINY)), root / "backbone.safetensors"
    )
    for method, options in HEADS.items():
        model = drawn(van.create_model(f"{method}_van_b0", num_classes=5, **TINY4, **options))
        inference = {"inference": {"resize": None, "window": 48, "stride": 32}}
        model.__dict__.update(classes=CLASSES, palette=PALETTE, provenance=inference)
        van.save(model, root / f"{method}.safetensors")
        van.save(model, root / f"{method}-mmseg.pth", format="mmseg")


def export(root, name):
    """An ONNX file without the stack traces that each node carries."""
    van.export(root / f"{name}.safetensors", root / f"{name}.onnx")
    model = onnx.load(root / f"{name}.onnx")
    graph = model.graph
    for each in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del each.metadata_props[:]
        each.doc_string = ""
    del graph.value_info[:]
    onnx.save(model, root / f"{name}.onnx")


def train(root, task, *, cut=False):
    name = f"{task}_{'interrupted' if cut else 'finished'}"
    sizes = TINY if task == "classification" else TINY4 | HAM
    sections = {"model": sizes, "trainer": {**COMMON, "out": name}, "track": {"tensorboard": False}}
    words = [
        word
        for section, settings in sections.items()
        for key, value in settings.items()
        for word in (f"--{section}.{key}", value if isinstance(value, str) else json.dumps(value))
    ]
    arguments = ["train", *RUNS[task], "--workers", "0", *words]
    command = ["-c", CUT, str(CUT_AT[task]), *arguments] if cut else ["-m", "van", *arguments]
    done = subprocess.run([sys.executable, *command], cwd=root, check=False)
    assert done.returncode == (75 if cut else 0), done.returncode
    unneeded = ["previous.ckpt", "best.ckpt"] + ([] if cut else ["last.ckpt", "model-without-ema.safetensors"])
    for file in unneeded:
        (root / name / file).unlink(missing_ok=True)
    make_anonymous(root / name, root)


def make_anonymous(run, root):
    """Nothing of the machine stays in a run's files."""
    file = run / "environment.json"
    environment = json.loads(file.read_text()) | {"platform": "Linux-6.1-x86_64-with-glibc2.36"}
    file.write_text(json.dumps(environment, indent=2, ensure_ascii=False) + "\n")
    if (run / "last.ckpt").exists():
        state = torch.load(run / "last.ckpt", weights_only=True)
        torch.save(elsewhere(state, str(root)), run / "last.ckpt")


def elsewhere(value, root):
    if isinstance(value, str):
        return value.replace(root, "/runs")
    if type(value) in (list, tuple):
        return type(value)(elsewhere(each, root) for each in value)
    if type(value) is dict:
        return {elsewhere(key, root): elsewhere(each, root) for key, each in value.items()}
    if hasattr(value, "items"):  # a state dict: an OrderedDict
        for key, each in value.items():
            value[key] = elsewhere(each, root)
    return value


def make_files(root):
    make_checkpoints(root)
    for name in ("classifier", "light_ham"):
        export(root, name)
    for task in RUNS:
        train(root, task)
        train(root, task, cut=True)


def expected(root, work):
    models = [path for path in sorted(root.iterdir()) if path.suffix in (".safetensors", ".pth", ".h5")]
    models += [root / "classifier-hf", root / "classification_finished", root / "segmentation_finished"]
    facts = {path.name: model_facts(path) for path in models}
    facts |= {path.name: predictor_facts(path) for path in sorted(root.glob("*.onnx"))}
    facts |= {"commands": command_facts(root, work)}
    for path in sorted(root.glob("*_interrupted")):
        shutil.copytree(path, work / path.name)
        facts[path.name] = resumed_facts(work / path.name)
    return facts


def pack(root, archive):
    with tarfile.open(archive, "w:xz", preset=9) as file:
        for path in sorted(root.rglob("*"), key=lambda path: (path.suffix, path)):
            if path.is_file():
                entry = file.gettarinfo(path, str(path.relative_to(root)))
                entry.uid = entry.gid = entry.mtime = 0
                entry.uname = entry.gname = ""
                with path.open("rb") as content:
                    file.addfile(entry, content)


def rounded(value):
    """Eight digits of every number: those of float32."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.8g}") if isinstance(value, float) else value


def main():
    assert not Path(van.__file__).with_name("tasks").exists(), "this is not the code of version 0.1"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory() as work:
        make_files(Path(root))
        pack(Path(root), HERE / "fixtures.tar.xz")
        facts = expected(Path(root), Path(work))
    (HERE / "expected.json").write_text(json.dumps(rounded(facts), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
