"""Hub ids and links in, local files out: the only rooms' door to the network.

A repository is recognised by what lies in it: transformers' layout (config.json beside the weights), the authors'
`*-original` layout (one `.pth.tar`), or one file of any other format that `van.load` reads.
"""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
import urllib.request
import warnings
from collections.abc import Collection
from pathlib import Path

import huggingface_hub
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

from .errors import CheckpointError, VanNotice
from .weights import WEIGHTS, by_hub_id

# Endings that make `folder/name` a path, whether or not the file exists.
# fmt: off
FILE_ENDINGS = (
    ".pth", ".pt", ".tar", ".bin", ".ckpt", ".safetensors", ".h5", ".hdf5", ".keras", ".onnx", ".xml",
    ".json", ".yaml", ".yml", ".zip", ".npz", ".pkl",
)
# fmt: on
# Weights of transformers' layout, the preferred ones first; an index names the shards.
TRANSFORMERS_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# What a repository's only weight file may end with, the preferred ones first.
SINGLE_ENDINGS = (("*.pth.tar", "*.pth", "*.pt", "*.ckpt"), ("*.safetensors",), ("*.bin",), ("*.h5",))

SHOWN = 10  # file names that an error lists
LOOK_UP_TIMEOUT_S, DOWNLOAD_TIMEOUT_S = 15, 60  # without a byte


def is_hub_id(source: str | os.PathLike[str]) -> bool:
    """Whether `source` is a repository of the hub (`org/name`) rather than a path: an existing path wins."""
    if not isinstance(source, str) or Path(source).exists() or source.lower().endswith(FILE_ENDINGS):
        return False
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) is not None


def download(
    source: str, *, revision: str | None = None, offline: bool | None = None, cache: str | Path | None = None
) -> Path:
    """What `van.load` needs of the hub repository `org/name`, as a local path: a folder for transformers' layout,
    else the one weight file.

    revision: branch, tag or commit; None for main. cache: the hub's own folder by default.
    offline: use the cache alone; by default where HF_HUB_OFFLINE says so. Unreachable, the cache is tried as well.
    Raises CheckpointError for an unknown or closed repository or revision, one that is not in the cache when
    offline, and one without a loadable file (the message lists what is there).
    """
    offline = constants.HF_HUB_OFFLINE if offline is None else offline
    reason = "offline"
    if not offline:
        try:
            entry, wanted = _choose(source, _remote_names(source, revision), repr(source))
            folder = _fetch(source, revision, wanted, cache)
            return folder / entry if entry else folder
        except _UnreachableError as error:
            reason = f"the hub cannot be reached: {error}"
    folder = _cached(source, revision, cache, reason)
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    entry, wanted = _choose(source, names, f"the cache of {source!r} ({reason})")
    _require_shards(source, folder, wanted)
    if not offline:
        warnings.warn(f"{reason}; {source!r} is taken from the cache", VanNotice, stacklevel=2)
    return folder / entry if entry else folder


def fetch_url(url: str, target: str | Path) -> Path:
    """Download `url` to the file `target` unless it is there; it appears whole or not at all.

    Raises CheckpointError when the download fails.
    """
    target = Path(target)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    request = urllib.request.Request(url, headers={"User-Agent": "visual-attention-network"})
    try:
        with urllib.request.urlopen(request, timeout=DOWNLOAD_TIMEOUT_S) as reply, part.open("wb") as file:
            expected, got = reply.headers.get("Content-Length"), 0
            while block := reply.read(1 << 20):
                got += file.write(block)
        if expected is not None and got != int(expected):
            raise OSError(f"{got} of {expected} bytes came")
        part.replace(target)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"download of {url} failed: {_line(error)}; try again, or fetch it by hand") from error
    finally:
        part.unlink(missing_ok=True)
    return target


class _UnreachableError(Exception):
    """There is no way to the hub; its text says why."""


