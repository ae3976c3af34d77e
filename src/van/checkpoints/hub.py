"""Hub ids and published weights in, local files out; all that uses the network, with `transfer` for plain links.

A repository is recognised by what lies in it: transformers' layout (config.json beside the weights), the authors'
`*-original` layout (one `.pth.tar`), or one file of any other format that `van.load` reads.
"""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
import urllib.parse
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

from ..configs.published_weights import WEIGHTS, Weight, by_hub_id
from ..errors import CheckpointError, ConfigError, VanNotice
from ..files import cache_folder
from . import folders
from .transfer import Fetched, Progress, WrongFileError, check_sha256, fetch, fetch_first, one_line

# Endings that make `folder/name` a path, whether or not the file exists.
# fmt: off
FILE_ENDINGS = (
    ".pth", ".pt", ".tar", ".bin", ".ckpt", ".safetensors", ".h5", ".hdf5", ".keras", ".onnx", ".xml",
    ".pdparams", ".weights", ".json", ".yaml", ".yml", ".zip", ".npz", ".pkl",
)
# fmt: on
# Weights of transformers' layout, the preferred ones first; an index names the shards.
TRANSFORMERS_WEIGHTS = folders.WEIGHTS
# What a repository's only weight file may end with, the preferred ones first.
SINGLE_ENDINGS = (("*.pth.tar", "*.pth", "*.pt", "*.ckpt"), ("*.safetensors",), ("*.bin",), ("*.h5", "*.keras"))
# Other spellings of a hub id: timm's and Keras's prefixes, and the addresses of its pages and files.
PREFIXES = ("hf-hub:", "hf_hub:", "hf://")
SITES = r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/"

SHOWN = 10  # file names that an error lists
LOOK_UP_TIMEOUT_S = 15  # without a byte

_NO_MODELS = ("datasets/", "spaces/", "docs/", "models/")
_ID = r"\w[\w.-]*/\w[\w.-]*"


@dataclass(frozen=True)
class Reference:
    """A repository of the hub (`org/name`), and the revision and file in it that are meant; None: not given."""

    repo: str
    revision: str | None = None
    file: str | None = None


def is_hub_id(source: str | os.PathLike[str]) -> bool:
    """Whether `source` is a repository of the hub rather than a path: an existing path wins."""
    if not isinstance(source, str) or Path(source).exists():
        return False
    if _is_spelled(source):
        return True
    return not source.lower().endswith(FILE_ENDINGS) and re.fullmatch(_ID, source) is not None


def reference(source: str) -> Reference:
    """What of the hub is meant by `org/name`, `hf-hub:org/name[@revision]`, `hf://org/name[@revision][/file]`, a link.

    Links are those of a repository's page and of its files: `https://huggingface.co/org/name[/tree/revision]`,
    `…/resolve/revision/file`, `…/blob/revision/file`.
    Raises CheckpointError for a text that starts like one of these and is not one.
    """
    match = re.match(SITES, source, re.IGNORECASE)
    found = _of_link(source[match.end() :]) if match else _of_name(source)
    if found is None:
        raise CheckpointError(
            f"{source!r} names no model on the hub; expected org/name, hf-hub:org/name@revision, or a link such as "
            "https://huggingface.co/org/name/resolve/main/model.safetensors"
        )
    return found


def _is_spelled(source: str) -> bool:
    return source.lower().startswith(PREFIXES) or re.match(SITES, source, re.IGNORECASE) is not None


def _of_name(source: str) -> Reference | None:
    prefix = next((prefix for prefix in PREFIXES if source.lower().startswith(prefix)), "")
    name = source[len(prefix) :].removeprefix("models/" if prefix == "hf://" else "")
    match = re.fullmatch(
        rf"(?P<repo>{_ID})(@(?P<revision>refs/(?:pr|convert)/[^@/\s]+|[^@/\s]+))?(/(?P<file>\S+))?/?", name
    )
    if match is None or match["repo"].startswith(_NO_MODELS) or (match["file"] and prefix != "hf://"):
        return None
    return Reference(match["repo"], match["revision"], match["file"])


