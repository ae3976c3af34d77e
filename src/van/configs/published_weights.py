"""Every published weight file known by name: where it is, whose it is, how it scores. Pure data, stdlib only.

What no source states is None. No file could be opened while this table was written: sizes of heads and hashes come
from the publishers' tables and file names; `van verify-weights` downloads the files and checks them.

Sources: the READMEs of Visual-Attention-Network/VAN-Classification, VAN-Segmentation (of 2022-03 and of
2022-07), Gsunshine/Enjoy-Hamburger, open-mmlab/mmclassification configs/van and
EMalagoli92/VAN-Classification-TensorFlow; the hub's model card of van-tiny; transformers' conversion script.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..errors import ConfigError, UnknownNameError

CONTACT = "Apache-2.0; for commercial use contact the authors"


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One published weight file.

    name: this table's own, "publisher/model". model: the name `create_model` knows.
    kind: where it is: "hub" (a repository of the Hugging Face hub), "url" (a direct download), "google-drive" (a page
        that requires a browser) or "unlinked" (scores were published, a file was not).
    repo, filename: of the hub; filename alone: what the publisher calls the file. url, mirrors: links as published.
    format: as in `van.checkpoints.Checkpoint`. dataset: "in1k", "in21k" or "ade20k", what it was trained on last.
    num_classes: None when unknown. sha256: of the file, whole or its first digits; None when unknown.
    licence, licence_from: its text in short, and who states it.
    top1, top5, miou: published scores in percent; score_from: where, on what.
    preprocess: name of a record in `van.images.preprocess`, in lower case ("official" or "imagenet").
    layer_norm_eps: of its lineage. note: what else there is to know.
    """

    name: str
    model: str
    kind: str
    format: str
    dataset: str
    num_classes: int | None
    licence: str
    licence_from: str
    preprocess: str
    layer_norm_eps: float
    task: str = "classification"
    repo: str | None = None
    filename: str | None = None
    url: str | None = None
    mirrors: tuple[str, ...] = ()
    sha256: str | None = None
    top1: float | None = None
    top5: float | None = None
    miou: float | None = None
    score_from: str | None = None
    note: str = ""

    @property
    def source(self) -> str | None:
        """One line that says where the file is: `hub:org/name/file` or the link; None without one."""
        if self.repo:
            return f"hub:{self.repo}" + (f"/{self.filename}" if self.filename else "")
        return self.url

    @property
    def scores(self) -> str:
        """`75.41 / 93.02` (top-1 / top-5) or `mIoU 41.1`; '' when none was published."""
        if self.miou is not None:
            return f"mIoU {self.miou:g}"
        return " / ".join(f"{score:g}" for score in (self.top1, self.top5) if score is not None)


def find(pattern: str = "*") -> list[Weight]:
    """Rows whose name, model, hub repository or file name match a shell-style pattern, upper and lower case alike.

    A pattern without wildcards also matches a part: "openmmlab", "van_b0", "van-tiny".
    Raises UnknownNameError when nothing matches.
    """
    wanted = pattern.lower()
    if not any(sign in wanted for sign in "*?["):
        exact = [row for row in WEIGHTS if wanted in _names(row)]
        if exact:
            return exact
        wanted = f"*{wanted}*"
    rows = [row for row in WEIGHTS if any(fnmatch.fnmatchcase(name, wanted) for name in _names(row))]
    if not rows:
        raise UnknownNameError.of("published weight", pattern, [row.name for row in WEIGHTS])
    return rows


def by_name(name: str) -> Weight | None:
    """The row of this name, upper and lower case alike; None for a name that is not in the table."""
    return next((row for row in WEIGHTS if row.name == name.lower()), None)


def pretrained(model: str) -> Weight:
    """The default row of a model: of ImageNet-1K or ADE20K, one that can be downloaded before one that cannot.

    Raises ConfigError for a model without one.
    """
    rows = [row for row in WEIGHTS if row.model == model]
    fitting = [row for row in rows if row.dataset in ("in1k", "ade20k")]
    if fitting:
        return min(fitting, key=lambda row: ("hub", "url", "google-drive", "unlinked").index(row.kind))
    others = f"; others have names: {', '.join(row.name for row in rows)}" if rows else ""
    raise ConfigError(f"no weights of {model} for ImageNet-1K or ADE20K were published{others}")


