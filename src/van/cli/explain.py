"""Show what a network's answer is based on, as pictures and arrays: Grad-CAM and the maps of large kernel attention.

Each image gives cam.png, attention_stage1.png … and explanation.npz in --out; several images get a folder each.
--erf adds the model's effective receptive field, erf.png and erf.npz, for which no image is needed. A bad image is
reported and skipped; exit code 1 when some failed, 2 when none could be done.

van explain model.safetensors cat.jpg --out explanation
van explain model.safetensors photos/ --target 'tabby cat' --stages 1 4
van explain model.safetensors --erf
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError
from .inference import image_size
from .output import progress_bar, say
from .predict import stems_of
from .results import COMPLAINTS

if TYPE_CHECKING:
    from ..inference.predictor import Failure, Predictor
    from ..inference.session import Session
    from ..tools.explain import Explainer, Explanation

OUT = "explanation"
LONGEST = ".explanation"  # room that a folder's name leaves


def add_arguments(parser: Any) -> None:
    """Options of `van explain`."""
    parser.add_argument("checkpoint", help="a checkpoint file, folder, hub id or published weights; no exported file")
    parser.add_argument("paths", nargs="*", help="images, folders, globs such as 'photos/**/*.jpg'")
    parser.add_argument("--out", default=OUT, help=f"the folder of the pictures and arrays (default: {OUT}/)")
    parser.add_argument("--target", help="name or index of the class to explain (default: the network's own answer)")
    parser.add_argument("--stages", nargs="+", type=int, help="whose attention is drawn, from 1 (default: all)")
    parser.add_argument("--opacity", type=float, default=0.5, help="of the colours, 0 to 1")
    parser.add_argument("--size", help="of the input in pixels, as 384 or 224x320 (default: the model's own)")
    parser.add_argument("--classes", help="names of the classes: a text or JSON file in their order, or imagenet-1k")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, …")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16 or fp16")
    parser.add_argument("--ema", action="store_true", help="the averaged weights of a file that holds both")
    parser.add_argument("--ignore-exif", action="store_true", help="pixels as stored, not turned")
    field = parser.add_argument_group("effective receptive field")
    field.add_argument("--erf", action="store_true", help="of the images, or without any of noise")
    field.add_argument("--erf-size", type=int, help="side of the inputs in pixels (default: 1024)")
    field.add_argument(
        "--erf-count", type=int, help="inputs to average over (default: 4, or the images given if fewer)"
    )
    field.add_argument("--erf-seed", type=int, help="of the noise (default: 0)")


def run(options: Any) -> int:
    """Explain every image as it comes; name bad images on stderr."""
    from ..inference.predictor import find_images
    from ..tools.explain.explanation import check_opacity

    check_opacity(options.opacity)
    _check(options)
    images, failures = find_images(options.paths) if options.paths else ([], [])
    if options.paths and not images:
        raise DataError("; ".join(f"{failure.image}: {failure.reason}" for failure in failures[:COMPLAINTS]))
    out = _folder(options.out)
    if not images:
        _receptive_field(_session(options), options, out, [])
        return 0
    explainer = _explainer(options)
    target = explainer.class_index(options.target)
    explained = _Explained(failures)
    explained.all(explainer, images, target, options.opacity, out)
    if options.erf and explained.images:
        _receptive_field(explainer.predictor, options, out, explained.images)
    return explained.exit_code()


def _check(options: Any) -> None:
    if not options.paths and not options.erf:
        raise ConfigError("there is no image to explain; give some, or --erf for the effective receptive field alone")
    for name in ("erf_size", "erf_count", "erf_seed"):
        if getattr(options, name) is not None and not options.erf:
            raise ConfigError(f"--{name.replace('_', '-')} belongs to --erf; give that too, or leave it out")
    if options.paths and options.erf_seed is not None:
        raise ConfigError("--erf-seed is of noise, and images are given; leave it out")
    for name in ("target", "stages", "size", "classes"):
        if not options.paths and getattr(options, name) is not None:
            raise ConfigError(f"--{name} is for images, and none is given; leave it out")


def _folder(out: str) -> Path:
    from ..files import why_no_path

    if reason := why_no_path(out):
        raise ConfigError(f"cannot write into {out!r}: it {reason}; give a folder")
    if Path(out).exists() and not Path(out).is_dir():
        raise ConfigError(f"cannot write into {out}: a file is there; give a folder")
    return Path(out)


def _session(options: Any) -> Session:
    from ..inference.session import open_session

    chosen = {name: getattr(options, name) for name in ("device", "precision", "ema")}
    return open_session(options.checkpoint, optimize=False, **chosen)  # hooks and gradients call its modules


def _explainer(options: Any) -> Explainer:
    from ..inference.predictor import Predictor
    from ..tools.explain import Explainer

    chosen = {name: getattr(options, name) for name in ("device", "precision", "ema", "classes")}
    if options.size is not None:
        chosen["size"] = image_size(options.size)
    predictor = Predictor(options.checkpoint, exif=not options.ignore_exif, optimize=False, **chosen)
    return Explainer(predictor, stages=options.stages)


class _Explained:
    """The images that are explained, and complaints about the others."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        self.images: list[Path] = []
        self.failed = 0
        for failure in failures:
            self._skip(failure.image, failure.reason)

    def all(self, explainer: Explainer, images: Sequence[Path], target: int | None, opacity: float, out: Path) -> None:
        """Write every image's explanation as it comes."""
        folders = {images[0]: out}
        if len(images) > 1:
            folders = {image: out / stem for image, stem in stems_of(images, longest=LONGEST).items()}
        with progress_bar() as bar:
            for image in bar.track(images, total=len(images), description="explaining"):
                try:
                    found = explainer(image, target)
                except DataError as error:
                    self._skip(str(image), str(error))
                    continue
                found.save(folders[image], opacity=opacity)
                self.images.append(image)
                say(f"{image}: {_sentence(found)}; written into {folders[image]}")

    def exit_code(self) -> int:
        """1 when some failed; raises DataError when all did."""
        if self.failed > COMPLAINTS:
            say(f"van: skipped: … {self.failed} in all", error=True)
        if not self.images:
            raise DataError(f"none of {self.failed} image(s) could be explained")
        return 1 if self.failed else 0

    def _skip(self, image: str, reason: str) -> None:
        self.failed += 1
        if self.failed <= COMPLAINTS:
            say(f"van: skipped: {reason if image in reason else f'{image}: {reason}'}", error=True)


def _sentence(found: Explanation) -> str:
    own = "the network's own answer" if found.target == found.predicted else "as asked for"
    return f"{found.label} (class {found.target}, {own}, score {found.score:.3g})"


def _receptive_field(source: Session | Predictor, options: Any, out: Path, images: Sequence[Path]) -> None:
    from ..tools.explain import effective_receptive_field

    given = {"size": options.erf_size, "count": options.erf_count, "seed": options.erf_seed}
    chosen = {name: value for name, value in given.items() if value is not None}
    found = effective_receptive_field(source, images or None, **chosen)
    found.save(out)
    say(f"{found.summary()}; written into {out}")
