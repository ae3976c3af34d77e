"""What every test stands on: one thread per process, so that two processes share two cores without spinning."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here may reach a network; marks say what does
os.environ.setdefault("KERAS_BACKEND", "torch")  # which is always there; lane keras runs the others
