"""What bounds the service, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError
from ...files import why_no_file

MOST_PIXELS = 178_956_970  # beyond which Pillow refuses an image whatever it is asked
# Bodies in memory at a time, as multiples of the largest allowed.
BODIES = 8
_MOST_TOKEN_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Bounds of the service; what cannot be raises ConfigError.

    max_bytes: of a request's body. max_pixels: of an image, by its header. max_batch: images that run together, and
    images in a request. max_queue: images that are accepted and not done. latency_ms: how long an accepted image may be
    expected to take; where it would be longer, the request is refused. timeout_s: after which a request is given up.
    token: what clients have to show; None: nothing.
    """

    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000
    max_batch: int = 16
    max_queue: int = 256
    latency_ms: float = 1000.0
    timeout_s: float = 30.0
    token: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_batch", "max_queue"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1")
        for name in ("latency_ms", "timeout_s"):
            if not 0 < getattr(self, name) <= 1e7:  # NaN is not
                raise ConfigError(f"{name} is {getattr(self, name)}; expected more than 0, at most 10,000,000")
        if self.max_pixels > MOST_PIXELS:
            raise ConfigError(f"max_pixels is {self.max_pixels}; expected at most {MOST_PIXELS}: Pillow refuses more")

    @property
    def max_images(self) -> int:
        """Images in a request."""
        return min(self.max_batch, self.max_queue)

    @property
    def latency_s(self) -> float:
        """The bound of latency in seconds."""
        return self.latency_ms / 1000


def read_token(path: str | Path) -> str:
    """The token in a file, without the white space around it.

    Raises ConfigError for a file that cannot be read, and for what is no token: nothing, several words, other than
    printable ASCII.
    """
    if reason := why_no_file(path):
        raise ConfigError(f"the token file {str(path)!r} {reason}; give a file that holds a token")
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_TOKEN_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the token file {path} cannot be read: {error.strerror or error}") from error
    token = content.strip().decode("latin-1")
    if not token or len(content) > _MOST_TOKEN_BYTES or not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError(f"the token file {path} holds no token; expected one word of printable ASCII characters")
    return token
