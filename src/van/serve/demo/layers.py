"""Pictures of an answer as layers that the browser mixes, so that sliders need no server.

What is painted over an image is linear in its opacity: opacity o is the layer at 1, shown with opacity o, on that at 0.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from .answers import Answer

LONGEST = 960  # pixels of a layer's longer side
LOSSLESS = 512  # up to which layers are exact


@dataclass(frozen=True)
class Layer:
    """A picture of the stack.

    view: when it is shown: a key of `page.VIEWS`, "explained" for both views of explanations, "" for always.
    alt: what it shows, "" where another says so. fades: whether it is shown with the chosen opacity.
    stage: of the attention, 0 for others.
    """

    view: str
    picture: Image.Image
    alt: str
    fades: bool = False
    stage: int = 0

    @property
    def address(self) -> str:
        """The picture as a data address."""
        return data_address(self.picture)


def layers(answer: Answer) -> Iterator[Layer]:
    """The layers of an answer, the lowest first."""
    yield Layer("", answer.image, "the image")
    name = answer.model.name
    output, explanation = answer.output, answer.explanation
    if output is not None and (ground := output.overlay(0.0, legend=False)) is not None:
        painted = output.overlay(1.0, legend=False)
        text = f"the image with what {name} found painted over it"
        yield Layer("result", ground, text)
        if painted is not None and painted.tobytes() != ground.tobytes():
            yield Layer("result", painted, "", fades=True)
    if explanation is not None:
        yield Layer("explained", explanation.draw_cam(0.0), "")
        text = f"Grad-CAM of {name}: where the image speaks for {explanation.label}"
        yield Layer("cam", explanation.draw_cam(1.0), text, fades=True)
        for stage in explanation.stages:
            text = f"large kernel attention of {name} in stage {stage}"
            yield Layer("attention", explanation.draw_attention(stage, 1.0), text, fades=True, stage=stage)


def data_address(picture: Image.Image) -> str:
    """A picture, reduced to LONGEST, as `data:image/…`: PNG where it is small, else JPEG."""
    picture = picture.convert("RGB")
    picture.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX, reducing_gap=None)
    exact = max(picture.size) <= LOSSLESS
    file = io.BytesIO()
    picture.save(file, "PNG") if exact else picture.save(file, "JPEG", quality=88)
    return f"data:image/{'png' if exact else 'jpeg'};base64,{base64.b64encode(file.getvalue()).decode()}"
