"""The hosts' own tests, from their source distributions, on our models: `.ci/run host_suites` brings what they need.

What fails is listed here and, with the reason, in docs/hosts.md; a test that fails or passes against the list is news.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SUITES = Path(__file__).parent.parent / "support" / "suites"
# The smallest network in every test and all of them where nothing is computed; no weights from the network.
CHOICE = "(van_b0 or van_b and default_cfgs) and not pretrained"
FAILS_IN_TIMM = {"test_model_forward_torchscript[1-van_b0]", "test_model_forward_fx_torchscript[1-van_b0]"}
FAILS_IN_TRANSFORMERS: set[str] = set()


def source_of(host: str) -> Path:
    folder = os.environ.get(f"VAN_{host.upper()}_SOURCE")
    if not folder:
        pytest.skip(f"VAN_{host.upper()}_SOURCE names no unpacked source distribution of {host}")
    return Path(folder)


def failures(root: Path, *arguments: str) -> set[str]:
    """The tests that failed, by name; an error in the run itself is raised."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SUITES), str(root), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "-c", os.devnull]
    run = subprocess.run([*command, *arguments], cwd=root, env=environment, capture_output=True, text=True)
    print(run.stdout[-4000:])
    assert run.returncode in (0, 1), run.stdout[-4000:] + run.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) > 0
    return {
        line.split("::")[-1].split(" - ")[0] for line in re.findall(r"^(?:SUB)?FAILED.*$", run.stdout, re.MULTILINE)
    }


@pytest.mark.slow
@pytest.mark.promise("18")
def test_timms_own_tests_on_our_models():
    root = source_of("timm")
    arguments = ["-p", "van_in_timm", "--rootdir=.", "tests/test_models.py", "-k", CHOICE]
    assert failures(root, *arguments) == FAILS_IN_TIMM


@pytest.mark.slow
@pytest.mark.promise("18")
def test_transformers_common_tests_on_our_models():
    root = source_of("transformers")
    arguments = ["--rootdir=/", str(SUITES / "van_in_transformers.py")]
    assert failures(root, *arguments) == FAILS_IN_TRANSFORMERS
