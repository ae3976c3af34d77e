"""HTTP of strangers: odd requests, lengths, methods and paths get a clear answer."""

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
from hostile_requests import (
    GOOD,
    JSON_BODY,
    MAX_BYTES,
    PICTURE,
    post,
    problem,
    same,
    send_json,
    whole,
)
from running_service import PROBLEM, read_answer, request_bytes

ODD_REQUESTS = {
    "length too short": (whole(JSON_BODY, Content_Length="10"), {400}),
    "negative length": (whole(JSON_BODY, Content_Length="-1"), {400}),
    "length in hexadecimal": (whole(JSON_BODY, Content_Length="0x10"), {400}),
    "length of two kinds": (whole(b"0\r\n\r\n", Content_Length="5", Transfer_Encoding="chunked"), {400}),
    "two lengths": (whole(b"{}", Host="h\r\nContent-Length: 7"), {400}),
    "enormous length": (whole(b"{}", Content_Length="9" * 15), {413}),
    "length beyond numbers": (whole(b"{}", Content_Length="9" * 5000), {400, 413}),
    "half a chunk's length": (whole(b"zz\r\n", Content_Length=None, Transfer_Encoding="chunked"), {400}),
    "other coding": (whole(b"{}", Content_Length=None, Transfer_Encoding="gzip"), {400, 501}),
    "compressed body": (whole(b"\x1f\x8b\x08", Content_Encoding="gzip"), {415}),
    "no host": (whole(JSON_BODY, Host=None), {400}),
    "long header": (whole(b"{}", X_Long="x" * 100_000), {400, 422, 431}),
    "thousands of headers": (whole(b"{}", X="1\r\n" + "\r\n".join(f"X{i}: 1" for i in range(20_000))), {400, 422, 431}),
    "no HTTP": (b"hello\r\n\r\n", {400}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n", {400}),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 404, 405, 505}),
    "no path": (b"POST  HTTP/1.1\r\nHost: h\r\n\r\n", {400}),
    "no slash": (b"GET healthz HTTP/1.1\r\nHost: h\r\n\r\n", {400, 404}),
    "climbing path": (b"GET /v2/models/../../../etc/passwd HTTP/1.1\r\nHost: h\r\n\r\n", {404}),
    "climbing path, escaped": (b"GET /v2/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd HTTP/1.1\r\nHost: h\r\n\r\n", {404}),
    "bytes in a path": (b"GET /v2/models/%ff%00%0a HTTP/1.1\r\nHost: h\r\n\r\n", {404}),
    "long path": (b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", {400, 404, 414, 431}),
    "obsolete folding": (b"GET /v1/models HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", {200, 400}),
    "upgrade": (whole(b"", Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Key="eA=="), {400, 415, 422, 426}),
}


@pytest.mark.parametrize("name", ODD_REQUESTS)
def test_an_odd_request_gets_a_clear_answer(served, name):
    request, statuses = ODD_REQUESTS[name]
    answer = served.raw(request)
    assert answer.status in statuses, answer
    if answer.status != 200:
        assert answer.headers["content-type"] == PROBLEM
        assert answer.json()["status"] == answer.status


def test_a_body_that_is_longer_than_allowed_is_refused_before_it_is_read(served):
    with served.connect() as sock:
        sock.sendall(request_bytes(headers={"Content-Length": str(MAX_BYTES + 1), "Expect": "100-continue"}))
        answer = read_answer(sock)  # not one byte of the body has been sent
    assert answer.status == 413
    assert answer.json()["limit_bytes"] == MAX_BYTES


def test_a_body_of_exactly_the_limit_is_taken(served):
    padding = MAX_BYTES - len(JSON_BODY)
    assert send_json(served, JSON_BODY + b" " * padding).status_code == 200
    problem(send_json(served, JSON_BODY + b" " * (padding + 1)), 413)


def test_a_chunked_body_beyond_the_limit_is_refused(served):
    def chunks():
        for _ in range(60):
            yield b" " * 10_000

    response = served.client.post("/v1/predict", content=chunks(), headers={"content-type": "application/json"})
    assert "content-length" not in response.request.headers
    problem(response, 413)


def test_an_endless_body_ends_the_connection(served):
    start = request_bytes(headers={"Content-Length": None, "Transfer-Encoding": "chunked"})
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = served.raw(start, *[chunk] * 2000)  # 131 MB, of which the server reads a little
    assert answer.status in (0, 413)


def test_a_chunked_body_of_single_bytes_is_read(served, predictor):
    head = request_bytes(headers={"Content-Length": None, "Transfer-Encoding": "chunked"})
    body = b"".join(b"1\r\n" + JSON_BODY[i : i + 1] + b"\r\n" for i in range(len(JSON_BODY)))
    answer = served.raw(head, body + b"0\r\n\r\n")
    assert answer.status == 200
    same(answer.json()["results"][0], predictor(PICTURE))


def test_two_requests_in_one_packet_are_both_answered(served):
    with served.connect() as sock:
        sock.sendall(whole(JSON_BODY) + request_bytes("/v1/models", method="GET"))
        answers = b""
        while b'"models"' not in answers:
            found = sock.recv(65536)
            assert found
            answers += found
    assert answers.count(b"HTTP/1.1 200") == 2


METHODS = ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"]


@pytest.mark.parametrize("method", METHODS)
def test_other_methods_are_refused_with_the_ones_that_are_taken(served, method):
    response = served.client.request(method, "/v1/predict")
    problem(response, 405)
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_can_be_asked_without_a_body(served, path):
    response = served.client.head(path)
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/predict/", "/v1/predict/x", "/docs", "/v2/models", "/favicon.ico"])
def test_an_unknown_path_is_a_problem(served, path):
    problem(served.client.post(path, content=b"x"), 404, 405)


@pytest.mark.parametrize("name", ["nothing", "../tiny", "tiny\x00", "TINY", "a" * 5000, "", "tiny,other", "☃"])
def test_an_unknown_model_is_a_problem(served, name):
    problem(post(served, GOOD, params={"model": name}), 404, 422)


def test_a_model_named_twice_is_one_of_the_two_or_a_problem(served):
    response = served.client.post("/v1/predict?model=tiny&model=other", files={"image": GOOD})
    assert response.status_code in (200, 422)


@pytest.mark.parametrize("top", ["0", "-1", "1000000000", "1e9", "abc", "", "1.5", "NaN", "9" * 400, "%00", "٣"])
def test_a_top_that_cannot_be_is_a_problem(served, top):
    response = served.client.post(f"/v1/predict?top={top}", files={"image": GOOD})
    if top == "٣":  # a digit in its script
        assert response.status_code in (200, 422)
    else:
        assert "top" in problem(response, 422)["detail"]


def test_top_lists_so_many_classes(served):
    for top in (1, 3, 5):
        found = post(served, GOOD, params={"top": top}).json()["results"][0]
        assert len(found["top"]) == top