def by_hub_id(repo: str) -> Weight | None:
    """The row of a hub repository, upper and lower case alike; None for a repository that is not in the table."""
    return next((row for row in WEIGHTS if row.repo and row.repo.lower() == repo.lower()), None)


def by_filename(filename: str) -> Weight | None:
    """The row of a file as its publisher named it; None for a name that is not in the table or is there twice."""
    rows = [row for row in WEIGHTS if row.filename == filename]
    return rows[0] if len(rows) == 1 else None


def markdown(rows: Iterable[Weight] | None = None) -> str:
    """The rows (all by default) as a Markdown table."""
    lines = ["| weight | model | format | trained on | score | licence | file |", "|---|---|---|---|---|---|---|"]
    for row in WEIGHTS if rows is None else rows:
        cells = (row.name, row.model, row.format, row.dataset, row.scores, row.licence, row.source or "not published")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _names(row: Weight) -> set[str]:
    names = (row.name, row.model, row.repo, row.filename)
    return {name.lower() for name in names if name}


_IN1K = "ImageNet-1K validation"
# (model, the authors' first name for it, top-1, file name)
_SIZES = (
    ("van_b0", "tiny", 75.4, "van_tiny_754.pth.tar"),
    ("van_b1", "small", 81.1, "van_small_811.pth.tar"),
    ("van_b2", "base", 82.8, "van_base_828.pth.tar"),
    ("van_b3", "large", 83.9, "van_large_839.pth.tar"),
)
_ORG = "Visual-Attention-Network"
_DRIVE = "https://drive.google.com/file/d/{}/view?usp=sharing"
_TSINGHUA = "https://cloud.tsinghua.edu.cn/f/{}/?dl=1"
_OPENMMLAB = "https://download.openmmlab.com/mmclassification/v0/van/"

# model -> Google Drive and Tsinghua Cloud copies of the official file
_OFFICIAL_COPIES = {
    "van_b0": ("1KYoIe1Zl3ZaPCwRuvnpkLyOEK04JKemu", "aada2242a16245d6a561"),
    "van_b1": ("1LFsJHwxAs1TcXAjJ28G86_jwYwV8DzuG", "dd3eb73692f74a2499c9"),
    "van_b2": ("1qApsgXCbngNYOji2UzJsfeEsPOu6dBo3", "58e7acceaf334ecdba89"),
    "van_b3": ("10n6u-W3IrqiCD-7wkotejV_1XiS9kuWF", "0201745f6920482490a0"),
}

_OFFICIAL = tuple(
    Weight(
        name=f"official/{model}",
        model=model,
        kind="hub",
        repo=f"{_ORG}/VAN-{size.title()}-original",
        filename=filename,
        mirrors=(_DRIVE.format(_OFFICIAL_COPIES[model][0]), _TSINGHUA.format(_OFFICIAL_COPIES[model][1])),
        format="official",
        dataset="in1k",
        num_classes=1000,
        licence=CONTACT,
        licence_from="README of VAN-Classification",
        top1=top1,
        score_from=f"README of VAN-Classification, {_IN1K}",
        preprocess="official",
        layer_norm_eps=1e-6,
    )
    for model, size, top1, filename in _SIZES
)

_HUB = tuple(
    Weight(
        name=f"hub/{model}",
        model=model,
        kind="hub",
        repo=f"{_ORG}/van-{size}",
        format="transformers",
        dataset="in1k",
        num_classes=1000,
        licence="Apache-2.0",
        licence_from=f"the hub's model card; the README of VAN-Classification, whose file was converted: {CONTACT}",
        top1=top1,
        score_from=f"the hub's model card, {_IN1K}",
        preprocess="official",
        layer_norm_eps=1e-6,
        note="its processor file probably carries ImageNet's mean and std and crop 0.875, unlike the training",
    )
    for model, size, top1, _ in _SIZES
)

