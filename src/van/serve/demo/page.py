"""The page itself, in Gradio: its parts, and what happens when an image or a model is chosen.

What a user sees lives in that user's browser alone: the server keeps no results. An event gives the panels with every
layer of their pictures; view, stage and opacity are attributes of the document, which the style sheet turns into what
is visible, so that controls answer at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from ...errors import DataError
from .answers import Limits, answers, read_upload
from .examples import Example
from .models import DemoModel
from .panels import WELCOME, alert, panels

TITLE = "Visual Attention Network"
NOTHING = "none"  # of the second model
VIEWS = {"result": "Result", "attention": "Attention", "cam": "Grad-CAM", "image": "Image"}
OPACITY = 0.5
WAITING = 16  # events in the queue, beyond which the page says that it is busy


def build(
    models: Mapping[str, DemoModel], examples: Sequence[tuple[Example, Path]], limits: Limits, *, exif: bool = True
) -> gr.Blocks:
    """The page for some models, the second shown beside the first where there are several.

    examples: with the files that hold them.
    """
    names = list(models)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600), fill_width=False) as page:
        gr.HTML(f"<h1>{TITLE}</h1>", elem_id="van-title", padding=False)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                image = gr.Image(
                    label="Image",
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "webcam", "clipboard"],
                    height=260,
                    buttons=[],
                    alt_text="The image that was chosen",
                    elem_id="van-image",
                    placeholder="Drop an image here, or press to choose one",
                )
                _example_buttons(examples, image)
                first = gr.Dropdown(
                    names, value=names[0], label="Model", interactive=True, visible=len(names) > 1, elem_id="van-first"
                )
                second = gr.Dropdown(
                    [NOTHING, *names],
                    value=names[1] if len(names) > 1 else NOTHING,
                    label="Compare with",
                    interactive=True,
                    visible=len(names) > 1,
                    elem_id="van-second",
                )
            with gr.Column(scale=5, min_width=300):
                _controls(page, list(models.values()))
                shown = gr.HTML(WELCOME, elem_id="van-shown", padding=False)
        gr.on(
            [image.change, first.change, second.change],
            partial(show, models, limits, exif),
            [image, first, second],
            shown,
            preprocess=False,  # the file as it was uploaded, whatever it is
            trigger_mode="always_last",
            concurrency_limit=1,
            concurrency_id="models",
            show_progress="minimal",
            api_visibility="private",
        )
    page.queue(max_size=WAITING, default_concurrency_limit=4)
    return page


def show(
    models: Mapping[str, DemoModel], limits: Limits, exif: bool, upload: Mapping[str, Any] | None, *names: str | None
) -> Iterator[str]:
    """The panels of the chosen models, more complete each time.

    upload: the record of an uploaded file, None for none. names: of the models, NOTHING or None for none.
    """
    if not upload or not upload.get("path"):
        yield WELCOME
        return
    chosen = [models[name] for name in dict.fromkeys(names) if name is not None and name in models]
    try:
        name = str(upload.get("orig_name") or "the image")
        picture = read_upload(str(upload["path"]), name, limits, exif=exif)
    except DataError as error:
        yield alert(str(error))
        return
    for found in answers(chosen, picture):
        yield panels(found)


def _example_buttons(examples: Sequence[tuple[Example, Path]], image: gr.Image) -> None:
    if not examples:
        return
    with gr.Row(elem_id="van-examples"):
        for example, path in examples:
            button = gr.Button(example.name, icon=path, size="sm")
            button.click(
                partial(str, path),
                None,
                image,
                show_progress="hidden",
                api_visibility="private",
            )


def _controls(page: gr.Blocks, models: Sequence[DemoModel]) -> None:
    """View, stage and opacity, which change attributes of the document and ask nothing of the server."""
    stages = max((model.stages for model in models), default=0)
    first = next((model.stage for model in models if model.stages), 1)
    offered = {"result": any(model.paints for model in models), "attention": stages > 0, "cam": stages > 0}
    views = [(text, view) for view, text in VIEWS.items() if offered.get(view, True)]
    with gr.Row(elem_id="van-controls"):
        view = gr.Radio(views, value=views[0][1], label="Show", elem_id="van-view", min_width=480)
        stage = gr.Slider(
            1, max(stages, 2), value=first, step=1, label="Stage", elem_id="van-stage",
            buttons=[], min_width=170,
        )  # fmt: skip
        opacity = gr.Slider(
            0, 1, value=OPACITY, step=0.05, label="Opacity", elem_id="van-opacity", buttons=[], min_width=170
        )
    controls: list[Any] = [view, stage, opacity]
    own = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
    for control in controls:
        control.change(None, controls, None, js=APPLY, **own)
    page.load(None, controls, None, js=APPLY, **own)


APPLY = """(view, stage, opacity) => {
    const root = document.documentElement;
    root.dataset.vanView = view;
    root.dataset.vanStage = stage;
    root.style.setProperty("--van-opacity", opacity);
}"""
