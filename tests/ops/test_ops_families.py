"""Families of processors: every build of the kernel computes the same, and only paths that win are taken."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from kernel_builds import EMULATED_TILES
from kernel_cases import ROUNDING, assert_threads_change_nothing
from networks import gap, images, tiny

from van import ops
from van.errors import UnknownNameError
from van.nn import fold
from van.ops import c_library as library_module
from van.ops import cpu_depthwise as kernel
from van.ops import reference as plain
from van.ops import selection
from van.ops.c_library import COMMON_FLAGS, INSTRUCTION_FLAGS, SOURCES, TYPE_FLAGS, library
from van.ops.measured import RATIOS, REPLACED

pytestmark = pytest.mark.skipif(library().handle is None, reason=f"no kernel here: {library().reason}")

LANES = {"AMX": 16, "AVX512": 16, "AVX2": 8, "baseline": 4}


@pytest.fixture
def build(monkeypatch):
    """Makes the kernel of some instructions the one in use."""

    def use(instructions):
        monkeypatch.setenv("VAN_OPS", instructions)
        library.cache_clear()
        if library().instructions != instructions:
            pytest.skip(f"this processor has {library().instructions}")

    yield use
    monkeypatch.undo()
    library.cache_clear()


@pytest.fixture
def ratios(monkeypatch):
    """Sets what was measured here: other ratios by path, the rest `otherwise`."""

    def use(otherwise=1.5, **given):
        monkeypatch.setitem(RATIOS, selection.family(), dict.fromkeys(REPLACED, otherwise) | given)

    return use


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.promise("0")
@pytest.mark.parametrize("instructions", INSTRUCTION_FLAGS)
class TestEveryBuild:
    """All paths, against float64."""

    @pytest.fixture(autouse=True)
    def _build(self, build, instructions):
        build(instructions)
        with ops.taking(*REPLACED):
            yield

    def test_a_vector_is_a_register(self, instructions):
        assert library().handle.van_lanes() == LANES[instructions]
        assert library().handle.van_panel() == 2 * LANES[instructions]

    def test_every_remainder_of_channels(self, instructions):
        for channels in range(1, 36):
            options = {"embed_dims": (channels,) * 4, "mlp_ratios": (1 + channels % 3,) * 4, "depths": (1,) * 4}
            block, x = fold(tiny(channels, **options)).backbone.stages[0].blocks[0], drawn(2, channels, 7, 9)
            assert block.packed is not None
            with torch.inference_mode():
                got = block(x)
            assert gap(got, block.double()(x.double())) < ROUNDING

    def test_every_remainder_of_patches(self, instructions):
        for channels in range(8, 42):
            conv, x = torch.nn.Conv2d(channels, 49 - channels, 3, 2, padding=1), drawn(1, channels, 10, 7)
            got = ops.folded_patch(x, ops.pack_patch(conv.weight, conv.bias, stride=2, padding=1))
            assert gap(got, conv.double()(x.double())) < ROUNDING

    def test_every_remainder_of_depthwise_gradients(self, instructions):
        for channels in range(1, 36, 2):
            x, weight, bias = drawn(2, channels, 5, 6), drawn(channels, 1, 3, 3, seed=1), drawn(channels, seed=2)
            leaves = [t.requires_grad_() for t in (x, weight, bias)]
            exact = [t.detach().double().requires_grad_() for t in leaves]
            got, want = kernel.depthwise(*leaves, 1, True), plain.chain(exact[0], [(*exact[1:], 1)], gelu=True)
            assert gap(got, want) < ROUNDING
            pairs = (torch.autograd.grad(y.square().sum(), t) for y, t in ((got, leaves), (want, exact)))
            for ours, theirs in zip(*pairs, strict=True):
                assert gap(ours, theirs) < ROUNDING

    def test_the_number_of_threads_changes_nothing(self, instructions):
        model, x = fold(tiny(embed_dims=(16, 40, 24, 32))), images(1, 3, 150, 61)
        with torch.inference_mode():
            assert_threads_change_nothing(lambda: [model(x)], (1, 2, 3, 7))

    def test_gelu_over_its_range(self, instructions):
        x = torch.cat([torch.linspace(-15, 15, 20_001), torch.tensor([0.0, -0.0, 1e-30, 3e4, -3e4])])[None, None, None]
        x.requires_grad_()
        exact = x.detach().double().requires_grad_()
        got, want = kernel.depthwise(x, torch.ones(1, 1, 1, 1), None, 1, True), torch.nn.functional.gelu(exact)
        assert ((got - want).abs() <= 1e-6 * want.abs().clamp(min=1)).all()
        slopes = torch.autograd.grad(got.sum(), x)[0], torch.autograd.grad(want.sum(), exact)[0]
        assert (slopes[0] - slopes[1]).abs().max() < 1e-6

    def test_not_a_number_stays(self, instructions):
        x = drawn(1, 9, 9, 9)
        x[0, 3, 4, 4] = torch.nan
        assert kernel.depthwise(x, drawn(9, 1, 3, 3), None, 1, True).isnan().sum() == 9


def calls(function):
    with torch.profiler.profile() as seen:
        function()
    return {event.key.removeprefix("van::") for event in seen.key_averages() if event.key.startswith("van::")}


@pytest.mark.promise("0")
class TestTheTableGoverns:
    def test_it_is_complete(self):
        assert all(set(paths) == set(REPLACED) for paths in RATIOS.values())
        measured_here = {"AVX512", "AVX2", "AVX2, PyTorch newer", "baseline", "baseline, PyTorch newer"}
        assert all(ratio is not None for family in measured_here for ratio in RATIOS[family].values())

    @pytest.mark.parametrize("path", REPLACED)
    def test_a_path_that_lost_is_not_taken(self, ratios, path):
        ratios(**{path: 0.99})
        assert [other for other in REPLACED if not ops.path_taken(other)] == [path]
        ratios(**{path: 1.0})
        assert ops.path_taken(path)

    def test_folded_networks_take_the_library_where_its_products_win(self, ratios):
        x = images(1, 3, 32, 32)
        with torch.inference_mode():
            ratios()
            want = fold(tiny())(x)
            ratios(0.9)
            model = fold(tiny())
            assert all(stage.packed is None and stage.patch_embed.packed is None for stage in model.backbone.stages)
            assert not calls(lambda: model(x))
            assert gap(model(x), want) < ROUNDING
            ratios(0.9, streamed_feed_forward=1.1, depthwise_pair=1.1)
            assert calls(lambda: model(x)) == {"feed_forward", "depthwise_pair"}
            assert gap(model(x), want) < ROUNDING

    def test_training_is_chosen_by_itself(self, ratios):
        ratios(0.9, depthwise_pair_training=3.0)
        model, x = tiny(), images()
        assert calls(lambda: model.train()(x).sum().backward()) == {"depthwise_pair", "depthwise_pair_backward"}
        with torch.no_grad():
            assert not calls(lambda: model.eval()(x))
        ratios(0.9, depthwise_pair=3.0)
        assert not calls(lambda: model.train()(x).sum().backward())

    def test_what_nobody_measured_is_taken_where_it_is_asked_for(self, monkeypatch, ratios):
        ratios(None)
        monkeypatch.delenv("VAN_OPS", raising=False)
        assert not any(map(ops.path_taken, REPLACED))
        assert "never measured" in ops.report()["folded_blocks"]
        monkeypatch.setenv("VAN_OPS", "baseline")
        assert all(map(ops.path_taken, REPLACED))

    def test_processors_nobody_measured(self, monkeypatch):
        monkeypatch.delenv("VAN_OPS", raising=False)
        for machine, name in {"aarch64": "NEON", "arm64": "NEON", "riscv64": "riscv64"}.items():
            monkeypatch.setattr(selection.platform, "machine", lambda machine=machine: machine)
            assert selection.family() == name
            assert not any(map(ops.path_taken, REPLACED))

    def test_a_newer_pytorch_is_a_row_of_its_own(self, build, monkeypatch):
        build("baseline")
        for capability, name in {"AVX512": "baseline, PyTorch newer", "DEFAULT": "baseline"}.items():
            monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
            assert selection.family() == name

    def test_the_report_shows_every_family_and_which_paths_are_on(self, ratios):
        ratios(1.25, folded_patch=0.5)
        told = ops.report()
        assert "C kernel" in told["folded_blocks"]
        assert "measured 1.25 times" in told["folded_blocks"]
        assert "library convolution, not the C kernel" in told["folded_patch"]
        assert set(RATIOS) == {name.removeprefix("measured ") for name in told if name.startswith("measured ")}
        assert "folded_patch 0.50 off" in told[f"measured {selection.family()}"]

    def test_taking_some_paths_only(self):
        with ops.taking("depthwise_pair"):
            assert [path for path in REPLACED if ops.path_taken(path)] == ["depthwise_pair"]
        with pytest.raises(UnknownNameError, match="did you mean 'depthwise_pair'"), ops.taking("depthwise_pairs"):
            pass


@pytest.mark.promise("0")
@pytest.mark.parametrize(("ratio", "told"), [(1.0, 0), (0.996, 0), (0.99, 1), (1.4, 0)])
def test_the_benchmark_requires_every_family_to_win(monkeypatch, ratio, told):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent.parent / "benchmarks"))
    import cpu_families

    row = {"family": "AVX2", "torch": "PyTorch as it is", "model": "van_b0", "size": 224, "batch": 1, "threads": 2}
    assert len(list(cpu_families.missed([row | {"trained": False, "ratio": ratio}]))) == told


# --- programs in C around the kernel, for this processor and for ARM in an emulator

SUPPORT = Path(__file__).parent.parent / "support"
STRICT = (*(flag for flag in COMMON_FLAGS if flag not in ("-shared", "-fPIC")), "-Wall", "-Wextra", "-Werror")
BUILDS = {
    **INSTRUCTION_FLAGS,
    "float64": TYPE_FLAGS[torch.float64],
    **{f"{name}, bfloat16": (*INSTRUCTION_FLAGS[name], *TYPE_FLAGS[torch.bfloat16]) for name in ("AVX512", "AMX")},
}


def program(compiler, driver, folder, *flags):
    """The compiled driver; a warning is an error."""
    made = folder / driver
    command = [*compiler, *STRICT, *flags, f"-I{SOURCES}", str(SUPPORT / f"{driver}.c"), "-o", str(made)]
    built = subprocess.run([*command, "-lm", "-lpthread"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return made


def lines(*command):
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    return ran.stdout.splitlines()


@pytest.fixture
def arm():
    """A compiler for ARM and an emulator."""
    found = [shutil.which(name) for name in ("aarch64-linux-gnu-gcc", "qemu-aarch64")]
    if not all(found):
        pytest.skip("no compiler for ARM or no emulator")
    return [found[0], "-static"], found[1]


@pytest.mark.long
@pytest.mark.promise("0")
@pytest.mark.parametrize("build", BUILDS)
def test_plain_loops_agree_and_the_compiler_has_no_doubts(build, tmp_path):
    made = program([shutil.which("cc")], "kernel_check", tmp_path, *BUILDS[build])
    runs = {*list(INSTRUCTION_FLAGS)[list(INSTRUCTION_FLAGS).index(library().instructions) :], "float64"}
    if build in runs:  # others are compiled alone
        assert lines(made)[-1] == "right"


@pytest.mark.slow
@pytest.mark.promise("0")
@pytest.mark.parametrize("build", [(), ("-DVAN_DOUBLE",)], ids=["float32", "float64"])
def test_plain_loops_agree_with_neon(build, arm, tmp_path):
    compiler, emulator = arm
    found = lines(emulator, program(compiler, "kernel_check", tmp_path, *build))
    assert found[0] == ("2 lanes, panels of 4" if build else "4 lanes, panels of 8")
    assert found[-1] == "right"


@pytest.mark.slow
@pytest.mark.promise("0")
def test_neon_computes_what_this_processor_does(arm, tmp_path):
    """What plain loops do not cover: the same numbers from the same program."""
    compiler, emulator = arm
    found = []
    for command, run in ([shutil.which("cc")], []), (compiler, [emulator]):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        out = lines(*run, program(command, "kernel_driver", folder, "-DVALUES"))
        assert out[-1] == "clean"
        found.append(torch.tensor([float(line) for line in out[:-1]], dtype=torch.float64))
    here, there = found
    assert len(here) > 1000
    assert (here - there).abs().max() < ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TYPE_FLAGS)
@pytest.mark.parametrize("instructions", INSTRUCTION_FLAGS)
def test_sanitizers_find_nothing(tmp_path, instructions, dtype):
    """Address and undefined-behaviour sanitizers over odd shapes, on buffers of exactly the right size."""
    flags, features = [*INSTRUCTION_FLAGS[instructions], *TYPE_FLAGS[dtype]], library_module._features()
    if dtype == torch.bfloat16 and (instructions not in ("AMX", "AVX512") or "avx512_bf16" not in features):
        pytest.skip("no products of bfloat16 here")
    if instructions == "AMX" and not features >= library_module.AMX_FEATURES:
        if dtype == torch.float64 or "avx512_bf16" not in features:
            pytest.skip("no AMX here")
        flags += ["-include", str(EMULATED_TILES)]
    compiler = shutil.which("cc") or pytest.skip("no compiler")
    driver, made = Path(__file__).parent.parent / "support" / "kernel_driver.c", tmp_path / "driver"
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
    plain_flags = [flag for flag in COMMON_FLAGS if flag not in ("-shared", "-O3")]
    command = [
        compiler,
        *plain_flags,
        *sanitize,
        *flags,
        f"-I{SOURCES}",
        str(driver),
        "-o",
        str(made),
        "-lm",
        "-lpthread",
    ]
    subprocess.run(command, check=True)
    assert subprocess.run([made], check=True, capture_output=True, text=True).stdout == "clean\n"
