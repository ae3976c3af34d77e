"""`van serve` on this machine: throughput against the bare Predictor, 4 times overload, and SIGTERM under load.

    python benchmarks/serving.py [--quick] [--record]

The service runs in a process of its own on 127.0.0.1, at a port that the system chooses, with random weights.

throughput: images a second of the service with `--clients` clients, and of `Predictor.predict_many` in this process
on the same encoded images with batches of `--max-batch`, in turn, so that a busy moment of the machine hits both; the
ratio is the median over the rounds. Once with an image per request, once with `--max-batch`.
overload: 4 times the images a second that were measured, for `--seconds`, one image per request, and no client heeds
Retry-After. p99 of the accepted requests has to be within 3 times `--latency-ms`, and the memory flat.
end: SIGTERM while the clients send. Each request has an id; one that the service's log has as accepted and whose client
has no answer is lost.

The client shares the cores with the service: its own processor time is printed, as a part of one core.
Exit code 1 when an aim is missed; --quick judges no times.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from http_load import HOST, LOST, Load, Tally, closed_load, open_load
from PIL import Image

import van

AIM = 0.85  # of the bare Predictor's throughput
SLIM = {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "mlp_ratios": (2, 2, 2, 2)}
OVERLOAD = 4.0
CONNECTIONS = 400
STARTUP_S = 180.0
BOUNDARY = "van-benchmark-boundary"


class Server:
    """`van serve` as a process."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    def megabytes(self) -> float:
        """Resident memory of the process and its children."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return sum(map(resident, [self.process.pid, *map(int, children)]))

    def logged(self) -> list[dict[str, Any]]:
        """The requests in its log."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == "request"]


