"""What strangers send to the service: the right answer or a problem that says what is wrong, and never its end."""

import base64
import io
import json
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from hostile_images import (
    animated,
    archive,
    bomb_in_text,
    encoded,
    enormous_tile,
    gif_and_script,
    huge_png,
    jpeg_and_zip,
    many_scans,
    picture,
    png,
    sixteen_bits,
    turned_jpeg,
)
from networks import tiny
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
from running_service import PROBLEM, read_answer, request_bytes, running

import van

MAX_BYTES, MAX_BATCH = 500_000, 4
PICTURE = picture()
GOOD = encoded(PICTURE)


@pytest.fixture(scope="module")
def predictor():
    return van.Predictor(tiny().eval(), top=5)


@pytest.fixture(scope="module")
def served(predictor):
    models = {"tiny": predictor, "other": predictor}
    with running(models, max_bytes=MAX_BYTES, max_batch=MAX_BATCH, timeout_s=20, latency_ms=20_000) as service:
        yield service


@pytest.fixture(scope="module")
def impatient(predictor):
    """A service that gives up after half a second."""
    with running({"tiny": predictor}, max_bytes=MAX_BYTES, timeout_s=0.5, latency_ms=20_000) as service:
        yield service


@pytest.fixture(autouse=True)
def still_answers(request):
    """Whatever a test did, nothing is left in flight and the next image gets its answer."""
    yield
    for name in ("served", "impatient"):
        if name in request.fixturenames:
            service = request.getfixturevalue(name)
            assert service.idle()
            assert service.client.get("/healthz").status_code == 200
            assert post(service, GOOD).status_code == 200


def post(service, *images, names=None, kind="application/octet-stream", **options):
    names = names or [f"{i}.png" for i in range(len(images))]
    files = [("image", (name, image, kind)) for name, image in zip(names, images, strict=True)]
    return service.client.post("/v1/predict", files=files, **options)


def post_json(service, value, path="/v1/predict", **options):
    return service.client.post(path, json=value, **options)


def entry(content, name="a.png"):
    return {"name": name, "data": base64.b64encode(content).decode()}


def same(found, output):
    """Whether an entry of the service is a result of the Predictor."""
    expected = output.to_dict()
    assert found["label"] == expected["label"]
    assert found["probability"] == pytest.approx(expected["probability"], rel=1e-4)
    assert [each["label"] for each in found["top"]] == [each["label"] for each in expected["top"]]


def problem(response, *statuses):
    """The problem in a response of one of these statuses; every one says what to do."""
    assert response.status_code in statuses, (response.status_code, response.text[:500])
    assert response.headers["content-type"] == PROBLEM
    found = response.json()
    assert found["status"] == response.status_code
    assert {"type", "title", "detail"} <= set(found)
    assert len(found["detail"]) > 20
    assert "\n" not in found["detail"]
    return found


# ---- unusual images get the right answer

