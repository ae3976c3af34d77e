"""Images in the body of a request: multipart fields or base64 in JSON, and what their headers say before decoding."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError  # type: ignore[import-not-found,unused-ignore]
from python_multipart.multipart import (  # type: ignore[import-not-found,unused-ignore]
    MultipartParser,
    parse_options_header,
)

from ...files import parse_json, printable
from ...images.jpeg_scans import MOST_SCANS, has_too_many_scans
from ...images.preprocess import declared_pixels
from .problems import Problem
from .settings import Settings

FIELD = "image"
_MOST_NAME = 200  # characters of a name that are given back
_MOST_HEADER_BYTES = 8192  # of a part
_SHAPE = '{"images": [{"name": "cat.jpg", "data": "<base64>"}]}'


@dataclass(frozen=True)
class Upload:
    """An image of a request. data: its bytes, or why there are none."""

    name: str
    data: bytes | Problem = field(repr=False)


def uploads_of(content_type: str, body: bytes, settings: Settings) -> list[Upload]:
    """The images of a request, at least one; raises Problem for a body that cannot be understood."""
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        found = _of_multipart(options.get(b"boundary", b""), body, settings.max_images)
    elif kind == b"application/json":
        found = _of_json(body, settings.max_images)
    else:
        detail = f"the body is {printable(content_type[:80]) or 'of no type'}; send multipart/form-data with fields "
        raise Problem(415, "unsupported-body", f"{detail}{FIELD!r}, or application/json: {_SHAPE}")
    if not found:
        raise Problem(422, "no-images", f"the request holds no images; send at least one as {FIELD!r}, or {_SHAPE}")
    return found


def clean_name(name: str, number: int) -> str:
    """A name as it may be given back: one line, no control characters, not endless. It is never a path here."""
    kept = printable(name[:_MOST_NAME])[:_MOST_NAME]
    return kept or f"image {number}"


# ---- JSON


def check_json(content_type: str) -> None:
    """Raises Problem for a body of another type."""
    if parse_options_header(content_type)[0] != b"application/json":
        shown = printable(content_type[:80]) or "of no type"
        raise Problem(415, "unsupported-body", f"the body is {shown}; send application/json")


def json_object(body: bytes) -> dict[str, Any]:
    """The object in a JSON body; raises Problem for anything else."""
    try:
        value = parse_json(body)
    except ValueError as error:  # also for what is not UTF-8
        raise Problem(400, "bad-json", f"the body is no JSON that can be used: {printable(error)[:200]}") from None
    if not isinstance(value, dict):
        raise Problem(422, "bad-json", f"the body is a JSON {type(value).__name__}; expected an object")
    return value


def _of_json(body: bytes, most: int) -> list[Upload]:
    value = json_object(body)
    if unknown := sorted(set(value) - {"images"}):
        raise Problem(422, "unknown-field", f"unknown member {printable(unknown[0][:80])!r}; expected {_SHAPE}")
    images = value.get("images")
    if not isinstance(images, list):
        raise Problem(422, "no-images", f"'images' is no list; expected {_SHAPE}")
    check_count(len(images), most)
    return [_of_entry(each, number) for number, each in enumerate(images)]


def _of_entry(entry: object, number: int) -> Upload:
    known = isinstance(entry, Mapping) and set(entry) <= {"name", "data"} and isinstance(entry.get("data"), str)
    if not known or not isinstance(entry, Mapping) or not isinstance(entry.get("name", ""), str):
        raise Problem(422, "bad-image", f'images[{number}] is not as {{"name": "cat.jpg", "data": "<base64>"}}')
    return Upload(clean_name(entry.get("name", ""), number), decoded(entry["data"]))


def decoded(text: str) -> bytes | Problem:
    """The bytes of base64, with or without `data:image/…;base64,` before it, or the problem with it."""
    start, comma, rest = text.partition(",")
    content = rest if comma and start.startswith("data:") else text
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        return Problem(422, "bad-base64", "the data is no base64; encode the bytes of the image file (RFC 4648)")


def check_count(count: int, most: int) -> None:
    """Raises Problem for too many images."""
    if count > most:
        detail = f"the request holds more than {most} images, which is the limit; send them in several requests"
        raise Problem(413, "too-many-images", detail, limit_images=most)


# ---- multipart


def _of_multipart(boundary: bytes, body: bytes, most: int) -> list[Upload]:
    if not boundary:
        raise Problem(400, "bad-multipart", "Content-Type names no boundary; let your HTTP client make the body")
    parts = _Parts(most)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        reason = printable(error)[:200]
        raise Problem(400, "bad-multipart", f"the body is no multipart that can be read: {reason}") from None
    if not parts.ended:
        raise Problem(400, "bad-multipart", "the multipart body ends before its last boundary; send all of it")
    return parts.found


class _Parts:
    """Collects the parts of a multipart body."""

    def __init__(self, most: int) -> None:
        self.most, self.found, self.ended = most, list[Upload](), False
        self._begin()

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value, self._name = b"", b"", ""
        self._data: list[bytes] = []
        self._header_bytes = 0

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += self._counted(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += self._counted(data[start:end])

    def _counted(self, part: bytes) -> bytes:
        self._header_bytes += len(part)
        if self._header_bytes > _MOST_HEADER_BYTES:
            raise Problem(400, "bad-multipart", f"a part has more than {_MOST_HEADER_BYTES:,} bytes of headers")
        return part

    def _header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        check_count(len(self.found) + 1, self.most)
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        given = options.get(b"name", b"").decode("utf-8", "replace")
        if given != FIELD:
            detail = f"unknown field {clean_name(given, 0)!r}; send each image as a field {FIELD!r}"
            raise Problem(422, "unknown-field", detail)
        if self._headers.get(b"content-transfer-encoding", b"binary").lower() not in (b"binary", b"8bit", b"7bit"):
            raise Problem(415, "encoded-part", "a part has a Content-Transfer-Encoding; send the bytes as they are")
        name = options.get(b"filename", b"").decode("utf-8", "replace")
        self._name = clean_name(name, len(self.found))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _part_end(self) -> None:
        self.found.append(Upload(self._name, b"".join(self._data)))

    def _end(self) -> None:
        self.ended = True


# ---- images


def check_image(data: bytes, most_pixels: int) -> None:
    """Raises Problem, without decoding, for what is no image and for one that takes too much memory or time."""
    if not data:
        raise Problem(422, "empty-image", "the image has 0 bytes; send the bytes of an image file")
    pixels = declared_pixels(data)
    if pixels is None:
        raise Problem(415, "no-image", "this is no image of a format that is read here; send JPEG, PNG or WebP")
    if pixels > most_pixels:
        detail = f"the image has {pixels:,} pixels; at most {most_pixels:,} are allowed; send a smaller one"
        raise Problem(413, "too-many-pixels", detail, limit_pixels=most_pixels)
    if has_too_many_scans(data):
        detail = f"the JPEG has more than {MOST_SCANS} scans, which take too long to decode; save the image again"
        raise Problem(422, "too-many-scans", detail)
