"""What starting costs: the packages that an import or a command loads, which is what takes the time."""

import json
import subprocess
import sys

import pytest
from PIL import Image

import van

LOADED = "import json, sys; sys.stderr.write(json.dumps([*sys.modules]))"
HEAVY = {"torch", "torchvision", "numpy", "PIL", "keras", "timm", "transformers", "safetensors", "huggingface_hub"}


def loaded_by(code):
    """Modules in a process of its own once it has run `code`, those of the interpreter itself left out."""
    run = subprocess.run([sys.executable, "-c", f"{code}\n{LOADED}"], capture_output=True, text=True, check=True)
    before = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    return {*json.loads(run.stderr)} - {*json.loads(before.stderr)}


def packages(modules):
    return {module.partition(".")[0] for module in modules} - {*sys.stdlib_module_names}


def test_importing_the_package_loads_itself_only():
    modules = loaded_by("import van")
    assert packages(modules) == {"van"}
    assert {module for module in modules if module.startswith("van")} == {"van", "van.moved"}
    assert len(modules) < 40, sorted(modules)


def test_importing_the_command_line_loads_no_library():
    assert packages(loaded_by("import van.cli")) == {"van"}


def test_names_of_models_need_no_library():
    assert packages(loaded_by("import van; assert 'van_b0' in van.list_models()")) == {"van"}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--version"],
        ["list"],
        ["list", "--weights"],
        ["info"],
        ["info", "van_b0"],
        ["info", "van-tiny", "--json"],
        ["info", "upernet_van_b6"],
        ["help", "list"],
        ["train"],
        ["train", "finetune", "--data", "x", "--print_config"],
    ],
    ids=" ".join,
)
def test_commands_that_compute_nothing_load_no_heavy_library(arguments):
    code = f"""
from van.cli import main
try:
    assert main({arguments!r}) == 0
except SystemExit as end:
    assert not end.code
"""
    assert not packages(loaded_by(code)) & HEAVY


def test_only_the_verb_that_is_called_is_imported():
    modules = loaded_by("from van.cli import VERBS, main; main(['list', 'van_b0'])")
    from van.cli import VERBS

    verbs = {f"van.cli.{module}" for module, _ in VERBS.values()}
    assert modules & verbs == {"van.cli.list"}


SLOW = {
    "torch._dynamo",
    "torch._inductor",
    "sympy",
    "torchvision",
    "transformers",
    "timm",
    "pytorch_lightning",
    "scipy",
}
SLOW |= {"matplotlib", "pandas", "huggingface_hub", "onnxruntime", "openvino", "keras", "tensorflow", "sklearn", "ray"}
SLOW |= {"van.recipes", "van.train", "van.exporting", "van.serve.batch_work", "van.keras", "van.tools"}


@pytest.mark.parametrize("option", [[], ["--optimize"]], ids=["as it is", "optimised"])
def test_a_prediction_loads_nothing_that_it_does_not_use(tmp_path, option):
    model = van.create_model("van_b0", seed=0, num_classes=3, embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1))
    van.save(model, tmp_path / "tiny.safetensors")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.jpg")
    arguments = ["predict", str(tmp_path / "tiny.safetensors"), str(tmp_path / "red.jpg"), *option]
    modules = loaded_by(f"from van.cli import main; assert main({arguments!r}) == 0")
    assert "torch" in modules
    assert not modules & SLOW
