"""The files of examples/deploy and the Containerfile fit the service: options, bounds, paths, extras."""

import argparse
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from van.cli import serve
from van.serve.http.gate import OPEN_PATHS
from van.serve.http.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"
CONTAINERFILE = (ROOT / "Containerfile").read_text()


def options_of(arguments):
    """What `van serve` makes of a command line; an unknown option ends the test."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    serve.add_arguments(parser)
    found, unknown = parser.parse_known_args(arguments)
    assert unknown == []
    return found


def seconds_in(text, name):
    return int(re.search(rf"{name}[ :]+(\d+)s", text)[1])


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def ray_config():
    text = (DEPLOY / "kuberay.yaml").read_text()
    return yaml.safe_load(yaml.safe_load(text)["spec"]["serveConfigV2"])


def entrypoint():
    return re.findall(r'"([^"]+)"', re.search(r"^ENTRYPOINT (.*)$", CONTAINERFILE, re.MULTILINE)[1])


def test_the_container_runs_the_service_as_nobody_in_particular():
    assert entrypoint()[:2] == ["van", "serve"]
    options = options_of([*entrypoint()[2:], "model.safetensors"])
    assert (options.host, options.port) == ("0.0.0.0", int(re.search(r"EXPOSE (\d+)", CONTAINERFILE)[1]))
    assert "\nUSER 10001\n" in CONTAINERFILE
    assert not re.search(r"token|password|secret\b(?!,)", CONTAINERFILE, re.IGNORECASE)


def test_the_container_is_built_from_files_and_extras_that_there_are():
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINERFILE, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = re.search(r"ARG EXTRAS=(\S+)", CONTAINERFILE)[1].split(",")
    assert "serve" in asked
    assert set(asked) <= set(project["optional-dependencies"])
    assert re.search(r"torch>=[\d.]+", CONTAINERFILE)[0] in project["dependencies"]


def test_health_checks_ask_what_needs_no_token(compose):
    asked = re.search(r"http://127\.0\.0\.1:8080(/\w+)", CONTAINERFILE)[1]
    watched = re.findall(r"(?:health_uri|location =|\tpath) (/\w+)", "".join(map(read, ("nginx.conf", "Caddyfile"))))
    probes = re.findall(r"path: (/\w+), port", (ROOT / "docs" / "deployment.md").read_text())
    assert {asked, *watched, *probes} == {"/healthz", "/readyz", "/metrics"}
    assert {asked, *watched, *probes} <= OPEN_PATHS


def read(name):
    return (DEPLOY / name).read_text()


def test_the_proxies_leave_the_bounds_to_the_service():
    nginx, caddy = read("nginx.conf"), read("Caddyfile")
    megabytes = [
        int(re.search(r"client_max_body_size (\d+)m", nginx)[1]),
        int(re.search(r"max_size (\d+)MiB", caddy)[1]),
    ]
    assert all(size * 2**20 > Settings.max_bytes for size in megabytes)
    waits = [seconds_in(nginx, "proxy_read_timeout"), seconds_in(caddy, "response_header_timeout")]
    assert min(waits) > Settings.timeout_s
    assert max(seconds_in(nginx, "keepalive_timeout"), seconds_in(caddy, "keepalive")) < 15


def test_braces_of_the_proxies_are_closed():
    for name in ("nginx.conf", "Caddyfile"):
        assert read(name).count("{") == read(name).count("}")


def test_compose_gives_options_that_there_are(compose):
    service = compose["services"]["van"]
    options = options_of([*entrypoint()[2:], *service["command"]])
    assert int(service["stop_grace_period"].rstrip("s")) > options.timeout_s
    assert service["environment"]["OMP_NUM_THREADS"] == str(service["cpus"])
    assert service["volumes"][0].split(":")[-2:] == ["/models", "ro"]
    assert "server van:8080;" in read("nginx.conf")
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == ROOT / "Containerfile"


def test_kuberay_gives_arguments_that_ray_serve_takes(ray_config):
    application = ray_config["applications"][0]
    assert application["import_path"] == "ray_serve:application"
    fields = set(re.findall(r"^    (\w+): .*(?:Settings\.|list\[|= )", read("ray_serve.py"), re.MULTILINE))
    assert set(application["args"]) <= fields | {"models"}
    assert application["args"]["timeout_s"] < application["deployments"][0]["graceful_shutdown_timeout_s"]
    assert f'name="{application["deployments"][0]["name"]}"' in read("ray_serve.py")


def test_ray_serve_takes_every_bound_but_what_it_reads_from_a_file():
    names = set(Settings.__dataclass_fields__) - {"token"}
    assert names <= set(re.findall(r"^    (\w+): \w+ = Settings\.\1$", read("ray_serve.py"), re.MULTILINE))
