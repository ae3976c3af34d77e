"""What a run's report shows of its model: confusion matrix, classes, the images that it got most wrong."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...data.infinite_sampler import spread
from ...data.segmentation import SegmentationData
from ...images.confusion_picture import confusion_picture
from ...images.label_maps import overlay
from ...recipes import AnyRecipe, Recipe, SegmentationRecipe
from ...tasks.classification.meter import ClassificationMeter
from ...tasks.segmentation.confusion_matrix import ConfusionMatrix
from ...train.folder import MODEL
from ...train.segmentation.prepare import open_pictures
from ...train.sources import open_images
from .evaluator import MaskMiss, Miss, look, look_at_masks, small, validation_images


def evaluation(folder: Path, recipe: AnyRecipe, *, device: str) -> str:
    """The parts of the page that need a finished run's model and validation images."""
    if isinstance(recipe, SegmentationRecipe):
        return _segmented(folder, recipe, device)
    return _classified(folder, recipe, device)


def _classified(folder: Path, recipe: Recipe, device: str) -> str:
    """Confusion matrix and worst images of a classifier."""
    _, val = open_images(recipe)
    batch_size = recipe.trainer.eval_batch_size or 32
    images = validation_images(val, recipe)
    meter, misses = look(folder / MODEL, images, val.classes, device=device, batch_size=batch_size)
    title = f"{meter.count} images, top-1 {meter.top1:.2f}%"
    return _matrix(meter.confusion(), val.classes, title) + _class_scores(meter) + _worst(misses, meter)


def _segmented(folder: Path, recipe: SegmentationRecipe, device: str) -> str:
    """Scores per class, confusion matrix and worst pictures of a segmenter."""
    _, val = open_pictures(recipe.data)
    matrix, misses = look_at_masks(folder / MODEL, val, images=recipe.data.val_images, device=device)
    count = len(spread(len(val), recipe.data.val_images))
    title = f"pixels of {count} images, mIoU {matrix.summary()['mIoU']:.2%}"
    return _classes(matrix, val) + _matrix(matrix.counts, val.classes, title) + _worst_masks(misses, val)


def _matrix(counts: np.ndarray, classes: Sequence[str], title: str) -> str:
    picture = _inline(confusion_picture(counts, classes, title))
    return f'<h2>Confusion matrix</h2><img class="matrix" alt="confusion matrix" src="{picture}">'


def _class_scores(meter: ClassificationMeter) -> str:
    """Precision, recall and F1 of every class, and their means."""
    rows = "".join(
        f"<tr><td>{html.escape(score.name)}</td>"
        f'<td><span class="bar"><i style="width:{score.f1:.1f}%"></i></span>{score.f1:.1f}%</td>'
        f"<td>{score.precision:.1f}%</td><td>{score.recall:.1f}%</td><td>{score.count:,}</td>"
        f"<td>{html.escape(score.confused_with or '')}</td></tr>"
        for score in meter.per_class()
    )
    mean = meter.macro()
    rows += (
        f"<tr><td>mean over classes</td><td>{mean['macro_f1']:.1f}%</td><td>{mean['macro_precision']:.1f}%</td>"
        f"<td>{mean['macro_recall']:.1f}%</td><td>{meter.count:,}</td><td></td></tr>"
    )
    names = ("class", "F1", "precision", "recall", "images", "most confused with")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f'<h3>Classes</h3><div class="wide"><table><tr>{head}</tr>{rows}</table></div>'


def _worst(misses: Sequence[Miss], meter: ClassificationMeter) -> str:
    cells = [
        f'<figure><img alt="" src="{_inline(_png(miss.image))}"><figcaption><span class="wrong">'
        f"{html.escape(miss.predicted)}</span> {miss.probability:.0%}<br>is {html.escape(miss.true)}<br>"
        f'<span class="soft">{html.escape(Path(miss.name).name)}</span></figcaption></figure>'
        for miss in misses
    ]
    if not cells:
        return f"<h2>Worst-classified images</h2><p>None of {meter.count} images is wrong.</p>"
    return f'<h2>Worst-classified images</h2><div class="worst">{"".join(cells)}</div>'


def _classes(matrix: ConfusionMatrix, data: SegmentationData) -> str:
    """IoU and accuracy of every class, with its colour."""
    rows = "".join(
        f"<tr><td>{_swatch(color)}{html.escape(row['class'])}</td>"
        f'<td><span class="bar"><i style="width:{0 if np.isnan(row["IoU"]) else row["IoU"]:.1%}"></i></span>'
        f"{_share(row['IoU'])}</td><td>{_share(row['Acc'])}</td><td>{row['label_pixels']:,}</td>"
        f"<td>{row['predicted_pixels']:,}</td></tr>"
        for row, color in zip(matrix.table(data.classes), data.palette, strict=True)
    )
    head = "".join(f"<th>{name}</th>" for name in ("class", "IoU", "accuracy", "pixels", "predicted"))
    return f'<h2>Classes</h2><div class="wide"><table><tr>{head}</tr>{rows}</table></div>'


def _worst_masks(misses: Sequence[MaskMiss], data: SegmentationData) -> str:
    title = "<h2>Worst-segmented images</h2>"
    if not misses:
        return f"{title}<p>No pixel is wrong.</p>"
    rows = []
    for miss in misses:
        painted = [overlay(miss.image, mask, data.palette, opacity=0.6) for mask in (miss.label, miss.predicted)]
        cells = "".join(
            f'<figure><img alt="" src="{_inline(_png(small(image)))}"><figcaption>{what}</figcaption></figure>'
            for what, image in zip(("picture", "label", "prediction"), (miss.image, *painted), strict=True)
        )
        name = html.escape(Path(miss.name).name)
        line = f'<div class="soft">mIoU {_share(miss.iou)} · {name}</div>'
        rows.append(f'<div class="mask"><div class="three">{cells}</div>{line}</div>')
    return f'{title}<div class="masks">{"".join(rows)}</div>'


def _swatch(color: Sequence[int]) -> str:
    return f'<span class="swatch" style="background:rgb({",".join(map(str, color))})"></span>'


def _share(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.1%}"


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    (image if image.mode in ("RGB", "L") else image.convert("RGB")).save(buffer, "PNG")
    return buffer.getvalue()


def _inline(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
