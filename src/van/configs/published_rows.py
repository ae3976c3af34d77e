"""The rows of the table of published weights, publisher by publisher. Pure data, stdlib only.

No file could be opened while this table was written: sizes of heads and hashes come from the publishers' tables and
file names. What no source states is None.

Sources: the READMEs of Visual-Attention-Network/VAN-Classification (and its issue 28), VAN-Segmentation (of 2022-03 and
of 2022-07), Gsunshine/Enjoy-Hamburger, open-mmlab/mmclassification configs/van, open-mmlab/mmsegmentation projects/van
(README and configurations), EMalagoli92/VAN-Classification-TensorFlow, shkarupa-alex/tfvan (README, setup.py,
tfvan/model.py), PaddlePaddle/PaddleClas (documentation and ppcls/arch/backbone/model_zoo/van.py),
DarshanDeshpande/jax-models (README, jax_models/models/van.py); the hub's pages; transformers' conversion script.
"""

from __future__ import annotations

from dataclasses import replace

from .weight import Weight

CONTACT = "Apache-2.0; for commercial use contact the authors"
_CONVERTED = "README of VAN-Classification, from whose weights these were converted"

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

# model -> the commit of the hub's repository, seen on its page, and the size that the page shows
_OFFICIAL_REVISIONS = {
    "van_b0": ("b13047f70a3aa1706d32ea50230f631777fb4b50", "49.6 MB"),
    "van_b1": ("7c6fc223c34e2bdd3e1df51d81a9c1967ca36985", "167 MB"),
    "van_b2": ("110abc63a597f3dc5d166e891623245f3e4af1a5", "320 MB"),
    "van_b3": ("b11144513eaaad44a2c4685fd36cb10d88aa0428", "538 MB"),
}

_OFFICIAL = tuple(
    Weight(
        name=f"official/{model}",
        model=model,
        kind="hub",
        repo=f"{_ORG}/VAN-{size.title()}-original",
        revision=_OFFICIAL_REVISIONS[model][0],
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
        note=f"{_OFFICIAL_REVISIONS[model][1]}, some 12 bytes per parameter: weights and the optimizer's state, no "
        "averaged weights",
    )
    for model, size, top1, filename in _SIZES
)

# model -> a commit of the hub's repository; of the others none is known
_HUB_REVISIONS = {"van_b0": "aee7ca377624492bc4cdfc17fd1a9e65368b21e4"}
_HUB_NOTES = {"van_b0": "; the commit is the pull request that adds the weights as safetensors"}

