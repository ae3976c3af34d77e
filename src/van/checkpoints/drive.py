"""Opening a link: Google Drive's pages on the way to a file, and web pages that come in place of one.

Google Drive answers a link to a large file with a page that says it was not scanned for viruses, and a form in it that
leads to the file.
"""

from __future__ import annotations

import http.client
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping
from html.parser import HTMLParser

_FILE = re.compile(r"(https?)://drive\.google\.com/(?:file/d/([\w-]+)|(?:uc|open)\?(?:[^#]*&)?id=([\w-]+))")
_GOOGLE = re.compile(r"(^|\.)(google|googleusercontent)\.com$")
_PAGE_BYTES = 1 << 20


def open_link(
    opener: urllib.request.OpenerDirector, url: str, headers: Mapping[str, str], timeout_s: float
) -> http.client.HTTPResponse:
    """The reply with the file that a link leads to; of Google Drive, behind the page that asks for a confirmation.

    headers: may ask for the rest of a file only, which is asked of the file and not of the page before it.
    Raises OSError for a web page in place of a file, and whatever urllib raises.
    """

    def get(address: str, *, whole: bool = False) -> http.client.HTTPResponse:
        sent = {name: value for name, value in headers.items() if not (whole and name in ("Range", "If-Range"))}
        reply: http.client.HTTPResponse = opener.open(urllib.request.Request(address, headers=sent), timeout=timeout_s)
        return reply

    found = _FILE.match(url)
    if found:
        url = f"{found[1]}://drive.google.com/uc?" + urllib.parse.urlencode(
            {"export": "download", "id": found[2] or found[3]}
        )
    reply = get(url, whole=found is not None)
    if found and _is_page(reply):
        page = _read_page(reply)
        if (address := page.confirmation(reply.geturl())) is None:
            raise OSError(f"Google Drive's page{page.named} leads to no file")
        reply = get(address)
    if _is_page(reply):
        raise OSError(f"a web page{_read_page(reply).named} came in place of the file")
    return reply


def _is_page(reply: http.client.HTTPResponse) -> bool:
    return reply.headers.get_content_type() == "text/html" and "attachment" not in (
        reply.headers.get("Content-Disposition") or ""
    )


class _Page(HTMLParser):
    """The title of a page, and what its form or link for the download would send."""

    def __init__(self) -> None:
        super().__init__()
        self.title, self.action, self.link = "", "", ""
        self.fields: dict[str, str] = {}
        self._in_title = self._in_form = False

    @property
    def named(self) -> str:
        """The title, for an error; "" without one."""
        title = " ".join(self.title.split())[:100]
        return f" ({title!r})" if title else ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "title":
            self._in_title = True
        elif tag == "form":
            self._in_form = found.get("id") == "download-form"
            self.action = found.get("action", "") if self._in_form else self.action
        elif tag == "input" and self._in_form and found.get("name"):
            self.fields[found["name"]] = found.get("value", "")
        elif tag == "a" and found.get("id") == "uc-download-link":
            self.link = found.get("href", "")

    def handle_endtag(self, tag: str) -> None:
        self._in_title = self._in_title and tag != "title"
        self._in_form = self._in_form and tag != "form"

    def handle_data(self, data: str) -> None:
        self.title += data if self._in_title else ""

    def confirmation(self, address: str) -> str | None:
        """Where the form or link on the page at `address` leads; None where that is nowhere, or away from Google."""
        target = urllib.parse.urljoin(address, self.action or self.link)
        if not (self.action or self.link) or not _GOOGLE.search(urllib.parse.urlsplit(target).hostname or ""):
            return None
        return target + ("?" + urllib.parse.urlencode(self.fields) if self.action else "")


def _read_page(reply: http.client.HTTPResponse) -> _Page:
    page = _Page()
    with reply:
        page.feed(reply.read(_PAGE_BYTES).decode(errors="replace"))
    return page
