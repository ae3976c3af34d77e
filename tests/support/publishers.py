"""A server on this machine that plays every publisher: an HTTP proxy which answers for all hosts itself.

Links of the table are https; with http in its place (`plain`) and the environment variable http_proxy, every request of
urllib and of the hub's client for any host comes here.
"""

import hashlib
import http.server
import json
import re
import threading
import time
import urllib.parse
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Served:
    """What an address gives.

    ranges: it can go on in the middle of a file. etag: None: it says nothing that tells two files apart.
    cuts: of the requests to come, after how many bytes of the body the connection ends; None: after the last.
    stall_s: how long nothing comes before it ends. pause_s: between two blocks. length: it says how long the file is.
    failures: of the requests to come, statuses that they are answered with first. headers: further ones.
    """

    body: bytes = b""
    status: int = 200
    redirect: str | None = None
    kind: str = "application/octet-stream"
    ranges: bool = True
    etag: str | None = '"first"'
    cuts: list = field(default_factory=list)
    failures: list = field(default_factory=list)
    stall_s: float = 0
    pause_s: float = 0
    block: int = 1 << 16
    length: bool = True
    headers: dict = field(default_factory=dict)


def plain(link):
    return link.replace("https://", "http://", 1)


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        address = self.path.removeprefix("http://")
        self.server.asked.append((address, dict(self.headers)))
        served = self.server.sites.get(address) or self.server.sites.get(address.partition("?")[0])
        if callable(served):
            served = served(address)
        if served is None:
            return self.begin(404, {"Content-Length": "0"})
        if served.failures:
            return self.begin(served.failures.pop(0), {"Content-Length": "0"})
        if served.redirect:
            return self.begin(302, {"Location": served.redirect, "Content-Length": "0"})
        return self.send(served)

    def begin(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, served):
        headers = {"Content-Type": served.kind}
        headers |= {"Accept-Ranges": "bytes"} if served.ranges else {}
        headers |= {"ETag": served.etag} if served.etag else {}
        start, status = 0, served.status
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        same = self.headers.get("If-Range") in (None, served.etag)
        if asked and served.ranges and same:
            start, status = int(asked[1]), 206
            if start >= len(served.body):
                return self.begin(416, {"Content-Range": f"bytes */{len(served.body)}", "Content-Length": "0"})
            headers["Content-Range"] = f"bytes {start}-{len(served.body) - 1}/{len(served.body)}"
        if served.length:
            headers["Content-Length"] = str(len(served.body) - start)
        self.begin(status, headers | served.headers)
        if self.command == "GET":
            self.body(served, start)

    def body(self, served, start):
        end = served.cuts.pop(0) if served.cuts else None
        rest = served.body[start : None if end is None else start + end]
        for place in range(0, len(rest), served.block):
            self.wfile.write(rest[place : place + served.block])
            time.sleep(served.pause_s)
        if end is not None and served.stall_s:
            self.server.released.wait(served.stall_s)


class Publishers(http.server.ThreadingHTTPServer):
    """sites: address without its scheme, with or without the query -> Served. asked: (address, headers) so far."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.sites, self.asked, self.released = {}, [], threading.Event()

    def handle_error(self, request, client_address):
        pass  # a client that was killed

    @property
    def proxy(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def environment(self):
        return {"http_proxy": self.proxy, "HTTP_PROXY": self.proxy, "no_proxy": "", "NO_PROXY": ""}

    def serve(self, link, *bodies, **how):
        """Serve at a link, with or without its scheme."""
        served = self.sites[re.sub(r"^https?://", "", link)] = Served(*bodies, **how)
        return served

    def asked_for(self, part):
        return [headers for address, headers in self.asked if part in address]

    def drive(self, drive_id, body, *, size="300M", title="Google Drive - Virus scan warning", **how):
        """A large file as Google Drive serves it: a page with a form, which leads to the file on another host."""
        action = "http://drive.usercontent.google.com/download"
        fields = {"id": drive_id, "export": "download", "confirm": "t", "uuid": "6f1c-77"}
        inputs = "".join(f'<input type="hidden" name="{name}" value="{value}">' for name, value in fields.items())
        page = f"""<!DOCTYPE html><html><head><title>{title}</title></head><body><form id="search" action="/s">
            <input name="q" value="no"></form><p>van.pth ({size}) is too large for Google to scan for viruses.</p>
            <form id="download-form" action="{action}" method="get">
            <input type="submit" value="Download anyway">{inputs}</form></body></html>"""
        self.serve(f"drive.google.com/uc?export=download&id={drive_id}", page.encode(), kind="text/html; charset=utf-8")
        query = urllib.parse.urlencode(fields)
        return self.serve(f"drive.usercontent.google.com/download?{query}", body, **how)

    def hub(self, repo, commit, files):
        """A repository of the Hugging Face hub at one commit."""
        info = {"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
        tree = [{"type": "file", "path": name, "size": len(body), "oid": "0" * 40} for name, body in files.items()]
        answers = {f"revision/{commit}": info, f"tree/{commit}": tree}
        for address, answer in answers.items():
            self.serve(
                f"huggingface.co/api/models/{repo}/{address}", json.dumps(answer).encode(), kind="application/json"
            )
        for name, body in files.items():
            tag = f'"{hashlib.sha256(body).hexdigest()}"'
            self.serve(
                f"huggingface.co/{repo}/resolve/{commit}/{name}", body, etag=tag, headers={"X-Repo-Commit": commit}
            )


@contextmanager
def publishers():
    server = Publishers()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
