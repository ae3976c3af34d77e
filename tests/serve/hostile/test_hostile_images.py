"""Images of strangers: the right answer, or a problem that says what is wrong."""

import base64
import io
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
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
from hostile_requests import (
    GOOD,
    PICTURE,
    post,
    post_json,
    problem,
    same,
    send_multipart,
)
from running_service import running

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
