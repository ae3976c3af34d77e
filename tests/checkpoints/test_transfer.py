"""Downloads from plain links, against a server on this machine that plays every publisher."""

import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from publishers import plain, publishers

from van.checkpoints import transfer
from van.errors import CheckpointError

BODY = np.random.default_rng(0).bytes(300_000)
OTHER = BODY[:-1] + bytes([BODY[-1] ^ 1])
DIGEST = hashlib.sha256(BODY).hexdigest()
LINK = "http://download.openmmlab.com/mmclassification/v0/van/x.pth"


@pytest.fixture
def server(monkeypatch):
    with publishers() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(transfer, "PAUSE_S", 0.001)
        yield server


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "x.pth"


def files(target):
    return sorted(path.name for path in target.parent.iterdir())


def ranges(server, part="x.pth"):
    return [headers.get("Range") for headers in server.asked_for(part)]


def test_a_file_arrives_whole_and_alone(server, target):
    server.serve(LINK, BODY)
    seen = []
    assert transfer.fetch(LINK, target, sha256=DIGEST, progress=lambda *at: seen.append(at)) == target
    assert target.read_bytes() == BODY
    assert files(target) == ["x.pth"]
    assert seen[0] == (0, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    assert seen == sorted(seen)
    transfer.fetch(LINK, target, sha256=DIGEST)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("link", "end"),
    [
        ("http://github.com/o/r/releases/download/1.0.3/x.h5", "http://objects.githubusercontent.com/x?signature=1"),
        (
            "http://cloud.tsinghua.edu.cn/f/68c8b494f3824d30bf07/?dl=1",
            "http://cloud.tsinghua.edu.cn/seafhttp/files/1/x",
        ),
    ],
)
def test_redirects_are_followed_and_resumed_behind(server, target, link, end):
    server.serve(link, redirect=end)
    server.serve(end, BODY, cuts=[70_000])
    assert transfer.fetch(link, target).read_bytes() == BODY
    assert ranges(server, end.removeprefix("http://")) == [None, "bytes=70000-"]


def test_interrupted_transfers_go_on_where_they_stopped(server, target):
    server.serve(LINK, BODY, cuts=[100_000, 0, 50_000])
    assert transfer.fetch(LINK, target, sha256=DIGEST[:8]).read_bytes() == BODY
    assert ranges(server) == [None, "bytes=100000-", "bytes=100000-", "bytes=150000-"]
    assert [headers.get("If-Range") for headers in server.asked_for("x.pth")] == [None, *['"first"'] * 3]
    assert files(target) == ["x.pth"]


def test_a_body_of_unknown_length_arrives(server, target):
    server.serve(LINK, BODY, length=False)
    assert transfer.fetch(LINK, target, sha256=DIGEST).read_bytes() == BODY