def _remote_names(source: str, revision: str | None) -> list[str]:
    """File names in the repository; raises _UnreachableError."""
    try:
        info = HfApi().model_info(source, revision=revision, timeout=LOOK_UP_TIMEOUT_S)
        return [file.rfilename for file in info.siblings or ()]
    except GatedRepoError as error:
        raise CheckpointError(
            f"{source!r} on the hub is gated; accept its terms there and log in with `hf auth login`"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        near = difflib.get_close_matches(source, [row.repo for row in WEIGHTS if row.repo], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "check the spelling;"
        raise CheckpointError(
            f"no file and no hub repository {source!r}; {hint} a private one needs `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(
            f"{source!r} on the hub has no revision {revision!r}; give a branch, tag or commit of it"
        ) from error
    except Exception as error:  # whatever the HTTP library of this huggingface_hub raises without a connection
        raise _UnreachableError(_line(error)) from error


def _cached(source: str, revision: str | None, cache: str | Path | None, why: str) -> Path:
    """The snapshot folder of the hub's cache; its layout is documented: refs/<revision> names snapshots/<commit>."""
    storage = Path(cache or constants.HF_HUB_CACHE).expanduser() / f"models--{source.replace('/', '--')}"
    revision = revision or constants.DEFAULT_REVISION
    reference = storage / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    folder = storage / "snapshots" / commit
    if folder.is_dir():
        return folder
    known = [str(p.relative_to(storage / "refs").as_posix()) for p in (storage / "refs").rglob("*") if p.is_file()]
    there = f"its cache has the revisions {_listed(sorted(known))}" if known else "it is not in the cache"
    raise CheckpointError(
        f"no file {source!r}, and of a hub repository of that name ({why}) revision {revision!r} is not at hand: "
        f"{there}; check the path, or download it once with a connection"
    )


def _choose(source: str, names: Collection[str], place: str) -> tuple[str | None, list[str]]:
    """(the file to load, or None for the folder; the files to have); `place` is what an error calls the repository."""
    top = sorted(name for name in names if "/" not in name)
    weights = next((name for name in TRANSFORMERS_WEIGHTS if name in top), None)
    if weights and "config.json" in top:
        shards = fnmatch.filter(top, weights.removesuffix(".index.json").replace(".", "-*-of-*."))
        beside = [name for name in ("config.json", "preprocessor_config.json") if name in top]
        return None, [*beside, weights, *(shards if weights.endswith(".json") else ())]
    row = by_hub_id(source)
    if row and row.filename in top:
        return row.filename, [row.filename]
    for endings in SINGLE_ENDINGS:
        found = [name for name in top if any(fnmatch.fnmatch(name, ending) for ending in endings)]
        if len(found) == 1:
            return found[0], found
        if found:
            raise CheckpointError(
                f"{place} holds {len(found)} weight files: {_listed(found)}; download one and give its path"
            )
    raise CheckpointError(
        f"{place} holds no checkpoint that this package reads; it holds {_listed(sorted(names)) or 'nothing'}"
    )


def _fetch(source: str, revision: str | None, wanted: list[str], cache: str | Path | None) -> Path:
    try:
        # one call, so that all files are of one commit
        return Path(
            huggingface_hub.snapshot_download(source, revision=revision, cache_dir=cache, allow_patterns=wanted)
        )
    except Exception as error:  # as above
        raise CheckpointError(f"download of {source!r} failed: {_line(error)}; try again") from error


def _require_shards(source: str, folder: Path, wanted: list[str]) -> None:
    """Raise CheckpointError when the cache lacks a shard that the index names."""
    from .checkpoints.files import shards_of

    for index in (name for name in wanted if name.endswith(".index.json")):
        missing = [shard for shard in shards_of(folder / index) if not (folder / shard).is_file()]
        if missing:
            raise CheckpointError(
                f"{source!r} lacks {_listed(missing)}, which {index} names; download it again with a connection"
            )


def _listed(names: list[str]) -> str:
    more = f", … ({len(names) - SHOWN} more)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
