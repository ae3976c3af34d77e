"""`van serve` as a process: it listens, ends in order, and says in one line what cannot be."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from served import classifier, picture

import van
from van.cli import main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "tiny.safetensors"
    van.save(classifier(), path)
    return str(path)


def error_of(capsys, *arguments):
    assert main(["serve", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("van: error: ")
    assert error.count("\n") == 1
    return error


def test_a_port_in_use_is_one_line(checkpoint, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in error_of(capsys, checkpoint, "--port", str(port))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--port", "70000"], "0 to 65535"),
        (["--port", "http"], "a whole number"),
        (["--host", "no.such.host.invalid"], "host"),
        (["--workers", "0"], "--workers"),
        (["--max-bytes", "0"], "max_bytes"),
        (["--max-pixels", "-1"], "max_pixels"),
        (["--max-queue", "0"], "max_queue"),
        (["--latency-ms", "nan"], "latency_ms"),
        (["--timeout-s", "0"], "timeout_s"),
        (["--token-file", "missing"], "token file"),
        (["--engine", "tensorrt"], "unknown engine"),
        (["--engine", "int8"], "--calibration"),
        (["--calibration", "digits"], "--engine int8"),
        (["--engine", "onnx", "--device", "cuda"], "--engine onnx"),
    ],
)
def test_options_that_cannot_be_are_one_line(checkpoint, capsys, arguments, expected):
    assert expected in error_of(capsys, checkpoint, "--port", "0", *arguments)


def test_a_missing_package_is_named_with_its_extra(checkpoint, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'visual-attention-network[serve]'" in error_of(capsys, checkpoint)


@pytest.mark.long
def test_a_checkpoint_that_cannot_be_opened_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "van", "serve", str(tmp_path / "missing.pth"), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("van: error: ")
    assert "missing.pth" in done.stderr
    assert done.stderr.count("\n") == 1


@contextmanager
def running(*arguments):
    """A server of its own process, once it is ready: (process, port)."""
    command = [sys.executable, "-m", "van", "serve", *arguments, "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        for line in process.stdout:
            if "ready on" in line:
                break
        else:
            pytest.fail(process.stderr.read())
        # its log is read, or it would wait once the pipe is full
        log = []
        threading.Thread(target=lambda: log.extend(process.stderr), daemon=True).start()
        process.log = log
        yield process, int(line.split("127.0.0.1:")[1].split()[0])
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        process.stdout.close()


def post(port, data, *, path="/v1/predict"):
    """The status of a request, or the name of what went wrong, and whether it can be tried again."""
    body = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + data + b"\r\n--b--\r\n"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", path, body, {"Content-Type": "multipart/form-data; boundary=b"})
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, answer.getheader("Retry-After"), content
    finally:
        connection.close()


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.long
@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_under_load_loses_nothing_that_was_accepted(checkpoint, workers):
    outcomes, ended = [], threading.Event()

    def client():
        while not ended.is_set():
            try:
                outcomes.append(post(port, picture(size=(200, 200)))[:2])
            except ConnectionRefusedError:  # nobody listens any more
                return
            except Exception as error:
                outcomes.append((type(error).__name__, None))

    with running(checkpoint, "--workers", workers) as (process, port):
        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        while sum(status == 200 for status, _ in outcomes) < 20:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        ended.set()
        for thread in threads:
            thread.join()
    answered = [outcome for outcome in outcomes if isinstance(outcome[0], int)]
    assert {status for status, _ in answered} <= {200, 503}
    assert all(retry for status, retry in answered if status == 503)
    # a request that comes while the socket closes is not accepted; each client can meet that moment once
    lost = [outcome for outcome in outcomes if outcome not in answered]
    assert len(lost) <= 4
    assert {name for name, _ in lost} <= {"ConnectionResetError", "RemoteDisconnected", "BrokenPipeError"}


@pytest.mark.long
def test_a_worker_that_dies_is_replaced_and_metrics_are_of_all(checkpoint):
    with running(checkpoint, "--workers", "2") as (process, port):
        for _ in range(8):
            assert post(port, picture())[0] == 200
        assert b'van_images_total{model="tiny",outcome="done"} 8.0' in get(port, "/metrics")[1]
        children = [int(pid) for pid in worker_pids(process.pid)]
        assert len(children) == 2
        os.kill(children[0], signal.SIGKILL)
        until = time.monotonic() + 40
        while len(worker_pids(process.pid)) < 2 or children[0] in worker_pids(process.pid):
            assert time.monotonic() < until
            time.sleep(0.1)
        assert post(port, picture())[0] == 200
        process.terminate()
        assert process.wait(60) == 0
    assert any(json.loads(line)["event"] == "worker" for line in process.log)


def worker_pids(parent):
    """Processes of a server that run models: those that were spawned by multiprocessing's main."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            own = (each / "stat").read_text().rsplit(")", 1)[1].split()[1]
            if int(own) == parent and "spawn_main" in (each / "cmdline").read_text():
                found.append(int(each.name))
    return found


@pytest.mark.long
def test_workers_end_when_their_parent_is_killed(checkpoint):
    with running(checkpoint, "--workers", "2") as (process, _):
        children = worker_pids(process.pid)
        process.kill()
        process.wait()
        until = time.monotonic() + 30
        while any(Path(f"/proc/{pid}").exists() for pid in children):
            assert time.monotonic() < until
            time.sleep(0.1)


@pytest.mark.long
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_checkpoint_that_is_none_ends_every_worker_with_one_error(tmp_path, workers):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nothing")
    command = [sys.executable, "-m", "van", "serve", str(bad), "--port", "0", "--workers", workers]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("van: error: ")] == done.stderr.splitlines()


@pytest.mark.long
def test_what_is_no_http_is_a_problem_and_silent_connections_are_closed(checkpoint):
    with running(checkpoint) as (_, port), socket.create_connection(("127.0.0.1", port)) as silent:
        with socket.create_connection(("127.0.0.1", port)) as rude:
            rude.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
            answer = b"".join(iter(lambda: rude.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"application/problem+json" in answer
        assert post(port, picture())[0] == 200
        slow = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        slow.request("GET", "/healthz")
        slow.getresponse().read()
        slow.sock.sendall(b"GET /health")  # and no more
        silent.settimeout(20)
        assert slow.sock.recv(1) == b""
        assert silent.recv(1) == b""  # the server closed it
