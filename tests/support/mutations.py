"""Seeded damage for files, of bytes and of JSON values, and what may come of reading them: a value or a VanError."""

import contextlib
import copy
import json
import random
import resource
import signal
import warnings

from van.errors import VanError

HOSTILE = (
    None, True, "", "x", "\0", "a\x1b[2Jb", "\ud800", "../../etc/passwd", -1, 0, 1.5, 10**9, -(10**9), 10**30, 10**400,
    1e308, -1e308, 1e-308, float("nan"), float("inf"), float("-inf"), [], {}, [None], {"a": 1}, ["x", 1, None],
    "9" * 300,
)  # fmt: skip
LIMIT_S, LIMIT_BYTES = 60, 6 * 2**30


def damaged(data: bytes, draw: random.Random) -> bytes:
    """The bytes with one kind of damage; the first and last kilobytes, where headers are, are hit most."""
    out = bytearray(data)
    kind = draw.choice(("flip", "flip", "flip", "truncate", "insert", "delete", "splice", "fill", "number"))
    place = _place(len(out), draw)
    length = min(1 << draw.randrange(12), max(1, len(out) // 2))
    if kind == "flip":
        for _ in range(draw.choice((1, 1, 2, 8))):
            spot = _place(len(out), draw)
            out[spot] ^= 1 << draw.randrange(8)
    elif kind == "truncate":
        del out[place:]
    elif kind == "insert":
        out[place:place] = draw.randbytes(length)
    elif kind == "delete":
        del out[place : place + length]
    elif kind == "splice":
        source = _place(len(out), draw)
        out[place : place + length] = out[source : source + length]
    elif kind == "fill":
        out[place : place + length] = bytes((draw.choice((0, 255, 128)),)) * length
    else:
        size = draw.choice((2, 4, 8))
        number = draw.choice((0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 2 ** (8 * size - 2), 10**4))
        out[place : place + size] = number.to_bytes(size, "little")
    return bytes(out)


def _place(size: int, draw: random.Random) -> int:
    edge = min(2048, size)
    return draw.choice((draw.randrange(edge), size - 1 - draw.randrange(edge), draw.randrange(size)))


def swapped(value, draw: random.Random):
    """A copy of a JSON value in which one or two places hold something else, are missing, or are nested deeply."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 2))):
        places = list(_places(value))
        if not places:
            return draw.choice(HOSTILE)
        owner, key = draw.choice(places)
        how = draw.randrange(12)
        if how == 0:
            del owner[key]
        elif how == 1:
            deep = []
            for _ in range(draw.choice((50, 200))):
                deep = [deep]
            owner[key] = deep
        elif how == 2 and isinstance(owner[key], list):
            owner[key] = owner[key] * draw.choice((2, 1000))
        elif how == 3 and isinstance(owner[key], int | float):
            owner[key] = owner[key] * draw.choice((-1, 10**9, 1e300))
        else:
            owner[key] = draw.choice(HOSTILE)
    return value


def _places(value):
    """(container, key) of everything inside."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        yield value, key
        yield from _places(inner)


def text_of(value, draw: random.Random) -> bytes:
    """JSON of a value, now and then with damage that no value has."""
    text = json.dumps(value)
    how = draw.randrange(8)
    if how == 0:
        text = text.replace(":", ": " + "[" * draw.choice((10, 100_000)), 1)
    elif how == 1:
        text = text.replace("{", '{"config": 1, "config": 2, ', 1)
    elif how == 2:
        text = text.replace(": 1", ": 1" + "0" * 5000, 1)
    elif how == 3:
        return damaged(text.encode(), draw)
    return text.encode()


def check(call, what: str) -> str:
    """ "" when the call succeeds, else the VanError's text; anything else fails, and so do hours and gigabytes."""
    with bounded(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except VanError as error:
            text = str(error)
            assert "\n" not in text, f"{what}: {text!r}"
            assert len(text) < 5000, f"{what}: {text[:300]!r}"
            assert "more memory than there is" not in text, f"{what}: {text}"
            return text
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {str(error)[:300]}") from error
    return ""


@contextlib.contextmanager
def bounded():
    """No more than LIMIT_S seconds and LIMIT_BYTES of further memory."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:  # noqa: PTH123
        used = int(file.read().split()[0]) * resource.getpagesize()

    def stop(*_):
        raise AssertionError("it does not end")

    handler = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT_BYTES, before[1]))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)