# (model, dataset, file name without its hash, first digits of the file's sha256, top-1, top-5)
_OPENMMLAB_FILES = (
    ("van_b0", "in1k", "van-tiny_8xb128_in1k_20220501", "385941af", 75.41, 93.02),
    ("van_b1", "in1k", "van-small_8xb128_in1k_20220501", "17bc91aa", 81.01, 95.63),
    ("van_b2", "in1k", "van-base_8xb128_in1k_20220501", "6a4cc31b", 82.80, 96.21),
    ("van_b3", "in1k", "van-large_8xb128_in1k_20220501", "f212ba21", 83.86, 96.73),
    ("van_b4", "in1k", "van-b4_3rdparty_in1k_20220909", "f4665b92", 84.13, 96.86),
    ("van_b4", "in21k", "van-b4_3rdparty_in21k_20220909", "db926b18", None, None),
    ("van_b5", "in21k", "van-b5_3rdparty_in21k_20220909", "18e904e3", None, None),
    ("van_b6", "in21k", "van-b6_3rdparty_in21k_20220909", "96c2cb3a", None, None),
)
_OPENMMLAB_NOTES = {
    "in1k": "converted from the official weights",
    "in21k": "for fine-tuning; whether it has a head of 21841 classes or none is unknown",
}

_MMPRETRAIN = tuple(
    Weight(
        name=f"openmmlab/{model}" + ("_in21k" if dataset == "in21k" else ""),
        model=model,
        kind="url",
        filename=f"{stem}-{digits}.pth",
        url=f"{_OPENMMLAB}{stem}-{digits}.pth",
        format="mmpretrain",
        dataset=dataset,
        num_classes=1000 if dataset == "in1k" else None,
        sha256=digits,
        licence=CONTACT,
        licence_from="README of VAN-Classification, from whose weights these were converted",
        top1=top1,
        top5=top5,
        score_from=f"configs/van/README of mmclassification, {_IN1K}" if top1 else None,
        preprocess="official" if dataset == "in1k" else "imagenet",
        layer_norm_eps=1e-5,
        note=_OPENMMLAB_NOTES[dataset]
        + ("; the table's 283.9 M say a third stage of 480, later code 384" if model == "van_b6" else ""),
    )
    for model, dataset, stem, digits, top1, top5 in _OPENMMLAB_FILES
)

# ImageNet-V2 top-1 and top-5, given there as fractions with two digits
_KERAS = tuple(
    Weight(
        name=f"keras/{model}",
        model=model,
        kind="url",
        filename=f"{model}.h5",
        url=f"https://github.com/EMalagoli92/VAN-Classification-TensorFlow/releases/download/1.0.3/{model}.h5",
        format="keras",
        dataset="in1k",
        num_classes=1000,
        licence=f"MIT, converted from weights under {CONTACT}",
        licence_from="README of the port; README of VAN-Classification",
        top1=top1,
        top5=top5,
        score_from="README of VAN-Classification-TensorFlow, ImageNet-V2",
        preprocess="official",
        layer_norm_eps=1e-6,
        note="the link is what the port's release 1.0.3 composes",
    )
    for model, top1, top5 in (("van_b0", 59, 81), ("van_b1", 64, 84), ("van_b2", 69, 88), ("van_b3", 71, 89))
)

_SEGMENTATION = Weight(
    name="",
    model="",
    kind="google-drive",
    task="segmentation",
    format="mmseg",
    dataset="ade20k",
    num_classes=150,
    licence=CONTACT,
    licence_from="README of VAN-Segmentation",
    score_from="README of VAN-Segmentation, ADE20K, multi-scale",
    preprocess="imagenet",
    layer_norm_eps=1e-6,
)

