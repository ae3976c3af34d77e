"""Clients that stop, drip or leave: they are given up, and nothing is left behind."""

import json
import socket
import time

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
from hostile_requests import (
    GOOD,
    MAX_BATCH,
    entry,
    post,
    whole,
)
from running_service import PROBLEM, read_answer, request_bytes


def test_a_body_that_does_not_arrive_is_given_up(impatient):
    with impatient.connect() as sock:
        sock.sendall(request_bytes(headers={"Content-Length": "1000"}) + b'{"images"')
        answer = read_answer(sock)
    assert answer.status == 408
    assert answer.headers["content-type"] == PROBLEM
    assert answer.headers["connection"] == "close"


def test_a_body_that_drips_is_given_up(impatient):
    start = time.monotonic()
    with impatient.connect() as sock:
        sock.sendall(request_bytes(headers={"Content-Length": "1000"}))
        sock.settimeout(0.05)
        answered = False
        while not answered and time.monotonic() - start < 15:
            sock.sendall(b" ")
            try:
                answered = bool(sock.recv(1, socket.MSG_PEEK))
            except TimeoutError:
                continue
        sock.settimeout(5)
        assert read_answer(sock).status == 408


def test_a_connection_that_ends_within_its_body_leaves_nothing_behind(served):
    for body in (b"", b'{"images": [{"data": "' + b"A" * 50_000):
        served.abandon(request_bytes(body=body, headers={"Content-Length": "100000"}))
    assert served.idle()
    with served.connect() as sock:
        sock.sendall(request_bytes(headers={"Content-Length": "1000"}) + b"{")
        sock.shutdown(socket.SHUT_WR)
        assert read_answer(sock).status in (0, 400)


def test_clients_that_leave_before_their_answer_leave_nothing_behind(served):
    for _ in range(20):
        served.abandon(whole(json.dumps({"images": [entry(GOOD)] * MAX_BATCH}).encode()))
    assert served.idle()


def test_connections_without_a_request_do_not_keep_others_out(served):
    idle = [served.connect() for _ in range(100)]
    try:
        assert post(served, GOOD).status_code == 200
    finally:
        for sock in idle:
            sock.close()
