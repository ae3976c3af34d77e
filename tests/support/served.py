"""A service in this process: tiny models, a client that talks to it, and a network that waits to be let go."""

import base64
import io
import threading
import time
from contextlib import contextmanager

import numpy as np
import torch
from networks import tiny
from PIL import Image
from starlette.testclient import TestClient

import van
from van.serve.http.app import create_app
from van.serve.http.logs import JsonLog
from van.serve.http.service import Service
from van.serve.http.settings import Settings

CLASSES = ("ant", "bee", "cow", "dog", "elk")
SLIM = {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "mlp_ratios": (2, 2, 2, 2)}


def classifier(seed=0):
    model = tiny(seed)
    model.classes = CLASSES
    model.preprocess = van.create_model("van_b0", num_classes=5, **SLIM).preprocess.with_overrides(size=32)
    return model


def segmenter():
    torch.manual_seed(0)
    head = {"channels": 32, "ham_channels": 32, "ham_rank": 4}
    return van.create_model("light_ham_van_b0", num_classes=3, **SLIM, **head)


def picture(seed=0, size=(40, 48), form="PNG"):
    """The bytes of an image file of noise; size: (height, width)."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(file, format=form)
    return file.getvalue()


def base64_of(data):
    return base64.b64encode(data).decode()


def image_of(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def fields(*images):
    """Multipart fields of (name, bytes)."""
    return [("image", (name, data)) for name, data in images]


@contextmanager
def serving(models=None, **bounds):
    """A client of a service with these models by name, that is ready; `client.service`, `client.logged`."""
    opened = {name: van.Predictor(model) for name, model in (models or {"tiny": classifier()}).items()}
    lines = io.StringIO()
    service = Service(lambda: opened, Settings(**bounds), log=JsonLog(lines))
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        wait_until(lambda: service.ready)
        client.service, client.logged, client.opened = service, lines, opened
        yield client


def wait_until(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.01)


class Held:
    """A classifier whose forward waits, once it is held, until it is let go."""

    def __init__(self):
        self.model, self.go, self.runs = classifier(), threading.Event(), []
        self.go.set()
        self.model.register_forward_pre_hook(self._wait)

    def _wait(self, module, inputs):
        self.runs.append(len(inputs[0]))
        assert self.go.wait(20)