_HUB = tuple(
    Weight(
        name=f"hub/{model}",
        model=model,
        kind="hub",
        repo=f"{_ORG}/van-{size}",
        revision=_HUB_REVISIONS.get(model),
        format="transformers",
        dataset="in1k",
        num_classes=1000,
        licence="Apache-2.0",
        licence_from=f"the hub's model card; the README of VAN-Classification, whose file was converted: {CONTACT}",
        top1=top1,
        score_from=f"the hub's model card, {_IN1K}",
        preprocess="official",
        layer_norm_eps=1e-6,
        note="its processor file probably carries ImageNet's mean and std and crop 0.875, unlike the training"
        + _HUB_NOTES.get(model, ""),
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
        note=_OPENMMLAB_NOTES[dataset],
        erratum="the table's 283.9 M parameters are those of a third stage of 480 channels, later code has 384: which "
        "of the two the file holds is unknown"
        if model == "van_b6"
        else "",
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


# ---- mmsegmentation 1.x, projects/van: converted from the segmenters and backbones above

_PROJECT = "https://download.openmmlab.com/mmsegmentation/v0.5/van_3rdparty/"
_PROJECT_SCORES = "projects/van/README of mmsegmentation, ADE20K, single-scale, of the converted weights"
# (model, name's ending, pretraining of the backbone, first digits of the sha256 in the link, mIoU)
_PROJECT_UPERNET = (
    ("upernet_van_b2", "", "in1k", "19c58aee", 49.35),
    ("upernet_van_b3", "", "in1k", "653bd6b7", 49.71),
    ("upernet_van_b4", "", "in1k", "653bd6b7", 51.56),
    ("upernet_van_b4", "_22k", "in22k", "4a4d744a", 52.61),
    ("upernet_van_b5", "_22k", "in22k", "5bb6f2b4", 53.11),
    ("upernet_van_b6", "_22k", "in22k", "e226b363", 54.25),
)
_PROJECT_FPN = (
    ("semantic_fpn_van_b0", "", "in1k", "75a76298", 38.65),
    ("semantic_fpn_van_b1", "", "in1k", "104499ff", 43.22),
    ("semantic_fpn_van_b2", "", "in1k", "7074e6f8", 46.84),
    ("semantic_fpn_van_b3", "", "in1k", "2c3b7f5e", 48.32),
)
# (model, file name without the hash, first digits of the sha256)
_PROJECT_BACKBONES = (
    ("van_b0", "van-b0_3rdparty_20230522", "956f5e0d"),
    ("van_b1", "van-b1_3rdparty_20230522", "3adb117f"),
    ("van_b2", "van-b2_3rdparty_20230522", "636fac93"),
    ("van_b3", "van-b3_3rdparty_20230522", "a184e051"),
    ("van_b4", "van-b4_3rdparty_20230522", "1d71c077"),
    ("van_b4", "van-b4-in22k_3rdparty_20230522", "5e31cafb"),
    ("van_b5", "van-b5-in22k_3rdparty_20230522", "b26134d7"),
    ("van_b6", "van-b6-in22k_3rdparty_20230522", "5e5172a3"),
)
# name -> what is wrong in the publisher's table, for rows whose link repeats another row's digits
_COPIED = {
    "openmmlab/upernet_van_b4": "its link has the digits of B3's file, 653bd6b7: one file cannot be both, so the "
    "hash of this one is unknown, and the link may lead nowhere or to B3's weights"
}


def _project_segmenter(model: str, ending: str, pretraining: str, digits: str, miou: float) -> Weight:
    name, head = f"openmmlab/{model}{ending}", "upernet" if model.startswith("upernet") else "fpn"
    stem = f"{model[-6:].replace('_', '-')}-{pretraining}pre_{head}_3rdparty_512x512-ade20k_20230522-{digits}"
    return replace(
        _SEGMENTATION,
        name=name,
        model=model,
        kind="url",
        filename=f"{stem}.pth",
        url=f"{_PROJECT}{stem}.pth",
        sha256=None if name in _COPIED else digits,
        miou=miou,
        licence_from="projects/van/README of mmsegmentation",
        score_from=_PROJECT_SCORES,
        layer_norm_eps=1e-5,
        note=f"backbone pretrained on ImageNet-{'22K' if ending else '1K'}",
        erratum=_COPIED.get(name, ""),
    )


_PROJECT_FILES = (
    *(_project_segmenter(*row) for row in (*_PROJECT_UPERNET, *_PROJECT_FPN)),
    *(
        Weight(
            name=f"openmmlab/{model}{'_22k' if '22k' in stem else ''}_backbone",
            model=model,
            kind="url",
            filename=f"{stem}-{digits}.pth",
            url=f"{_PROJECT}{stem}-{digits}.pth",
            format="mmseg",
            dataset="in21k" if "22k" in stem else "in1k",
            num_classes=0,
            sha256=digits,
            licence=CONTACT,
            licence_from="projects/van/README of mmsegmentation",
            preprocess="imagenet",
            layer_norm_eps=1e-5,
            note="where mmsegmentation's segmenters start from; the link is in projects/van/configs",
        )
        for model, stem, digits in _PROJECT_BACKBONES
    ),
)

# ---- the folder from which VAN-Segmentation's configurations take their backbones

_FOLDER = "https://cloud.tsinghua.edu.cn/d/0100f0cea37d41ba8d08/files/?p=%2F{}&dl=1"
_FOLDER_FILES = (
    *((f"van_b{i}", f"van_b{i}.pth") for i in range(5)),
    *((f"van_b{i}", f"van_b{i}_22k.pth") for i in (4, 5, 6)),
)

_TSINGHUA_FOLDER = tuple(
    Weight(
        name=f"tsinghua/{filename.removesuffix('.pth')}",
        model=model,
        kind="url",
        filename=filename,
        url=_FOLDER.format(filename),
        format="official",
        dataset="in21k" if "22k" in filename else "in1k",
        num_classes=None,
        licence=CONTACT,
        licence_from="README of VAN-Segmentation",
        preprocess="imagenet" if "22k" in filename else "official",
        layer_norm_eps=1e-6,
        note="the names are those in VAN-Segmentation's and mmsegmentation's configurations; what the files hold was "
        "never listed"
        + ("; files fine-tuned from ImageNet-22K to ImageNet-1K were never released" if "22k" in filename else ""),
    )
    for model, filename in _FOLDER_FILES
)

# ---- ports to other libraries

# (model, the port's name for it, sha256, top-1 and top-5 on ImageNet-V2)
_TFVAN_FILES = (
    ("van_b0", "van_tiny", "af4693df46f37535b5f7c104b342fe97cf14c706e4615af1c8b1f41824f92a6a", 61.59, 84.52),
    ("van_b1", "van_small", "ccc1d0a08b3b01d1cd8a474415c2c5aaf918a5c55c5c2ca3ee7a307c7973b9a6", 68.62, 88.54),
    ("van_b2", "van_base", "b6575016e1010047413d28977daeee94589f70909ee1de8cd0bee11337a7eb37", None, None),
    ("van_b3", "van_large", "0cf52f5cb2c7aea84667ee3f7bb897ad8c1fbe3057fe99211a583def349696c1", None, None),
)

_TFVAN = tuple(
    Weight(
        name=f"tfvan/{model}",
        model=model,
        kind="url",
        filename=f"{size}.h5",
        url=f"https://github.com/shkarupa-alex/tfvan/releases/download/1.0.0/{size}.h5",
        format="tfvan",
        dataset="in1k",
        num_classes=1000,
        sha256=sha256,
        licence=f"MIT, converted from weights under {CONTACT}",
        licence_from="setup.py of the port; README of VAN-Classification",
        top1=top1,
        top5=top5,
        score_from="README of tfvan, ImageNet-V2" if top1 else None,
        preprocess="official",
        layer_norm_eps=1.001e-5,
    )
    for model, size, sha256, top1, top5 in _TFVAN_FILES
)

_PADDLE = tuple(
    Weight(
        name=f"paddle/{model}",
        model=model,
        kind="url",
        filename=f"{model.upper()}_pretrained.pdparams",
        url=f"https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/{model.upper()}_pretrained.pdparams",
        format="paddle",
        dataset="in1k",
        num_classes=1000,
        licence="Apache-2.0",
        licence_from="PaddleClas; if its weights were converted, the README of VAN-Classification applies: " + CONTACT,
        top1=top1,
        top5=top5,
        score_from=f"PaddleClas's list of models, {_IN1K}",
        preprocess="official",
        layer_norm_eps=1e-6,
    )
    for model, top1, top5 in (
        ("van_b0", 75.35, 92.99),
        ("van_b1", 81.02, 95.62),
        ("van_b2", 82.80, 96.20),
        ("van_b3", 83.89, 96.68),
    )
)

_FLAX = tuple(
    Weight(
        name=f"flax/{model}",
        model=model,
        kind="url",
        filename=f"van_{size}.weights",
        url=f"https://github.com/DarshanDeshpande/jax-models/releases/download/v0.5-van/van_{size}.weights",
        format="flax",
        dataset="in1k",
        num_classes=1000,
        licence=f"Apache-2.0, converted from weights under {CONTACT}",
        licence_from="README of jax-models; README of VAN-Classification",
        preprocess="official",
        layer_norm_eps=1e-6,
        note="the port computes GELU by its tanh approximation, which these weights were not trained with",
    )
    for model, size, _, _ in _SIZES
)

# ---- the smallest real file there is, for a first contact with the network

SMOKE = Weight(
    name="hub/tiny_random",
    model="van_custom",
    kind="hub",
    repo="hf-tiny-model-private/tiny-random-VanModel",
    format="transformers",
    dataset="none",
    num_classes=0,
    licence="none is stated",
    licence_from="the hub's page",
    preprocess="official",
    layer_norm_eps=1e-6,
    note="1.6 MB of random weights, which transformers' own tests use",
)

ROWS: tuple[Weight, ...] = (
    *_OFFICIAL,
    *_HUB,
    *_MMPRETRAIN,
    *_KERAS,
    *_MMSEG,
    *_PROJECT_FILES,
    *_TSINGHUA_FOLDER,
    *_TFVAN,
    *_PADDLE,
    *_FLAX,
    SMOKE,
)
