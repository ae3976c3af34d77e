"""Whether the machine is about to be taken away: SIGTERM and SIGUSR1 ask a run to stop."""

from __future__ import annotations

import signal
import threading
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preemption:
    """Whether SIGTERM or SIGUSR1 has asked this process to stop, from before the data is looked at until the end.

    Data workers take the handlers over, and so live on when a scheduler signals every process of a job.
    """

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Preemption:
        self.before = {number: signal.getsignal(number) for number in SIGNALS} if _in_main_thread() else {}
        self.listen()
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def listen(self) -> None:
        """Take the signals (again), which only the main thread can."""
        for number in self.before:
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
