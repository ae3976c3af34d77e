"""`van.hosts.register`: which hosts, which versions, in which order, and what is said otherwise."""

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys

import pytest

from van import hosts
from van.errors import MissingExtraError, UnknownNameError, VanNotice


@pytest.fixture
def without(monkeypatch):
    """Make packages look absent."""

    def hide(*names):
        found = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in names else found(name, *a))

    return hide


@pytest.fixture
def version(monkeypatch):
    """Make a host look like another version."""

    def pretend(text):
        monkeypatch.setattr(importlib.metadata, "version", lambda name: text)

    return pretend


def test_an_unknown_host_is_named_with_a_suggestion():
    with pytest.raises(UnknownNameError, match="unknown host 'tim'; did you mean 'timm'"):
        hosts.register("tim")


@pytest.mark.parametrize("name", hosts.HOSTS)
def test_an_absent_host_is_an_error_that_names_the_install(name, without):
    without(name)
    with pytest.raises(MissingExtraError, match=r"pip install 'visual-attention-network\[hosts\]'") as error:
        hosts.register(name)
    assert hosts.HOSTS[name].distribution in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["timm", "transformers"])
def test_importing_the_module_of_an_absent_host_names_the_install_too(name, without, monkeypatch):
    without(name)
    monkeypatch.delitem(sys.modules, f"van.hosts.{name}", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'visual-attention-network\[hosts\]'"):
        importlib.import_module(f"van.hosts.{name}")


def test_without_names_absent_hosts_are_left_out(without):
    without("transformers", "segmentation_models_pytorch")
    assert hosts.register() == (("timm",) if importlib.util.find_spec("timm") else ())


def test_too_old_a_host_is_refused_when_named_and_left_out_aloud_otherwise(version, without):
    pytest.importorskip("timm")
    without("transformers", "segmentation_models_pytorch")
    version("0.9.16")
    with pytest.raises(MissingExtraError, match=r"timm 1\.0\.20 or newer is needed .*0\.9\.16 is installed"):
        hosts.register("timm")
    with pytest.warns(VanNotice, match=r"0\.9\.16 is installed.*left out"):
        assert hosts.register() == ()


def test_a_newer_host_than_tested_is_used_with_a_word(version):
    pytest.importorskip("timm")
    version("1.1.0")
    with pytest.warns(VanNotice, match=r"tested with timm up to 1\.0\.x; 1\.1\.0 is installed"):
        assert hosts.register("timm") == ("timm",)


@pytest.mark.parametrize("text", ["1.0.20", "1.0.31.dev0", "1.0.99"])
def test_supported_versions_pass_in_silence(version, text):
    pytest.importorskip("timm")
    version(text)
    assert hosts.register("timm") == ("timm",)


ORDERS = {
    "host first": "import timm, transformers\nfrom van.hosts import register\nregister()",
    "van first": "from van.hosts import register\nregister()\nimport timm, transformers",
    "modules alone": "import van.hosts.timm, van.hosts.transformers\nimport timm, transformers",
}
ASK = "\nprint(timm.is_model('van_b0'), transformers.AutoConfig.for_model('van').depths)"


@pytest.mark.parametrize(
    "order", [pytest.param(o, marks=[] if o == "host first" else pytest.mark.slow) for o in ORDERS]
)
@pytest.mark.long
def test_both_import_orders_work(order):
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
    done = run(ORDERS[order] + ASK)
    assert done.stdout.split("\n")[0] == "True (3, 3, 12, 3)", done.stderr


def test_importing_van_and_its_hosts_loads_no_host():
    done = run("import sys, van, van.hosts; print(sorted({'timm', 'transformers', 'torch'} & set(sys.modules)))")
    assert done.stdout.strip() == "[]"


def run(code):
    return subprocess.run([sys.executable, "-W", "error::UserWarning:van", "-c", code], capture_output=True, text=True)