def _of_link(path: str) -> Reference | None:
    """path: behind the name of the site, `org/name/resolve/main/file?download=true`."""
    path = urllib.parse.unquote(re.split(r"[?#]", path)[0]).strip("/")
    match = re.fullmatch(rf"(?P<repo>{_ID})(/(?P<kind>\w+)/(?P<rest>.+))?", path)
    if match is None or match["repo"].startswith(_NO_MODELS):
        return None
    if match["kind"] is None:
        return Reference(match["repo"])
    revision, _, file = match["rest"].partition("/")
    if revision == "refs":  # refs/pr/3
        *start, file = [*match["rest"].split("/", 3), ""][:4]
        revision = "/".join(start)
    page, one_file = match["kind"] == "tree" and not file, match["kind"] in ("resolve", "blob", "raw") and file
    return Reference(match["repo"], revision, file or None) if page or one_file else None


def download(
    source: str, *, revision: str | None = None, offline: bool | None = None, cache: str | Path | None = None
) -> Path:
    """What `van.load` needs of the hub repository `org/name`, as a local path: a folder for transformers' layout,
    else the one weight file.

    source: `org/name`, or the same in another spelling (`reference`), which may name a revision and a file.
    revision: branch, tag or commit; None for main. cache: the hub's own folder by default.
    offline: use the cache alone; by default as HF_HUB_OFFLINE says. An unreachable hub means the cache, too.
    Raises CheckpointError for an unknown or closed repository or revision, one that is not in the cache when
    offline, and one without a loadable file (the message lists what is there).
    """
    offline = constants.HF_HUB_OFFLINE if offline is None else offline
    reason, named = "offline", reference(source)
    if revision is not None and named.revision not in (None, revision):
        raise ConfigError(f"{source!r} names the revision {named.revision!r}, but revision= is {revision!r}")
    source, revision, file = named.repo, revision or named.revision, named.file
    if not offline:
        try:
            entry, wanted = _choose(source, _remote_names(source, revision), repr(source), file)
            folder = _fetch(source, revision, wanted, cache)
            return folder / entry if entry else folder
        except _UnreachableError as error:
            reason = f"the hub cannot be reached: {error}"
    folder = _cached(source, revision, cache, reason)
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    entry, wanted = _choose(source, names, f"the cache of {source!r} ({reason})", file)
    _require_shards(source, folder, wanted)
    if not offline:
        warnings.warn(f"{reason}; {source!r} is read from the cache", VanNotice, stacklevel=2)
    return folder / entry if entry else folder


def place_of(row: Weight, cache: Path | None = None) -> Path:
    """Where a file that is not the hub's, or that the user saved, is; a folder in transformers' layout."""
    name = row.filename or row.name.replace("/", "-") + (".pth" if row.repo is None else "")
    return (cache or cache_folder()) / name


def fetch_weight(row: Weight) -> Path:
    """The file of a published weight, or its folder in transformers' layout; downloaded unless it is on this machine.

    A file that the user saved at `place_of(row)` is used. With HF_HUB_OFFLINE nothing is downloaded.
    Warns with VanNotice where a mirror had to give it. Raises CheckpointError, which names the link, the hash and the
    place, for what cannot be had or has another hash.
    """
    fetched = fetch_published(row)
    if fetched.failures:
        warnings.warn(f"{row.name} comes from {fetched.link}: {'; '.join(fetched.failures)}", VanNotice, stacklevel=5)
    return fetched.path