def resident(pid: int) -> float:
    """Megabytes of a process that are in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


@contextlib.contextmanager
def served(options: argparse.Namespace, checkpoint: Path) -> Iterator[Server]:
    """A service that is ready; it is ended with the block."""
    bounds = [f"--max-batch={options.max_batch}", f"--latency-ms={options.latency_ms:g}"]
    command = [sys.executable, "-m", "van", "serve", str(checkpoint), "--host", HOST, "--port", "0", *bounds]
    log = checkpoint.with_suffix(".log")
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            yield Server(process, _ready_port(process), log)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()


def _ready_port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    end = time.monotonic() + STARTUP_S
    for line in process.stdout:
        if "ready on" in line:
            return int(line.split(f"{HOST}:")[1].split()[0])
        if time.monotonic() > end:
            break
    raise SystemExit("the service did not start; its log is on stderr of a run of `van serve`")


def pictures(count: int, size: tuple[int, int]) -> list[bytes]:
    """JPEGs of smooth noise, as large as photographs of that size."""
    found, draw = [], np.random.default_rng(0)
    for _ in range(count):
        small = Image.fromarray(draw.integers(0, 256, (24, 32, 3), np.uint8))
        file = io.BytesIO()
        small.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        found.append(file.getvalue())
    return found


def load_of(port: int, images: list[bytes], per_request: int) -> Load:
    """Multipart requests of so many images each."""
    bodies = []
    for start in range(0, len(images), per_request):
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'.encode()
        parts = [head + image + b"\r\n" for image in images[start : start + per_request]]
        bodies.append(b"".join(parts) + f"--{BOUNDARY}--\r\n".encode())
    return Load(port, tuple(bodies), f"multipart/form-data; boundary={BOUNDARY}")


def bare_rate(predictor: van.Predictor, images: list[bytes], seconds: float) -> float:
    """Images a second of the Predictor in this process."""
    start = time.perf_counter()
    unlimited = itertools.takewhile(lambda _: time.perf_counter() - start < seconds, itertools.cycle(images))
    done = sum(1 for _ in predictor.predict_many(unlimited))
    return done / (time.perf_counter() - start)


def throughput(
    options: argparse.Namespace, server: Server, predictor: van.Predictor, images: list[bytes], per_request: int
) -> dict[str, float]:
    """Medians over the rounds: images a second of both, their ratio, and what the client took of a core."""
    load = load_of(server.port, images, per_request)
    clients = max(2, options.clients // per_request)
    rows = []
    for round_ in range(options.rounds + 1):
        bare = bare_rate(predictor, images, options.round_seconds)
        prefix = f"t{per_request}-{round_}"
        tally = asyncio.run(closed_load(load, clients=clients, seconds=options.round_seconds, prefix=prefix))
        rate = tally.statuses[200] * per_request / tally.wall_s
        if round_:  # the first warms both up
            rows.append((bare, rate, rate / bare, tally.client_share))
            print(f"  bare {bare:.1f}, service {rate:.1f} images/s, {dict(tally.statuses)}", flush=True)
    names = ("bare", "service", "ratio", "client_share")
    return {name: median(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


async def overload(options: argparse.Namespace, server: Server, load: Load, rate: float) -> tuple[Tally, list[float]]:
    """What became of the requests, and the memory of the service at the start, in the middle and at the end."""
    memory = [server.megabytes()]

    async def sample() -> None:
        for _ in range(2):
            await asyncio.sleep(options.seconds / 2)
            memory.append(server.megabytes())

    sampling = asyncio.create_task(sample())
    tally = await open_load(load, rate=rate, seconds=options.seconds, most=CONNECTIONS, prefix="o")
    await sampling
    return tally, memory


async def ended(options: argparse.Namespace, server: Server, load: Load) -> Tally:
    """SIGTERM after some seconds of load, which goes on until the process has ended."""

    async def end() -> None:
        await asyncio.sleep(options.round_seconds)
        server.process.send_signal(signal.SIGTERM)

    ending = asyncio.create_task(end())
    over: Callable[[], bool] = lambda: server.process.poll() is not None  # noqa: E731
    tally = await closed_load(load, clients=options.clients, seconds=90, prefix="e", until=over)
    await ending
    return tally


def lost(server: Server, tally: Tally) -> list[str]:
    """Ids of requests that the service accepted and whose clients have no answer, or another one."""
    logged = {line["id"]: line["status"] for line in server.logged() if line["id"].startswith("e-")}
    return [name for name, status in logged.items() if tally.answered.get(name) != status]


def judged_overload(options: argparse.Namespace, tally: Tally, memory: list[float]) -> Iterator[str]:
    """What was missed."""
    others = {
        status for status in tally.statuses if status != 503 and status != 200 and not str(status).startswith("4")
    }
    if others:
        yield f"answers other than 200, 4xx and 503: {others}"
    if tally.without_retry_after:
        yield f"{tally.without_retry_after} answers 503 without Retry-After"
    if tally.statuses[503] == 0:
        yield "nothing was refused: this was no overload"
    if not options.quick and not percentile(tally, 99) <= 3e-3 * options.latency_ms:  # NaN: none was accepted
        yield f"p99 of accepted requests beyond 3 times {options.latency_ms:g} ms"
    if memory[2] - memory[1] > max(16, 0.05 * memory[1]):
        yield f"memory grew from {memory[1]:.0f} to {memory[2]:.0f} MB in the second half"


def percentile(tally: Tally, which: int) -> float:
    """Seconds within which so many of a hundred accepted requests were answered."""
    return quantiles(tally.seconds, n=100)[which - 1] if len(tally.seconds) > 1 else float("nan")


def main() -> int:
    """Measure, print, record; returns the exit code."""
    options = _options()
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # of the service
    missed: list[str] = []
    entries: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "served.safetensors"
        van.save(van.create_model("van_b0", num_classes=10, seed=0, **(SLIM if options.quick else {})), checkpoint)
        predictor = van.Predictor(checkpoint, optimize=True, batch_size=options.max_batch)
        images = pictures(4 * options.max_batch, (96, 64) if options.quick else (500, 375))
        with served(options, checkpoint) as server:
            for per_request in (options.max_batch, 1):
                print(f"{per_request} images per request", flush=True)
                found = throughput(options, server, predictor, images, per_request)
                print(_line(found))
                entries += _throughput_entries(found, per_request)
                if found["ratio"] < AIM and not options.quick:
                    missed.append(f"throughput {found['ratio']:.2f} of the bare Predictor's; meant: {AIM}")
            load, rate = load_of(server.port, images, 1), OVERLOAD * found["service"]
            tally, memory = asyncio.run(overload(options, server, load, rate))
            missed += judged_overload(options, tally, memory)
            entries += _overload(options, tally, memory, rate)
            missed += _end(options, server, load)
    for each in missed:
        print(f"missed: {each}")
    if options.record:
        import ledger

        ledger.record(entries, command="python benchmarks/serving.py --record")
    return 1 if missed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-batch", type=int, default=16)
    parser.add_argument("--latency-ms", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload; at most 600")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--round-seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of torch, on both sides")
    parser.add_argument("--quick", action="store_true", help="a toy network and seconds, to see that it works")
    parser.add_argument("--record", action="store_true", help="write to docs/results.json; not with --quick")
    options = parser.parse_args()
    if options.quick and options.record:
        parser.error("--quick measures a toy network; it is not recorded")
    if options.quick:
        options.seconds, options.rounds, options.round_seconds, options.max_batch = 3.0, 1, 1.0, 4
        options.clients, options.latency_ms = 8, 250.0
    options.seconds = min(options.seconds, 600.0)
    return options


# ---- what is printed and recorded


def _line(found: dict[str, float]) -> str:
    rates = f"bare {found['bare']:.1f}, service {found['service']:.1f} images/s: {found['ratio']:.2f}"
    return f"{rates}; the client took {found['client_share']:.2f} of a core"


def _throughput_entries(found: dict[str, float], per_request: int) -> list[dict[str, Any]]:
    what = f"VAN-B0 at 224², JPEGs of 500 x 375, {per_request} per request"
    row = f"{per_request} images per request" if per_request > 1 else "1 image per request"
    columns = {"bare": ("Predictor, images/s", 1), "service": ("van serve, images/s", 1), "ratio": ("ratio", 2)}
    return [
        {"id": f"measured/serving/{per_request}/{name}", "table": "serving", "row": row, "column": column,
         "what": f"{what}: {column}", "value": round(found[name], digits), "unit": "" if name == "ratio" else "1/s"}
        for name, (column, digits) in columns.items()
    ]  # fmt: skip


def _overload(options: argparse.Namespace, tally: Tally, memory: list[float], rate: float) -> list[dict[str, Any]]:
    total = sum(tally.statuses.values())
    p50, p99 = (1000 * percentile(tally, which) for which in (50, 99))
    print(f"overload: {rate:.0f} requests/s offered for {options.seconds:g} s, {total} sent, {tally.late} not sent")
    print(f"  {dict(tally.statuses)}; accepted: p50 {p50:.0f} ms, p99 {p99:.0f} ms (bound {options.latency_ms:g} ms)")
    print(
        f"  memory {', '.join(f'{each:.0f}' for each in memory)} MB; the client took {tally.client_share:.2f} of a core"
    )
    values: dict[str, tuple[str, float, str]] = {
        "accepted": ("answered with 200", tally.statuses[200], ""),
        "refused": ("answered with 503", tally.statuses[503], ""),
        "p50": ("p50, ms", round(p50), "ms"), "p99": ("p99, ms", round(p99), "ms"),
        "start": ("MB at the start", round(memory[0]), "MB"), "middle": ("in the middle", round(memory[1]), "MB"),
        "end": ("at the end", round(memory[2]), "MB"),
    }  # fmt: skip
    row = f"4 x capacity for {options.seconds:g} s, bound {options.latency_ms:g} ms"
    return [
        {"id": f"measured/serving/overload/{name}", "table": "overload", "row": row, "column": column,
         "what": f"{row}: {column}", "value": value, "unit": unit}
        for name, (column, value, unit) in values.items()
    ]  # fmt: skip


def _end(options: argparse.Namespace, server: Server, load: Load) -> Iterator[str]:
    tally = asyncio.run(ended(options, server, load))
    code = server.process.wait(60)
    gone = lost(server, tally)
    print(f"SIGTERM under load: {dict(tally.statuses)}, {len(gone)} accepted requests without answer, exit code {code}")
    if gone:
        yield f"{len(gone)} accepted requests were lost"
    if code != 0:
        yield f"exit code {code}"
    if tally.statuses[LOST] > options.clients:
        yield f"{tally.statuses[LOST]} connections ended without an answer"


if __name__ == "__main__":
    sys.exit(main())