UNUSUAL = {
    "JPEG that is a ZIP too": (jpeg_and_zip(PICTURE), Image.open(io.BytesIO(encoded(PICTURE, "JPEG", quality=95)))),
    "GIF that is a script too": (gif_and_script(PICTURE), PICTURE.quantize(32).convert("RGB")),
    "animated GIF": (animated("GIF", PICTURE.quantize(16)), PICTURE.quantize(16).convert("RGB")),
    "animated WebP": (animated("WEBP", PICTURE), PICTURE),
    "animated PNG": (animated("PNG", PICTURE), PICTURE),
    "16-bit PNG": (sixteen_bits(PICTURE), PICTURE.convert("L")),
    "CMYK JPEG": (
        encoded(PICTURE.convert("CMYK"), "JPEG", quality=95),
        Image.open(io.BytesIO(encoded(PICTURE.convert("CMYK"), "JPEG", quality=95))).convert("RGB"),
    ),
    "turned by EXIF": (turned_jpeg(PICTURE), PICTURE),
    "with transparency": (encoded(PICTURE.convert("RGBA")), PICTURE),
    "of one pixel": (encoded(PICTURE.crop((0, 0, 1, 1))), PICTURE.crop((0, 0, 1, 1))),
    "wide": (encoded(picture(400, 20)), picture(400, 20)),
    "with a film after its end": (
        encoded(PICTURE, "JPEG", quality=95) + b"\xff\xda\x00\x02" * 500,
        Image.open(io.BytesIO(encoded(PICTURE, "JPEG", quality=95))),
    ),
    "tiled TIFF": (enormous_tile(16), Image.new("L", (16, 16))),
    "with bytes after its end": (GOOD + b"x" * 1000, PICTURE),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_image_gets_the_answer_of_the_plain_one(served, predictor, name):
    content, plain = UNUSUAL[name]
    response = post(served, content)
    assert response.status_code == 200, response.text
    same(response.json()["results"][0], predictor(plain))


def test_a_turned_image_is_not_seen_as_it_is_stored(served, predictor):
    """The test above would see nothing if the network did not care which way up an image is."""
    stored = predictor(PICTURE.transpose(Image.Transpose.ROTATE_90)).to_dict()
    assert stored["probability"] != pytest.approx(predictor(PICTURE).to_dict()["probability"], rel=1e-4)


@pytest.mark.parametrize("kind", ["text/plain", "image/jpeg", "application/zip", "nonsense", "image/png; charset=\xff"])
def test_the_declared_type_of_a_part_does_not_matter(served, predictor, kind):
    head = f'--b\r\nContent-Disposition: form-data; name="image"; filename="a.gif"\r\nContent-Type: {kind}\r\n\r\n'
    body = head.encode("latin-1") + GOOD + b"\r\n--b--\r\n"
    response = send_multipart(served, body)
    assert response.status_code == 200, response.text
    same(response.json()["results"][0], predictor(PICTURE))


def test_base64_with_a_data_address_is_taken(served, predictor):
    value = {"images": [{"data": "data:image/jpeg;base64," + base64.b64encode(GOOD).decode()}]}
    same(post_json(served, value).json()["results"][0], predictor(PICTURE))


# ---- images that cannot be used

BAD = {
    "0 bytes": (b"", 422),
    "text": (b"hello", 415),
    "page": (b"<!DOCTYPE html><script>alert(1)</script>", 415),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', 415),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(%pipe%id) (r) file\n", 415),
    "PDF": (b"%PDF-1.7\n1 0 obj<<>>endobj\n", 415),
    "ZIP": (archive(), 415),
    "pickle": (b"\x80\x04\x95cos\nsystem\n", 415),
    "truncated JPEG": (encoded(PICTURE, "JPEG")[:-400], 422),
    "truncated PNG": (GOOD[:-200], 422),
    "truncated WebP": (encoded(PICTURE, "WEBP")[:-100], 415),
    "header of a JPEG": (encoded(PICTURE, "JPEG")[:20], 415),
    "header of a PNG": (GOOD[:33], 415),
    "PNG without pixels": (png(10, 10), 422),
    "PNG of no width": (png(0, 10), 415),
    "PNG with wrong pixels": (png(10, 10, data=b"not deflated"), 422),
    "comment that fills memory": (bomb_in_text(), 415),
    "too thin to resize": (encoded(picture(4000, 1)), 422),
    "50,000 x 50,000": (huge_png(), 413),
    "2,000,000,000 wide": (png(2_000_000_000, 2_000_000_000), 413),
    "tile beyond its image": (enormous_tile(), 413),
    "thousands of scans": (many_scans(2000), 422),
    "scans behind a preview": (
        many_scans(2000).replace(b"\xff\xd8", b"\xff\xd8\xff\xe1\x00\x06\xff\xda\xff\xd9", 1),
        422,
    ),
    "float image of NaN": (encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"), 422),
}


@pytest.mark.parametrize("name", BAD)
def test_an_image_that_cannot_be_used_is_a_problem(served, name):
    content, status = BAD[name]
    found = problem(post(served, content), status)
    assert found["type"].startswith("urn:problem-type:van:")


@pytest.mark.parametrize("name", BAD)
def test_among_good_images_only_the_bad_one_has_an_error(served, predictor, name):
    response = post(served, GOOD, BAD[name][0], encoded(picture(seed=1)), names=["a", "b", "c"])
    assert response.status_code == 200, response.text
    first, bad, last = response.json()["results"]
    same(first, predictor(PICTURE))
    same(last, predictor(picture(seed=1)))
    assert set(bad) == {"name", "error"}
    assert bad["name"] == "b"
    assert 400 <= bad["error"]["status"] < 500


def test_nothing_but_bad_images_is_a_problem_that_names_each(served):
    found = problem(post(served, b"", b"hello", names=["a", "b"]), 415, 422)
    assert [each["name"] for each in found["results"]] == ["a", "b"]
    assert all("error" in each for each in found["results"])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs the kernel's account of memory")
@pytest.mark.parametrize("content", [huge_png(), bomb_in_text(), enormous_tile()], ids=["pixels", "comment", "tile"])
def test_what_is_refused_is_not_unpacked(served, content):
    """50,000 x 50,000 black pixels are 2.5 GB in memory, the comment is 200 MB, the tile 1.6 GB."""

    def megabytes(name):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again at what is used now
    before = megabytes("VmRSS")
    problem(post(served, content), 413, 415)
    assert megabytes("VmHWM") - before < 100


def test_an_image_with_too_many_pixels_is_refused_by_its_header(predictor):
    with running({"tiny": predictor}, max_pixels=5000) as service:
        found = problem(post(service, GOOD), 413)
        assert found["limit_pixels"] == 5000
        assert post(service, encoded(picture(50, 100))).status_code == 200


# ---- names

NAMES = {
    "traversal": "../../../../etc/passwd",
    "absolute": "/etc/shadow",
    "backslashes": "..\\..\\windows\\system32\\a.png",
    "control characters": "a\x00b\x1b[31mc\r\nX-Evil: 1\td\x7f",
    "turned text": "a\u202egnp.exe",
    "10,000 characters": "x" * 10_000,
    "emoji": "🐈" * 50,
    "markup": "<script>alert(1)</script>",
    "template": "{{7*7}}%s%n${jndi:ldap://x}",
    "half of a pair": "\ud800",
    "none": "",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_given_back_safe_to_show_and_is_no_path(served, predictor, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    body = json.dumps({"images": [entry(GOOD, NAMES[name])]}).encode()
    response = send_json(served, body)
    if name == "half of a pair":
        problem(response, 400, 422)
    else:
        found = response.json()["results"][0]
        same(found, predictor(PICTURE))
        assert found["name"].isprintable()
        assert 0 < len(found["name"]) <= 200
    assert list(tmp_path.iterdir()) == []


def test_a_path_or_an_address_is_not_opened(served, tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(GOOD)
    for text in (str(path), f"file://{path}", f"http://127.0.0.1:{served.port}/healthz"):
        problem(post_json(served, {"images": [{"name": str(path), "data": text}]}), 422)
        problem(post(served, text.encode(), names=[str(path)]), 415, 422)


def test_a_name_in_a_multipart_header_cannot_make_another_header(served):
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a\x00\x0b\x85.png"\r\n\r\n'
    response = send_multipart(served, head + GOOD + b"\r\n--b--\r\n")
    assert response.status_code in (200, 400)
    if response.status_code == 200:
        assert response.json()["results"][0]["name"].isprintable()


def test_images_of_the_same_name_are_answered_each_for_itself(served, predictor):
    other = encoded(picture(seed=3))
    results = post(served, GOOD, other, GOOD, names=["a", "a", "a"]).json()["results"]
    assert [each["name"] for each in results] == ["a", "a", "a"]
    for found, image in zip(results, [PICTURE, picture(seed=3), PICTURE], strict=True):
        same(found, predictor(image))


def test_the_log_holds_neither_names_nor_content_of_images(served):
    post(served, GOOD, b"secret content", names=["secret-name.png", "b"])
    post_json(served, {"images": [entry(b"secret content", "secret-name.png")]})
    assert served.idle()
    assert '"event": "request"' in served.log.getvalue()
    assert "secret" not in served.log.getvalue()


# ---- JSON


def send_json(service, body, **headers):
    sent = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return service.client.post("/v1/predict", content=body, headers=sent)


JSON_BODIES = {
    "nothing": b"",
    "half": b'{"images": [',
    "not UTF-8": b'{"images": [{"name": "\xff\xfe", "data": ""}]}',
    "UTF-16": json.dumps({"images": []}).encode("utf-16"),
    "null": b"null",
    "number": b"1e999",
    "list": b"[]",
    "no images": b"{}",
    "empty list": b'{"images": []}',
    "images is text": b'{"images": "abc"}',
    "images is null": b'{"images": null}',
    "image is a number": b'{"images": [1]}',
    "image is null": b'{"images": [null]}',
    "data is a number": b'{"images": [{"data": 7}]}',
    "data is null": b'{"images": [{"data": null}]}',
    "data is a list": b'{"images": [{"data": ["aGk="]}]}',
    "no data": b'{"images": [{"name": "a.png"}]}',
    "name is a number": b'{"images": [{"name": 7, "data": "aGk="}]}',
    "unknown member": b'{"images": [{"data": "aGk=", "path": "/etc/passwd"}]}',
    "unknown member on top": b'{"images": [], "model": "other"}',
    "twice the same member": b'{"images": [], "images": [{"data": "aGk="}]}',
    "constructor": b'{"__proto__": {"a": 1}, "images": []}',
    "deep list": b"[" * 100_000 + b"]" * 100_000,
    "deep object": b'{"images":' * 20_000 + b"1" + b"}" * 20_000,
    "long number": b'{"images": [' + b"9" * 100_000 + b"]}",
    "NaN": b'{"images": [{"data": NaN}]}',
    "many images": json.dumps({"images": [{"data": ""}] * 5000}).encode(),
}


@pytest.mark.parametrize("name", JSON_BODIES)
def test_json_that_is_not_as_expected_is_a_problem(served, name):
    problem(send_json(served, JSON_BODIES[name]), 400, 413, 422)


@pytest.mark.parametrize(
    "text", ["%%%", "aGk", "aGk=\n", "a GVs bG8=", "====", "\u00e9", "-_-_", "data:,", "data:image/png;base64,!"]
)
def test_what_is_no_base64_is_a_problem(served, text):
    problem(post_json(served, {"images": [{"data": text}]}), 415, 422)


def test_bad_base64_among_good_images_is_an_entry_with_an_error(served, predictor):
    results = post_json(served, {"images": [entry(GOOD), {"name": "b", "data": "%%%"}]}).json()["results"]
    same(results[0], predictor(PICTURE))
    assert results[1]["error"]["status"] == 422


# ---- multipart


def send_multipart(service, body, kind="multipart/form-data; boundary=b", **options):
    return service.client.post("/v1/predict", content=body, headers={"content-type": kind}, **options)


def part(content=GOOD, disposition='form-data; name="image"; filename="a.png"', more=""):
    return f"--b\r\nContent-Disposition: {disposition}\r\n{more}\r\n".encode("latin-1") + content + b"\r\n"


END = b"--b--\r\n"
MULTIPART = {
    "no boundary": (part() + END, "multipart/form-data"),
    "empty boundary": (part() + END, "multipart/form-data; boundary="),
    "another boundary": (part() + END, "multipart/form-data; boundary=c"),
    "very long boundary": (part() + END, "multipart/form-data; boundary=" + "b" * 5000),
    "no last boundary": (part(), None),
    "nothing": (b"", None),
    "only an end": (END, None),
    "no parts but text": (b"hello", None),
    "no disposition": (b"--b\r\nContent-Type: image/png\r\n\r\n" + GOOD + b"\r\n" + END, None),
    "no headers": (b"--b\r\n\r\n" + GOOD + b"\r\n" + END, None),
    "other field": (part(disposition='form-data; name="file"; filename="a.png"') + END, None),
    "field without a name": (part(disposition="form-data") + END, None),
    "half a header": (b"--b\r\nContent-Dispo", None),
    "long header": (part(more="X-Long: " + "x" * 50_000 + "\r\n") + END, None),
    "thousands of headers": (part(more="".join(f"X-{i}: 1\r\n" for i in range(5000))) + END, None),
    "thousands of parts": (part(b"") * 3000 + END, None),
    "one part too many": (part() * (MAX_BATCH + 1) + END, None),
    "encoded part": (part(base64.b64encode(GOOD), more="Content-Transfer-Encoding: base64\r\n") + END, None),
    "nested": (part(b"--c\r\n\r\n\r\n--c--", more="Content-Type: multipart/mixed; boundary=c\r\n") + END, None),
}


@pytest.mark.parametrize("name", MULTIPART)
def test_a_multipart_body_that_is_not_as_expected_is_a_problem(served, name):
    body, kind = MULTIPART[name]
    problem(send_multipart(served, body, *([kind] if kind else [])), 400, 413, 415, 422)


@pytest.mark.parametrize(
    "kind", [None, "", "text/plain", "image/png", "application/x-www-form-urlencoded", "application/jsonp", "\x00/;;="]
)
def test_a_body_of_another_type_is_a_problem(served, kind):
    headers = {"Content-Type": kind}
    answer = served.raw(request_bytes(body=GOOD, headers=headers))
    assert answer.status in (400, 415), answer
    assert answer.headers["content-type"] == PROBLEM


# ---- HTTP


def whole(body=b"", **headers):
    return request_bytes(body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


JSON_BODY = json.dumps({"images": [entry(GOOD)]}).encode()
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


# ---- the Open Inference Protocol

INFER = "/v2/models/tiny/infer"


def tensor(**changes):
    return {"inputs": [{"name": "images", "shape": [1, 3, 32, 32], "datatype": "FP32", "data": [0.5] * 3072} | changes]}


TENSORS = {
    "no inputs": {},
    "empty": {"inputs": []},
    "two": {"inputs": tensor()["inputs"] * 2},
    "null": {"inputs": [None]},
    "too few numbers": tensor(data=[0.5]),
    "texts": tensor(data=["a"] * 3072),
    "nothing": tensor(data=None),
    "booleans": tensor(data=[True] * 3072),
    "deep": tensor(data=[[[[[[0.5]]]]]]),
    "uneven": tensor(data=[[1, 2], [3]]),
    "infinite in float32": tensor(data=[1e300] * 3072),
    "negative side": tensor(shape=[1, 3, -32, -32]),
    "no side": tensor(shape=[0, 3, 32, 32]),
    "enormous": tensor(shape=[1, 3, 2**30, 2**30]),
    "enormous batch": tensor(shape=[2**30, 3, 32, 32]),
    "one channel": tensor(shape=[1, 1, 32, 96]),
    "fractions": tensor(shape=[1.0, 3, 32, 32]),
    "booleans as sides": tensor(shape=[True, 3, 32, 32]),
    "other type": tensor(datatype="INT8"),
    "type is a list": tensor(datatype=["FP32"]),
    "one pixel": tensor(shape=[1, 3, 1, 1], data=[0.5] * 3),
    "encoded": {"inputs": [{"name": "encoded", "shape": [1], "datatype": "BYTES", "data": ["%%%"]}]},
    "encoded, no text": {"inputs": [{"name": "encoded", "shape": [1], "datatype": "BYTES", "data": [7]}]},
    "unknown output": tensor() | {"outputs": [{"name": "nothing"}]},
    "outputs is text": tensor() | {"outputs": "logits"},
    "id is a number": tensor() | {"id": 7},
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_that_cannot_be_is_a_problem(served, name):
    response = post_json(served, TENSORS[name], INFER)
    if name == "one pixel":  # which a network may take
        assert response.status_code in (200, 422)
    else:
        problem(response, 413, 415, 422)


# ---- clients


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


# ---- the token

TOKEN = "correct-horse"
WRONG = [
    None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}",
    f"Bearer{TOKEN}", f"Bearer {TOKEN} {TOKEN}", "Bearer \xe9", f"Bearer {TOKEN.upper()}", "Bearer " + "x" * 10_000,
]  # fmt: skip


@pytest.fixture(scope="module")
def guarded(predictor):
    with running({"tiny": predictor}, token=TOKEN, latency_ms=20_000) as service:
        yield service


@pytest.mark.parametrize("shown", WRONG, ids=range(len(WRONG)))
def test_without_the_token_nothing_is_done(guarded, shown):
    for path, method in [("/v1/predict", "POST"), ("/v1/models", "GET"), (INFER, "POST"), ("/v2", "GET")]:
        sent = request_bytes(path, method=method, body=JSON_BODY, headers={"Authorization": shown})
        answer = guarded.raw(sent)
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert TOKEN.encode() not in answer.content
    assert TOKEN not in guarded.log.getvalue()


@pytest.mark.parametrize("shown", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Bearer  {TOKEN} "])
def test_with_the_token_it_is_done(guarded, shown):
    assert guarded.raw(request_bytes(body=JSON_BODY, headers={"Authorization": shown})).status == 200


def test_a_second_token_does_not_help(guarded):
    two = f"Bearer wrong\r\nAuthorization: Bearer {TOKEN}"
    assert guarded.raw(request_bytes(body=JSON_BODY, headers={"Authorization": two})).status in (200, 400, 401)
    hidden = guarded.client.post(f"/v1/predict?token={TOKEN}&access_token={TOKEN}", files={"image": GOOD})
    assert hidden.status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/v2/health/live"])
def test_those_who_watch_need_no_token(guarded, path):
    assert guarded.client.get(path).status_code == 200
