"""Answers as HTML: a panel per model with its picture, its findings as bars, and how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ...files import printable
from ...tasks.base import Finding
from .answers import Answer
from .layers import layers

SHOWN = 12  # findings of a panel
WELCOME = '<p class="van-note">Add an image, or choose an example.</p>'


def panels(answers: Sequence[Answer]) -> str:
    """The panels of some models, side by side where there is room."""
    return f'<div class="van-panels" data-count="{len(answers)}">{"".join(map(panel, answers))}</div>'


def alert(text: str) -> str:
    """What went wrong, read out by screen readers."""
    return f'<p class="van-alert" role="alert">{_safe(text)}</p>'


def panel(answer: Answer) -> str:
    """One model: name, picture, findings, times."""
    name = f"{_safe(answer.model.name)} <small>{_safe(answer.model.kind)}</small>"
    if answer.output is None:
        body = alert(answer.failure)
    else:
        facts = f"{_explained(answer)}{_findings(answer)}{_times(answer)}"
        body = f'<div class="van-body">{_stack(answer)}<div class="van-facts">{facts}</div></div>'
    return f'<section class="van-panel"><h2>{name}</h2>{body}</section>'


def _stack(answer: Answer) -> str:
    """The layers on one another; which of them is seen, and how much, is the style sheet's."""
    width, height = answer.image.size
    images = "".join(
        f'<img src="{layer.address}" alt="{_safe(layer.alt)}" data-layer="{layer.view or "image"}"'
        f"{f' data-stage={layer.stage}' if layer.stage else ''}{' data-fades' if layer.fades else ''}>"
        for layer in layers(answer)
    )
    return f'<div class="van-stack" style="--width:{width};--height:{height}">{images}</div>'


def _explained(answer: Answer) -> str:
    if answer.explanation is not None:
        return f'<p class="van-note van-cam">Grad-CAM for “{_safe(answer.explanation.label)}”</p>'
    text = f"No explanation: {_safe(answer.unexplained)}" if answer.unexplained else "Explaining …"
    return f'<p class="van-note van-unexplained">{text}</p>'


def _findings(answer: Answer) -> str:
    output = answer.output
    if output is None or not (found := output.findings()):
        return '<p class="van-note">Nothing was found.</p>'
    heading = f"<h3>{_safe(output.measure.capitalize())}</h3>"
    more = f'<p class="van-note">and {len(found) - SHOWN} more</p>' if len(found) > SHOWN else ""
    return f'{heading}<ul class="van-bars">{"".join(map(_bar, found[:SHOWN]))}</ul>{more}'


def _bar(finding: Finding) -> str:
    swatch = ""
    if finding.color is not None:
        swatch = f'<span class="van-swatch" style="background:rgb{finding.color}"></span>'
    share = min(max(finding.score, 0.0), 1.0)
    return (
        f'<li>{swatch}<span class="van-label">{_safe(finding.label)}</span> <span class="van-score">{finding.score:.1%}'
        f'</span><span class="van-track"><span style="width:{share:.2%}"></span></span></li>'
    )


def _times(answer: Answer) -> str:
    times = [("Preparing", answer.prepare_ms), ("network", answer.network_ms)]
    if answer.explanation is not None:
        times.append(("explanation", answer.explain_ms))
    text = ", ".join(f"{name} <b>{milliseconds:.1f}&nbsp;ms</b>" for name, milliseconds in times)
    return f'<p class="van-times">{text}</p>'


def _safe(text: str) -> str:
    """Of a class, a path or an error, none of which may be markup."""
    return escape(printable(text))
