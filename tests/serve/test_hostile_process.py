"""`van serve` as a process: hostile requests, one after another, leave it alive; under load it refuses in words."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from hostile_images import bomb_in_text, encoded, huge_png, picture
from networks import tiny

pytest.importorskip("uvicorn")

import van


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    van.save(tiny(), folder / "tiny.safetensors")
    command = [
        sys.executable,
        "-m",
        "van",
        "serve",
        str(folder / "tiny.safetensors"),
        "--port",
        "0",
        "--max-batch",
        "2",
    ]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [*command, "--max-queue", "4"], stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ
        ) as started,
    ):
        try:
            ready = next(line for line in started.stdout if "ready on" in line)
            address = ready.split("ready on ")[1].split()[0]
            with httpx.Client(base_url=address, timeout=30, trust_env=False) as client:
                yield started, client, folder / "log"
        finally:
            started.kill()


def peak_megabytes(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the kernel's account of memory")
def test_hostile_images_do_not_move_the_peak_of_memory(process):
    started, client, _ = process
    assert client.post("/v1/predict", files={"image": encoded(picture())}).status_code == 200
    before = peak_megabytes(started.pid)
    for content, status in [(huge_png(), 413), (bomb_in_text(), 415), (b"", 422), (b"\xff\xd8\xff" * 1000, 415)]:
        for _ in range(5):
            assert client.post("/v1/predict", files={"image": content}).status_code == status
    assert peak_megabytes(started.pid) - before < 100
    assert client.post("/v1/predict", files={"image": encoded(picture())}).status_code == 200


@pytest.mark.long
def test_more_clients_than_places_get_200_or_503_and_sigterm_ends_in_order(process):
    started, client, log = process
    answers, image = [], encoded(picture(400, 300))

    def send():
        with httpx.Client(base_url=client.base_url, timeout=30, trust_env=False) as own:
            for _ in range(5):
                answers.append(own.post("/v1/predict", files=[("image", image)] * 2))

    threads = [threading.Thread(target=send) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 60
    assert {answer.status_code for answer in answers} == {200, 503}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 503)
    started.send_signal(signal.SIGTERM)
    assert started.wait(30) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["event"] for line in lines} == {"request"}