# (model, mIoU, Google Drive id)
_HAM_FILES = (
    ("light_ham_van_b0_d256", 40.9, "11XjGgqgqWJOUKdIEWuInQJyi4wAChaWN"),
    ("light_ham_van_b0", 42.3, "1MkjNxqOuoVtt58jIKY-11B6TfDrdH1sX"),
    ("light_ham_van_b1", 45.7, "1ocFNvV2Dr8kXsytY_9QO5FBGk1zTOgS3"),
    ("light_ham_van_b2", 49.6, "1-wVJgdztqWYv-MvCp6deFO0pDpciAg6h"),
    ("light_ham_van_b3", 51.0, "1iW-upuWcZybJyGv8_3qnpgGoX0Wq9emk"),
    ("hamnet_van_b0", 41.5, "1T1BxnBr4rErKaKiUwp_xF-Ik7j7jINJR"),
    ("hamnet_van_b1", 45.1, "1kfZIMZINOprSL6G113sm_KjPlE10nbWz"),
    ("hamnet_van_b2", 48.7, "1jH1jx6KPckEL0-Ozje0koT8uFw0Bjyfi"),
    ("hamnet_van_b3", 50.2, "1tPEQ9W1Pn_Bmkn3eGOtjM8dMZ0mTK4ka"),
)
_HAM_FILES_ELSEWHERE = (
    ("light_ham_van_b1_d256", 45.2, "1ZrGf5hqCM8VJrrp6HgFeuCSTc7jiAcgP"),
    ("light_ham_van_b4", 51.5, "1ri-rnapaBRK2oW3CuYNZaTdGGUeZC9x7"),
)
_FPN_FILES = (
    ("semantic_fpn_van_b0", 38.5, "1Jl8LtyvOl6xeNMKCjpK2Rp_tGRfua8LJ"),
    ("semantic_fpn_van_b1", 42.9, "1Xfuo9D3Fo7b6zSCLTWE77k2jgYSHVSb8"),
    ("semantic_fpn_van_b2", 46.7, "1Ar4Hq9DjgaULQKfwM-jJvSO-D6gendpf"),
    ("semantic_fpn_van_b3", 48.1, "1v61uCi07IC6eyVHn3xbJqz4nOiGa1POY"),
)
# (model, name's ending, mIoU, Tsinghua Cloud id)
_UPERNET_FILES = (
    ("upernet_van_b2", "", 50.1, "68c8b494f3824d30bf07"),
    ("upernet_van_b3", "", 50.6, "97bde65fbe334b358797"),
    ("upernet_van_b4", "", 52.2, "5273f92c77a94395b804"),
    ("upernet_van_b4", "_22k", 53.5, "8f1f0a9c4c71478fa43b"),
    ("upernet_van_b5", "_22k", 53.9, "2175bdc39d094e5f8f99"),
    ("upernet_van_b6", "_22k", 54.7, "853d9d0ea0f44c2aa090"),
)
# (model, name's ending, mIoU, LayerNorm epsilon, note)
_UPERNET_UNLINKED = (
    ("upernet_van_b0", "", 41.1, 1e-5, "scores in both READMEs, a link in neither"),
    ("upernet_van_b1", "", 44.9, 1e-5, "scores in both READMEs, a link in neither"),
    ("upernet_van_b2", "_2022_03", 48.3, 1e-6, "a score in the README of 2022-03, no link; another run than the later"),
    ("upernet_van_b3", "_2022_03", 50.1, 1e-6, "a score in the README of 2022-03, no link; another run than the later"),
)


def _drive(model: str, miou: float, drive_id: str, like: Weight) -> Weight:
    return replace(like, name=f"segmentation/{model}", model=model, miou=miou, url=_DRIVE.format(drive_id))


_ELSEWHERE = replace(
    _SEGMENTATION,
    licence_from="README of VAN-Segmentation, by the same authors; Enjoy-Hamburger's seg_light_ham states none",
    score_from="seg_light_ham/README of Enjoy-Hamburger, ADE20K, multi-scale",
)
_FPN = replace(
    _SEGMENTATION,
    score_from="README of VAN-Segmentation, ADE20K, single-scale",
    note="the READMEs of 2022-03 and 2022-07 link the same file",
)

_MMSEG = (
    *(_drive(*row, _SEGMENTATION) for row in _HAM_FILES),
    *(_drive(*row, _ELSEWHERE) for row in _HAM_FILES_ELSEWHERE),
    *(_drive(*row, _FPN) for row in _FPN_FILES),
    *(
        replace(
            _SEGMENTATION,
            name=f"segmentation/{model}{ending}",
            model=model,
            kind="url",
            miou=miou,
            url=_TSINGHUA.format(cloud_id),
            layer_norm_eps=1e-5,
            score_from="README of VAN-Segmentation (2022-07), ADE20K, multi-scale",
            note="backbone pretrained on ImageNet-22K" if ending else "backbone pretrained on ImageNet-1K",
        )
        for model, ending, miou, cloud_id in _UPERNET_FILES
    ),
    *(
        replace(
            _SEGMENTATION,
            name=f"segmentation/{model}{ending}",
            model=model,
            kind="unlinked",
            miou=miou,
            layer_norm_eps=eps,
            note=note,
        )
        for model, ending, miou, eps, note in _UPERNET_UNLINKED
    ),
)

WEIGHTS: tuple[Weight, ...] = (*_OFFICIAL, *_HUB, *_MMPRETRAIN, *_KERAS, *_MMSEG)
