"""Two processes that measure in turn: ours, and the VAN of transformers 4.57 in an environment of its own.

The peer is a pip-installable twin of the official eager code. It left transformers in version 5, so it lives in an
environment of its own (build/peer, made on first use) that borrows this environment's torch. Each side computes and
times in itself; the script tells them in turn what to do (JSON lines over pipes), so that a busy moment of the machine
hits both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PEER = "transformers==4.57.*"
SIDES = ("peer", "plain", "ours")

Ask = Callable[..., Any]


def add_options(
    parser: argparse.ArgumentParser,
    *,
    threads: int | list[int] = 2,
    sides: tuple[str, ...] = SIDES,
    peer: str = f"{PEER} and torch; default: make one",
) -> None:
    """Options that every script with several sides has.

    threads: the default, one number or a list of several; peer: what the Python of the peer has to have.
    """
    parser.add_argument("--threads", type=int, default=threads, nargs="+" if isinstance(threads, list) else None)
    parser.add_argument("--quick", action="store_true", help="toy sizes, to see that it works")
    parser.add_argument("--no-record", dest="record", action="store_false", help="leave docs/results.json alone")
    parser.add_argument("--peer-python", type=Path, help=f"a Python that has {peer}")
    parser.add_argument("--worker", choices=sides, help=argparse.SUPPRESS)


@contextmanager
def worker(
    script: str,
    options: argparse.Namespace,
    side: str,
    threads: int | None = None,
    *,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Ask]:
    """A process of `script` that answers: `ask(do="time", …)` returns what its worker's method `time` returns.

    threads: None takes the option's one number. environment: variables on top of this process's own.
    """
    count = str(options.threads if threads is None else threads)
    python = sys.executable if side != "peer" else str(options.peer_python or peer_environment())
    command = [python, script, "--worker", side, "--threads", count]
    quiet = {"TRANSFORMERS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    pools = {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    # this package's timing, for a peer that has not installed it
    path = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])}
    variables = {**os.environ, **quiet, **pools, **path, **(environment or {})}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def ask(**question: Any) -> Any:
            stdin.write(json.dumps(question) + "\n")
            stdin.flush()
            line = stdout.readline()
            if not line:
                raise SystemExit(f"the process of {side} ended while it was asked {question}")
            return json.loads(line)

        yield ask
        stdin.close()


def serve(answering: Any, threads: int | None = None) -> int:
    """Answer questions on stdin by the methods of `answering` until it ends; what libraries print goes to stderr.

    threads: of torch, where the side computes with it.
    """
    answers, sys.stdout = sys.stdout, sys.stderr
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    for line in sys.stdin:
        question = json.loads(line)
        print(json.dumps(getattr(answering, question.pop("do"))(**question)), file=answers, flush=True)
    return 0


def peer_environment() -> Path:
    """The Python of build/peer: transformers 4.57 and what it needs, and this environment's torch."""
    import torch

    folder = ROOT / "build" / "peer"
    python = folder / "bin" / "python"
    done = folder / "installed"
    if not done.exists():
        print(f"making an environment for {PEER} in {folder.relative_to(ROOT)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", PEER], check=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "borrowed_torch.pth").write_text(f"{Path(torch.__file__).parent.parent}\n")  # after its own
        done.touch()
    return python


def looks_trained(model: str, folder: str) -> None:
    """Writes a network of ours with weights that look trained, in the layout of transformers; segmenters in our own."""
    import warnings

    import torch

    import van

    with torch.inference_mode(False), torch.no_grad():
        network, draw = van.create_model(model, seed=0), torch.Generator().manual_seed(1)
        for name, tensor in network.state_dict().items():
            if name.endswith(("norm1.weight", "norm2.weight")):
                tensor.uniform_(0.5, 1.5, generator=draw)
            elif name.endswith((".scale1", ".scale2")):
                tensor.uniform_(0.05, 0.15, generator=draw)
            elif name.endswith("bias"):
                tensor.normal_(0, 0.1, generator=draw)
        # Real statistics: with drawn ones the products of the gates grow from block to block until they overflow.
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        network.train()(torch.randn((4, 3, 96, 96), generator=draw))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if model.startswith("van_"):
            van.save(network, folder, format="transformers")
        else:
            van.save(network, Path(folder) / "van.safetensors")