def fetch_published(
    row: Weight, cache: Path | None = None, *, keep_wrong: bool = False, progress: Progress | None = None
) -> Fetched:
    """As `fetch_weight`, with the link that gave the file: the publisher's own first, then the mirrors in their order.

    cache: folder for all downloads; None: the hub's cache, and `van.files.cache_folder()` for plain links.
    keep_wrong, progress: of plain links, as in `transfer.fetch`.
    Raises CheckpointError as `fetch_weight` does; WrongFileError for a file with another hash.
    """
    place, failures = place_of(row, cache), []
    if place.exists():
        if place.is_file():
            check_sha256(place, row.sha256)
        return Fetched(path=place)
    links = [] if constants.HF_HUB_OFFLINE else [link for link in (row.url, *row.mirrors) if link is not None]
    if row.repo is not None:
        try:
            return Fetched(path=download(row.repo, revision=row.revision, cache=cache), link=row.link)
        except CheckpointError as error:
            failures.append(str(error))
    try:
        if links:
            return fetch_first(
                links, place, sha256=row.sha256, keep_wrong=keep_wrong, progress=progress, failures=failures
            )
        reason = "; ".join(failures) or ("no link was published" if row.kind == "unlinked" else "offline")
    except WrongFileError:
        raise
    except CheckpointError as error:
        reason = str(error)
    raise CheckpointError(f"{row.name} is not available ({reason}); {_manual_download(row, place)}")


def _manual_download(row: Weight, place: Path) -> str:
    if row.link is None:
        return "load a file that you have by its path"
    mirrors = f" (or {', '.join(row.mirrors)})" if row.mirrors else ""
    known = f"its sha256 begins with {row.sha256}" if row.sha256 else "its sha256 was not published"
    return f"download {row.link}{mirrors} yourself and save it as {place}; {known}"


def fetch_url(url: str, target: str | Path, *, sha256: str | None = None) -> Path:
    """Download `url` to the file `target` unless it is there; it appears whole or not at all.

    sha256: of the file, or its first digits. Raises CheckpointError when the download fails, or brings another file.
    """
    return fetch(url, Path(target), sha256=sha256)


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
        raise _UnreachableError(one_line(error)) from error


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
        f"no file {source!r}, and revision {revision!r} of a hub repository of that name is not available ({why}): "
        f"{there}; check the path, or download it once with a connection"
    )


def _choose(source: str, names: Collection[str], place: str, file: str | None = None) -> tuple[str | None, list[str]]:
    """(the file to load, or None for the folder; the files to have); `place` is what an error calls the repository.

    file: the one that the user names.
    """
    top = sorted(name for name in names if "/" not in name)
    if file is not None:
        if file not in names:
            raise CheckpointError(f"{place} holds no {file}; it holds {_listed(sorted(names)) or 'nothing'}")
        folder = file.rpartition("/")[0]
        beside = [name for name in names if name.rpartition("/")[0] == folder and name.endswith(".json")]
        return file, sorted({file, *beside})
    weights = next((name for name in TRANSFORMERS_WEIGHTS if name in top), None)
    if weights and ("config.json" in top or weights.endswith(".json")):
        shards = fnmatch.filter(top, weights.removesuffix(".index.json").replace(".", "-*-of-*."))
        beside = [name for name in ("config.json", "preprocessor_config.json") if name in top]
        return None, [*beside, weights, *(shards if weights.endswith(".json") else ())]
    if set(folders.KERAS) <= set(top):
        return None, [*folders.KERAS, *(name for name in folders.PRESET_TASK if name in top)]
    if weights:  # beside the training's own checkpoints
        return weights, [weights]
    unfinished = next((name for name in folders.RUN_CHECKPOINTS if name in top), None)
    if folders.RECIPE in top and unfinished:
        return None, [folders.RECIPE, unfinished]
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
        raise CheckpointError(f"download of {source!r} failed: {one_line(error)}; try again") from error


def _require_shards(source: str, folder: Path, wanted: list[str]) -> None:
    """Raise CheckpointError when the cache lacks a shard that the index names."""
    from .files import shards_of

    for index in (name for name in wanted if name.endswith(".index.json")):
        missing = [shard for shard in shards_of(folder / index) if not (folder / shard).is_file()]
        if missing:
            raise CheckpointError(
                f"{source!r} lacks {_listed(missing)}, which {index} names; download it again with a connection"
            )


def _listed(names: list[str]) -> str:
    more = f", … ({len(names) - SHOWN} more)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
