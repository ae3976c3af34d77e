"""The rooms of the package: imports go down only, never in a circle, and some rooms stay light."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "van"

# From the top floor to the cellar; a room may import rooms on lower floors and, within a floor, only itself.
FLOORS = [
    {"cli"},
    {"serve"},
    {"tools"},
    {"train", "exporting"},
    {"hosts"},
    {"inference"},
    {"tasks"},
    {"models"},
    {"data", "keras"},
    {"nn", "checkpoints"},
    {"ops", "images"},
    {"recipes"},
    {"configs"},
    {"files"},
    {"errors"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# What is offered to the outside: public names, `python -m van`, earlier import paths.
ENTRANCES = {"", "__main__", "moved"}
MOST_FOLDERS, MOST_LOOSE_MODULES = 16, 6

# What may be imported at module level in a room besides the standard library and the package itself.
ALLOWED_AT_IMPORT = {
    "errors": set(),
    "files": set(),
    "configs": set(),
    "recipes": set(),
    "images": {"numpy", "PIL"},
    "ops": {"torch"},
    "nn": {"torch"},
    "models": {"torch", "numpy"},
    "cli": {"jsonargparse", "rich"},
    "keras": {"keras", "numpy"},
    "checkpoints": {"numpy", "torch", "safetensors", "huggingface_hub"},
}
# The modules of the checkpoint room that know torch, and the hub's client.
TORCH_IN_CHECKPOINTS, HUB_IN_CHECKPOINTS = {"torch_pickle"}, {"hub"}
# The one module of the ops that knows Triton; imported when a GPU first needs it.
TRITON_IN_OPS = {"triton_kernels"}
# The modules of networks that subclass torchvision's; imported when such a network is built.
TORCHVISION_IN_NN = {"proposals", "roi_heads", "cascade"}


@functools.cache
def modules(source: Path = SOURCE) -> dict[str, Path]:
    """Dotted name below van -> file; a package goes by its own name."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def room_of(module: str) -> str:
    return module.split(".")[0]


def walk_runtime(node: ast.AST):
    """Every node that runs; what is imported for annotations alone is left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from walk_runtime(child)


@functools.cache
def imports_of(module: str, source: Path = SOURCE) -> set[str]:
    """Modules of this package that a module imports anywhere, also inside functions."""
    known = modules(source)
    path = known[module]
    package = ["van", *path.relative_to(source).parent.parts]
    found = set()
    for node in walk_runtime(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names = [*base, *(node.module.split(".") if node.module else [])]
            if names[:1] == ["van"]:
                target = ".".join(names[1:])
                inner = {f"{target}.{alias.name}".lstrip(".") for alias in node.names}
                found |= {name if name in known else target for name in inner}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("van.") for alias in node.names if alias.name.startswith("van.")}
    return found - {module, ""}


def upward(module: str, source: Path = SOURCE) -> list[str]:
    """What a module imports that does not lie below it."""
    room = room_of(module)
    others = {other for other in imports_of(module, source) if room_of(other) != room}
    return [other for other in sorted(others) if FLOOR_OF.get(room_of(other), -1) <= FLOOR_OF[room]]


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or by way of others (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        path.append(module)
        for other in edges.get(module, ()):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in path:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            group = path[path.index(module) :]
            del path[path.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in edges:
        if module not in index:
            visit(module)
    return found


def top_level_imports(path: Path) -> set[str]:
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"van"}


def test_there_are_few_rooms():
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    loose = {path.stem for path in SOURCE.glob("*.py")}
    assert len(folders) <= MOST_FOLDERS, sorted(folders)
    assert len(loose) <= MOST_LOOSE_MODULES, sorted(loose)
    homeless = (folders | loose) - set(FLOOR_OF) - {"__init__", "__main__", "moved"}
    assert not homeless, f"no floor for {sorted(homeless)}: give one in {Path(__file__).name}"


@pytest.mark.parametrize("module", sorted(set(MODULES) - ENTRANCES))
def test_imports_go_down(module):
    assert not upward(module)


def test_no_modules_import_each_other_in_a_circle():
    assert circles({module: imports_of(module) for module in MODULES if module not in ENTRANCES}) == []


@pytest.mark.parametrize("module", sorted(set(MODULES) - ENTRANCES))
def test_heavy_packages_stay_where_they_are_used(module):
    room, name = room_of(module), module.rpartition(".")[2]
    found = top_level_imports(MODULES[module])
    if room in ALLOWED_AT_IMPORT:
        triton = {"triton"} if room == "ops" and name in TRITON_IN_OPS else set()
        vision = {"torchvision"} if room == "nn" and name in TORCHVISION_IN_NN else set()
        assert found <= ALLOWED_AT_IMPORT[room] | triton | vision
    if room == "checkpoints":
        assert "torch" not in found or name in TORCH_IN_CHECKPOINTS
        assert "huggingface_hub" not in found or name in HUB_IN_CHECKPOINTS


# What tasks share in a folder of its own: no task, and it knows none.
SHARED_BY_TASKS = {"coco": {"detection", "instance", "panoptic"}}


def strangers(module: str, source: Path = SOURCE) -> set[str]:
    """Other tasks that a module of a task's folder imports, and shared folders that are not for it."""
    inside = [path for path in (source / "tasks").iterdir() if path.is_dir() and path.name != "__pycache__"]
    folders = {path.name for path in inside}
    own = module.split(".")[1]
    others = {name.split(".")[1] for name in imports_of(module, source) if name.startswith("tasks.")} & folders
    return (
        {other for other in others - {own} if own not in SHARED_BY_TASKS.get(other, set())} if own in folders else set()
    )


