"""What is wrong with a request, as application/problem+json (RFC 9457): each says what happened and what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

MEDIA_TYPE = "application/problem+json"
_TYPE = "urn:problem-type:van:"


class Problem(Exception):  # noqa: N818 - the name that RFC 9457 has for it
    """A request, or an image of it, that cannot be done.

    kind: the last part of `type`, which programs can rely on. detail: what happened and what to do.
    retry_after_s: when it is worth another try. headers: further ones of the response. more: further members.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        close: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.more = status, kind, detail, more
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
        if close:
            self.headers["Connection"] = "close"

    def to_dict(self) -> dict[str, Any]:
        """The members of the problem, JSON-ready."""
        title = self.kind.replace("-", " ").capitalize()
        return {"type": _TYPE + self.kind, "title": title, "status": self.status, "detail": self.detail, **self.more}


def problem_of_status(status: int, detail: str | None, headers: Mapping[str, str] | None = None) -> Problem:
    """A problem for an HTTP error that the framework found."""
    phrase = HTTPStatus(status).phrase
    return Problem(status, phrase.lower().replace(" ", "-"), detail or phrase, headers=headers)
