"""The libraries that people already use, and one call that makes VAN a native model in them.

| host | what `register` adds |
|---|---|
| timm | `timm.create_model("van_b0")` and everything built on it, segmentation-models-pytorch's `tu-van_b0` included |
| transformers | `AutoModel…from_pretrained` of VAN folders, pipelines, Trainer, backbones of detectors, segmenters |
| segmentation_models_pytorch | its encoders come from timm: checks its version, then registers timm |

Each host is extended through its own registry, without import hooks; the one method that had to be replaced is named in
docs/hosts.md. Detectors need no host: `van.create_model("retinanet_van_b0")`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import warnings
from dataclasses import dataclass

from ..errors import MissingExtraError, UnknownNameError, VanNotice

__all__ = ["HOSTS", "Host", "register", "require_installed"]

EXTRA = "hosts"


@dataclass(frozen=True, kw_only=True)
class Host:
    """One library: how it is called, which versions were tested, and the room that registers VAN in it.

    minimum: oldest version that works; older ones are refused. tested: the newest release line this was run with, as
    a prefix of version numbers; later ones are used with a warning. module: of this package, with `register()`.
    """

    distribution: str
    minimum: tuple[int, ...]
    tested: tuple[int, ...]
    module: str


HOSTS: dict[str, Host] = {
    "timm": Host(distribution="timm", minimum=(1, 0, 20), tested=(1, 0), module="timm"),
    "transformers": Host(distribution="transformers", minimum=(5, 17), tested=(5,), module="transformers"),
    "segmentation_models_pytorch": Host(
        distribution="segmentation-models-pytorch", minimum=(0, 6), tested=(0, 6), module="timm"
    ),
}


def register(*hosts: str) -> tuple[str, ...]:
    """Make VAN a native model in the named hosts, or in every one that is installed; returns their names.

    Calling it again changes nothing; the order of imports does not matter; a host that has a VAN of its own keeps it.
    Raises UnknownNameError for an unknown host, MissingExtraError for one that is absent or too old; without
    names such a host is left out.
    """
    named = [name.lower().replace("-", "_") for name in hosts]
    for name, written in zip(named, hosts, strict=True):
        if name not in HOSTS:
            raise UnknownNameError.of("host", written, HOSTS)
    done = []
    for name in named or HOSTS:
        try:
            _require(name)
        except MissingExtraError as error:
            if named:
                raise
            if importlib.util.find_spec(name) is not None:  # installed, but too old
                warnings.warn(f"{error}; left out", VanNotice, stacklevel=2)
            continue
        importlib.import_module(f".{HOSTS[name].module}", __name__).register()
        done.append(name)
    return tuple(done)


def require_installed(name: str) -> None:
    """Raise MissingExtraError unless the host of this name is installed."""
    if importlib.util.find_spec(name) is None:
        raise MissingExtraError.of(HOSTS[name].distribution, EXTRA, "to register VAN with it")


def _require(name: str) -> None:
    """Raise MissingExtraError unless the host is installed in a version that works; say when it is untested."""
    require_installed(name)
    host = HOSTS[name]
    text = importlib.metadata.version(host.distribution)
    version = tuple(int(part) for part in re.findall(r"\d+", text)[:3])
    if version < host.minimum:
        wanted = f"{host.distribution} {_dotted(host.minimum)} or newer"
        raise MissingExtraError.of(wanted, EXTRA, f"to register VAN with it, {text} is installed")
    if version[: len(host.tested)] > host.tested:
        warnings.warn(
            f"VAN was tested with {host.distribution} up to {_dotted(host.tested)}.x; {text} is installed",
            VanNotice,
            stacklevel=3,
        )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