def test_tasks_do_not_know_each_other():
    found = {module: strangers(module) for module in MODULES if module.startswith("tasks.")}
    assert sum(module.endswith(".task") for module in found) > 4
    assert {module: others for module, others in found.items() if others} == {}


@pytest.mark.parametrize(
    ("importing", "imported"), [("detection", "instance"), ("coco", "panoptic"), ("classification", "coco")]
)
def test_a_task_that_knows_another_would_be_caught(tmp_path, importing, imported):
    for folder in (importing, imported):
        (tmp_path / "tasks" / folder).mkdir(parents=True)
        (tmp_path / "tasks" / folder / "task.py").write_text("")
    (tmp_path / "tasks" / importing / "x.py").write_text(f"from ..{imported}.task import y\n")
    assert strangers(f"tasks.{importing}.x", tmp_path) == {imported}


# What asks which task something is of; only `tasks` and `configs` may.
BRANCHES = re.compile(
    r"""isinstance\([^\n]*\b(?:Segmenter|Classifier|VanConfig|SegmenterConfig|ClassificationData|SegmentationData
        |Prediction|MaskPrediction|MaskEvaluation|(?!BaseRecipe)\w*Recipe
        |ObjectConfig|DetectorConfig|InstanceSegmenterConfig|PanopticSegmenterConfig|ObjectModel|ObjectPrediction
        |PanopticPrediction|CocoEvaluation|ObjectData|PanopticData)\b
    |\.task\s*(?:==|!=|\bin\b|\bis\b)
    |[=!]=\s*["'](?:classification|segmentation|detection|instance)["']
    |["'](?:classification|segmentation|detection|instance)["']\s*[=!]=
    |\btask\w*\s*[=!]=
    |\b_?(?:is|are)_(?:classifier|segmenter|detector)s?\b""",
    re.VERBOSE,
)


def branches(path: Path) -> int:
    return sum(BRANCHES.search(line) is not None for line in path.read_text().splitlines())


def test_nothing_outside_asks_which_task_it_is():
    outside = {module: path for module, path in MODULES.items() if room_of(module) not in {"tasks", "configs"}}
    assert [module for module, path in outside.items() if branches(path)] == []


@pytest.mark.parametrize(
    "line",
    [
        "if isinstance(model, Segmenter):",
        "isinstance(recipe, nn.Module | SegmentationRecipe)",
        'if told.task != "segmentation":',
        'return "classification" == name',
        "if is_segmenter(source):",
        "isinstance(config, DetectorConfig)",
        'if task == "panoptic":',
    ],
)
def test_a_branch_on_a_task_would_be_caught(tmp_path, line):
    (tmp_path / "x.py").write_text(f"import torch\n\n{line}\n")
    assert branches(tmp_path / "x.py") == 1


def test_an_upward_import_would_be_caught(tmp_path):
    (tmp_path / "nn").mkdir()
    (tmp_path / "models.py").write_text("")
    (tmp_path / "nn" / "bad.py").write_text("def f():\n    from ..models import load\n    return load\n")
    assert upward("nn.bad", tmp_path) == ["models"]


def test_a_circle_would_be_caught():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_van_is_light():
    heavy = {"torch", "keras", "timm", "numpy", "torchvision", "transformers", "pytorch_lightning"}
    loaded = run_python("import sys, van, van.cli; print(*{m.split('.')[0] for m in sys.modules})").split()
    assert not heavy & set(loaded)


def test_every_public_name_can_be_imported():
    import van

    for name in van.__all__:
        assert getattr(van, name) is not None
        assert name in dir(van)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = van.nonsense
