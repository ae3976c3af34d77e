"""The rooms of the package, and who may know whom: imports go down only, and some rooms stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "van"

# From the top floor to the cellar; a room may import rooms on lower floors and, within a floor, only itself.
FLOORS = [
    {"__main__"},
    {"cli"},
    {"bench"},
    {"quickstart"},
    {"train", "verify", "hosts", "exporting"},
    {"evaluate"},
    {"evaluate_masks", "doctor"},
    {"predict", "shards"},
    {"engines"},
    {"models", "keras"},
    {"sources"},
    {"segment", "complexity", "complexity_segmentation", "hub"},
    {"nn"},
    {"data", "checkpoints"},
    {"metrics", "masks"},
    {"dtypes", "ops", "preprocess", "resize"},
    {"recipes"},
    {"segmenters", "detectors"},
    {"weights", "variants"},
    {"errors", "timing", "cache", "jsontext", "text"},
    {"paths"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# What may be imported at module level in a room besides the standard library and the package itself.
ALLOWED_AT_IMPORT = {
    "errors": set(),
    "timing": set(),
    "cache": set(),
    "paths": set(),
    "jsontext": set(),
    "text": set(),
    "variants": set(),
    "weights": set(),
    "recipes": set(),
    "preprocess": {"numpy", "PIL"},
    "dtypes": {"torch"},
    "sources": set(),
    "ops": {"torch"},
    "nn": {"torch"},
    "hub": {"huggingface_hub"},
    "complexity": {"torch"},
    "complexity_segmentation": {"torch"},
    "models": {"torch", "numpy"},
    "cli": {"jsonargparse", "rich"},
    "keras": {"keras", "numpy"},
}
# The one module of the checkpoint room that knows torch.
TORCH_IN_CHECKPOINTS = {"torch_pickle.py"}
# The one module of the ops that knows Triton; imported when a GPU first needs it.
TRITON_IN_OPS = {"triton_kernels.py"}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms of this package that a module imports anywhere, also inside functions; typing-only imports excepted."""
    package = ["van", *path.relative_to(SOURCE).parent.parts]
    rooms = set()
    for node in walk_runtime(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names = [*base, *(node.module.split(".") if node.module else [])]
            if names[:1] == ["van"]:
                rooms |= {names[1]} if len(names) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("van.")}
    return {room for room in rooms if not room.startswith("__")}


def walk_runtime(node: ast.AST):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from walk_runtime(child)


def top_level_imports(path: Path) -> set[str]:
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"van"}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down(path):
    room = room_of(path)
    if room.startswith("__"):  # what is offered to the outside, and `python -m van`
        return
    assert room in FLOOR_OF, f"{room} has no floor yet: give it one in {Path(__file__).name}"
    for other in imported_rooms(path) - {room}:
        if room == "cli" and other == "__version__":
            continue
        where = path.relative_to(SOURCE)
        assert FLOOR_OF[other] > FLOOR_OF[room], f"{where} imports {other}, which is not below {room}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_heavy_packages_stay_where_they_are_used(path):
    room = room_of(path)
    if room in ALLOWED_AT_IMPORT:
        triton = {"triton"} if room == "ops" and path.name in TRITON_IN_OPS else set()
        assert top_level_imports(path) <= ALLOWED_AT_IMPORT[room] | triton
    if room == "checkpoints" and path.name not in TORCH_IN_CHECKPOINTS:
        assert "torch" not in {
            alias.name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import)
            for alias in node.names
        }


def test_an_upward_import_would_be_caught(tmp_path, monkeypatch):
    (tmp_path / "nn").mkdir()
    bad = tmp_path / "nn" / "bad.py"
    bad.write_text("def f():\n    from ..models import load\n    return load\n")
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    assert imported_rooms(bad) == {"models"}
    with pytest.raises(AssertionError, match="not below nn"):
        test_imports_go_down(bad)


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
