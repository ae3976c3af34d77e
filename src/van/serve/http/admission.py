"""Who gets in: images are accepted while they can be expected to be done within the bound of latency."""

from __future__ import annotations

from .problems import Problem

_WEIGHT = 0.2  # of a new measurement in the moving averages


class Average:
    """A moving average of seconds per image."""

    def __init__(self) -> None:
        self.value = 0.0
        self._measured = False

    def update(self, value: float) -> None:
        """Take in a measurement; the first is the average."""
        self.value = value if not self._measured else (1 - _WEIGHT) * self.value + _WEIGHT * value
        self._measured = True


class Places:
    """The images that are accepted and not done, of all models together; at most `most`."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0


class Admission:
    """The images of one model that are accepted and not done, and how long the next would take.

    run, prepare: measured seconds per image, of the network and of decoding; readers: threads that decode.
    latency_s: how long an accepted image may be expected to take. places: shared with the other models.
    Used in the event loop only.
    """

    def __init__(self, places: Places, *, latency_s: float, readers: int) -> None:
        self._places, self._latency_s, self._readers = places, latency_s, readers
        self.run, self.prepare = Average(), Average()
        self.pending = 0  # accepted, not done
        self.unprepared = 0  # of those, not decoded yet

    def expected_s(self, images: int) -> float:
        """Seconds until so many further images would be done."""
        running = (self.pending + images) * self.run.value
        preparing = (self.unprepared + images) * self.prepare.value / self._readers
        return max(running, preparing) + self.prepare.value

    def check(self, images: int) -> None:
        """Raises Problem where so many further images cannot be accepted now."""
        if self._places.taken + images > self._places.most:
            raise overloaded(f"all {self._places.most} places for images are taken", self.retry_after_s)
        if self.pending and (expected := self.expected_s(images)) > self._latency_s:
            waits = f"an image would take {expected:.2f} s, more than the {self._latency_s:g} s that are allowed"
            raise overloaded(waits, self.retry_after_s)

    def enter(self, images: int) -> None:
        """Accept so many images; raises Problem where that cannot be now."""
        self.check(images)
        self._places.taken += images
        self.pending += images
        self.unprepared += images

    def prepared(self) -> None:
        """An image is decoded, or will never be."""
        self.unprepared -= 1

    def leave(self) -> None:
        """An image is done, one way or another."""
        self._places.taken -= 1
        self.pending -= 1

    @property
    def retry_after_s(self) -> float:
        """When the images of now can be expected to be done."""
        return self.expected_s(0)


def overloaded(why: str, retry_after_s: float) -> Problem:
    """The 503 for a request that there is no room for."""
    return Problem(503, "overloaded", f"{why}; try again after the time in Retry-After", retry_after_s=retry_after_s)
