"""What every test stands on: one thread per process, so that two processes share two cores without spinning; no
network; and the same random numbers in every run, whichever tests ran before in the same process."""

import os
import random
import zlib

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here may reach a network; marks say what does
os.environ.setdefault("KERAS_BACKEND", "torch")  # which is always there; lane keras runs the others

import numpy as np
import pytest
import torch  # reads OMP_NUM_THREADS as it is imported


def seed(name: str) -> None:
    number = zlib.crc32(name.encode())
    random.seed(number)  # Keras draws the seeds of its layers from here
    np.random.seed(number)
    torch.manual_seed(number)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    seed(fixturedef.argname)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    seed(item.nodeid)