def test_a_connection_that_stalls_is_given_up_and_taken_up_again(server, target, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT_S", 0.2)
    server.serve(LINK, BODY, cuts=[100_000], stall_s=5)
    assert transfer.fetch(LINK, target).read_bytes() == BODY
    assert ranges(server) == [None, "bytes=100000-"]


def test_a_slow_server_is_waited_for(server, target, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT_S", 0.3)
    server.serve(LINK, BODY, pause_s=0.05, block=30_000)  # longer than the timeout in all
    seen = []
    assert transfer.fetch(LINK, target, progress=lambda done, total: seen.append(done)).read_bytes() == BODY
    assert len(set(seen)) > 5
    assert len(server.asked) == 1


def test_a_killed_download_resumes(server, target):
    served = server.serve(LINK, BODY, cuts=[120_000], stall_s=20)
    code = f"""
from pathlib import Path
from van.checkpoints import transfer
transfer.fetch({LINK!r}, Path({str(target)!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **server.environment})
    part = transfer.part_path(target, LINK)
    try:
        deadline = time.monotonic() + 20
        while not (part.exists() and part.stat().st_size == 120_000):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert not target.exists()
    assert part.read_bytes() == BODY[:120_000]
    assert not served.cuts
    assert transfer.fetch(LINK, target, sha256=DIGEST).read_bytes() == BODY
    assert ranges(server) == [None, "bytes=120000-"]
    assert files(target) == ["x.pth"]


def interrupted(server, target, link=LINK, body=BODY, at=120_000, **how):
    """An attempt that brought the beginning of a file and was given up."""
    served = server.serve(link, body, cuts=[at] + [0] * transfer.ATTEMPTS, **how)
    with pytest.raises(CheckpointError, match=r"failed: .*\(120,000 bytes have arrived and are kept: the next attempt"):
        transfer.fetch(link, target)
    assert not target.exists()
    assert transfer.part_path(target, link).stat().st_size == at
    server.asked.clear()
    return served


def test_what_has_arrived_is_kept_and_the_next_attempt_goes_on(server, target):
    interrupted(server, target)
    assert transfer.fetch(LINK, target).read_bytes() == BODY
    assert ranges(server) == ["bytes=120000-"]


def test_another_version_of_the_file_is_not_joined_to_the_first(server, target):
    interrupted(server, target)
    server.serve(LINK, OTHER[::-1], etag='"second"')
    assert transfer.fetch(LINK, target).read_bytes() == OTHER[::-1]


def test_another_version_is_noticed_by_its_hash(server, target):
    interrupted(server, target, etag=None)
    server.serve(LINK, BODY[::-1], etag=None)
    digest = hashlib.sha256(BODY[::-1]).hexdigest()
    assert transfer.fetch(LINK, target, sha256=digest).read_bytes() == BODY[::-1]
    assert files(target) == ["x.pth"]


@pytest.mark.parametrize("size", [200_000, 100_000])
def test_another_version_is_noticed_by_its_length(server, target, size):
    interrupted(server, target, etag=None)
    server.serve(LINK, BODY[::-1][:size], etag=None)
    assert transfer.fetch(LINK, target).read_bytes() == BODY[::-1][:size]
    assert files(target) == ["x.pth"]


def test_a_server_that_sends_another_part_than_the_rest(server, target):
    served = interrupted(server, target)
    served.headers = {"Content-Range": f"bytes 5-{len(BODY) - 1}/{len(BODY)}"}
    assert transfer.fetch(LINK, target).read_bytes() == BODY
    assert ranges(server) == ["bytes=120000-", None]


def test_a_server_that_forgot_how_to_go_on_starts_over(server, target):
    interrupted(server, target)
    server.serve(LINK, BODY, ranges=False)
    assert transfer.fetch(LINK, target, sha256=DIGEST).read_bytes() == BODY


def test_all_bytes_but_not_the_name(server, target):
    interrupted(server, target)
    transfer.part_path(target, LINK).write_bytes(BODY)  # killed before it was renamed
    assert transfer.fetch(LINK, target, sha256=DIGEST).read_bytes() == BODY
    assert ranges(server) == [f"bytes={len(BODY)}-"]


def test_a_record_that_was_half_written_starts_over(server, target):
    interrupted(server, target)
    record = transfer.part_path(target, LINK).with_suffix(".json")
    for text in (record.read_text()[:20], "[]", '{"url": "http://elsewhere/x.pth", "total": null, "validator": ""}'):
        record.write_text(text)
        assert transfer.fetch(LINK, target, sha256=DIGEST).read_bytes() == BODY
        assert ranges(server) == [None]
        assert files(target) == ["x.pth"]
        target.unlink()
        interrupted(server, target)


def test_where_a_server_cannot_go_on_nothing_is_left(server, target):
    server.serve(LINK, BODY, ranges=False, cuts=[100_000])
    with pytest.raises(CheckpointError, match=r"100,000 of 300,000 bytes arrived; try again, or download it yourself$"):
        transfer.fetch(LINK, target)
    assert files(target) == []
    assert len(server.asked) == 1


def test_temporary_refusals_of_a_download_that_had_begun(server, target):
    served = interrupted(server, target)
    served.failures = [503, 429]
    assert transfer.fetch(LINK, target).read_bytes() == BODY
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [404, 403, 410])
def test_what_is_not_there_is_not_asked_for_twice(server, target, status):
    served = interrupted(server, target)
    served.failures = [status]
    with pytest.raises(CheckpointError, match=rf"failed: HTTPError: HTTP Error {status}"):
        transfer.fetch(LINK, target)
    assert len(server.asked) == 1


@pytest.mark.parametrize("known", [DIGEST, DIGEST[:8]])
def test_wrong_bytes_are_named_with_both_hashes(server, target, known):
    server.serve(LINK, OTHER)
    found = hashlib.sha256(OTHER).hexdigest()
    with pytest.raises(transfer.WrongFileError, match=f"its sha256 is {found}, not {known}…; it was deleted") as caught:
        transfer.fetch(LINK, target, sha256=known)
    assert (caught.value.found, caught.value.kept) == (found, None)
    assert files(target) == []
    with pytest.raises(transfer.WrongFileError, match="it is kept as") as caught:
        transfer.fetch(LINK, target, sha256=known, keep_wrong=True)
    assert files(target) == [caught.value.kept.name] == [f"x.pth.wrong-{found[:8]}"]
    assert caught.value.kept.read_bytes() == OTHER


# Google Drive


DRIVE = plain("https://drive.google.com/file/d/11XjGgqgqWJOUKdIEWuInQJyi4wAChaWN/view?usp=sharing")
DRIVE_ID = "11XjGgqgqWJOUKdIEWuInQJyi4wAChaWN"


def test_google_drives_page_is_confirmed(server, target):
    server.drive(DRIVE_ID, BODY, cuts=[90_000])
    assert transfer.fetch(DRIVE, target, sha256=DIGEST).read_bytes() == BODY
    assert ranges(server, "drive.usercontent.google.com") == [None, "bytes=90000-"]
    assert files(target) == ["x.pth"]


def test_a_small_file_on_google_drive_comes_at_once(server, target):
    server.serve(f"drive.google.com/uc?export=download&id={DRIVE_ID}", BODY)
    assert transfer.fetch(DRIVE, target).read_bytes() == BODY
    assert len(server.asked) == 1


def test_google_drives_earlier_page_has_a_link(server, target):
    page = b'<a id="uc-download-link" href="/uc?export=download&amp;confirm=AbC1&amp;id=%s">Download anyway</a>'
    server.serve(f"drive.google.com/uc?export=download&id={DRIVE_ID}", page % DRIVE_ID.encode(), kind="text/html")
    server.serve(f"drive.google.com/uc?export=download&confirm=AbC1&id={DRIVE_ID}", BODY)
    assert transfer.fetch(DRIVE, target).read_bytes() == BODY


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (
            b"<title>Google Drive -\n Quota exceeded</title><p>Too many users",
            "'Google Drive - Quota exceeded'.* leads to",
        ),
        (
            b'<form id="download-form" action="http://elsewhere.example/x"></form>',
            "Google Drive's page leads to no file",
        ),
        (b"", "Google Drive's page leads to no file"),
    ],
)
def test_pages_of_google_drive_that_lead_nowhere(server, target, page, message):
    server.serve(f"drive.google.com/uc?export=download&id={DRIVE_ID}", page, kind="text/html")
    with pytest.raises(CheckpointError, match=message):
        transfer.fetch(DRIVE, target)
    assert files(target) == []
    assert len(server.asked) == 1


def test_a_web_page_is_no_file(server, target):
    server.drive(DRIVE_ID, b"<title>Sign in</title>", kind="text/html")
    server.serve(LINK, b"<title>Sorry</title>", kind="text/html")
    for link, title in ((DRIVE, "Sign in"), (LINK, "Sorry")):
        with pytest.raises(CheckpointError, match=rf"a web page \('{title}'\) came in place of the file"):
            transfer.fetch(link, target)
    assert files(target) == []


# Several links


def test_mirrors_are_asked_in_their_order(server, target):
    links = [f"http://{host}/x.pth" for host in ("gone.example", "broken.example", "wrong.example", "right.example")]
    interrupted(server, target, links[1])
    server.serve(links[1], BODY, cuts=[0] * transfer.ATTEMPTS)
    server.serve(links[2], OTHER)
    server.serve(links[3], BODY)
    server.serve("http://never.example/x.pth", BODY)
    fetched = transfer.fetch_first([*links, "http://never.example/x.pth"], target, sha256=DIGEST)
    assert (fetched.path, fetched.link) == (target, links[3])
    for failure, words in zip(fetched.failures, ("gone.*404", "broken.*bytes arrived", "wrong.*sha256"), strict=True):
        assert re.search(words, failure)
    assert files(target) == ["x.pth"]
    assert not server.asked_for("never.example")


def test_without_a_link_that_gives_the_file_all_reasons_are_named(server, target):
    links = ["http://gone.example/x.pth", "http://wrong.example/x.pth"]
    server.serve(links[1], OTHER)
    with pytest.raises(
        transfer.WrongFileError, match=r"gone\.example/x\.pth failed: .*404.*; what http://wrong\.example"
    ):
        transfer.fetch_first(links, target, sha256=DIGEST)
    with pytest.raises(CheckpointError, match="no way") as caught:
        transfer.fetch_first(links[:1], target, failures=["no way"])
    assert "404" in str(caught.value)
    assert files(target) == []


def test_two_downloads_of_one_file_are_one(server, target):
    server.serve(LINK, BODY, pause_s=0.02, block=30_000)
    threads = [threading.Thread(target=transfer.fetch, args=(LINK, target)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1
    assert target.read_bytes() == BODY
    assert files(target) == ["x.pth"]


def test_a_folder_that_cannot_be_written_is_an_error(server, tmp_path):
    server.serve(LINK, BODY)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"download of .* failed: (FileExists|NotADirectory)Error"):
        transfer.fetch(LINK, Path(tmp_path / "file" / "x.pth"))
