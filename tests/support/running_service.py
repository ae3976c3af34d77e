"""A service on a real socket of this machine, in a thread of the test's process, and clients that misbehave."""

import http.client
import io
import json
import socket
import struct
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from van.serve.http.logs import JsonLog
from van.serve.http.server import bind, run
from van.serve.http.service import Service
from van.serve.http.settings import Settings

PROBLEM = "application/problem+json"
_PATIENCE_S = 20


@dataclass
class Answer:
    """What a raw exchange gave: status 0 where the server closed the connection without a word."""

    status: int
    headers: dict = field(default_factory=dict)
    content: bytes = b""

    def json(self):
        return json.loads(self.content)


class Running:
    """A service that runs: `client` for those who behave, `raw` for those who do not."""

    def __init__(self, service, port, log):
        self.service, self.port, self.log = service, port, log
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=_PATIENCE_S, trust_env=False)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE_S)

    def raw(self, *pieces, method="POST", half_close=False):
        """Send bytes as they are and read one answer."""
        with self.connect() as sock:
            for piece in pieces:
                try:
                    sock.sendall(piece)
                except OSError:  # it has answered and closed: what it said is read below
                    break
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            return read_answer(sock, method)

    def abandon(self, data):
        """Send bytes, and reset the connection at once."""
        with self.connect() as sock:
            sock.sendall(data)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def idle(self):
        """Wait until nothing is in flight, and say whether all that was held has been given back."""
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            service = self.service
            pending = [lane.admission.pending for lane in service.lanes.values()]
            if not (service.active or service.requests or service.places.taken or service.budget.used or any(pending)):
                return True
            time.sleep(0.01)
        return False


def read_answer(sock, method="POST"):
    """One response; status 0 for a connection that ends without one."""
    response = http.client.HTTPResponse(sock, method=method)
    try:
        response.begin()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    except (http.client.BadStatusLine, ConnectionError):
        return Answer(0)
    finally:
        response.close()


def request_bytes(path="/v1/predict", *, method="POST", body=b"", headers=()):
    """A whole request; headers replace those of the same name, None leaves one out."""
    found = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": str(len(body))} | dict(headers)
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in found.items() if value is not None)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@contextmanager
def running(predictors, **settings):
    """A service of predictors by name, on a port that the system chooses; it ends with the block."""
    log = io.StringIO()
    service = Service(lambda: predictors, Settings(**settings), log=JsonLog(log))
    ready, failures = threading.Event(), []
    with bind("127.0.0.1", 0) as sock:

        def work():
            try:
                run(service, sock, ready.set)
            except Exception as error:
                failures.append(error)
                ready.set()

        thread = threading.Thread(target=work, name="service of a test")
        thread.start()
        try:
            assert ready.wait(60)
            assert not failures
            found = Running(service, sock.getsockname()[1], log)
            with found.client:
                yield found
        finally:
            service.draining = True
            thread.join(60)
    assert not thread.is_alive()
    assert not failures
