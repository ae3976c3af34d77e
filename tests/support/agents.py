"""torchrun agents as processes of their own: started, killed with everything below them, waited for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


class Agent:
    """One machine's torchrun over `van train` of a Victim's run; number 0 hosts the meeting point."""

    def __init__(self, victim, number: int, port: int, *, nodes: int = 2, processes: int = 1) -> None:
        self.log = victim.settings / f"agent{number}-{time.monotonic_ns()}.log"
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--max-restarts", "3", "--rdzv-backend", "c10d"),
            *("--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test", "--local-addr", "127.0.0.1"),
            *(
                f"--nnodes={nodes}",
                f"--nproc-per-node={processes}",
                "--rdzv-conf",
                f"join_timeout=60,is_host={int(number == 0)}",
            ),
            *("-m", "van", "train", *victim.arguments),
        ]
        # otherwise a second agent that comes back waits in vain for what the first one told in the first round only
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    def said(self) -> str:
        return self.log.read_text()

    def wait(self, limit_s: float = 120) -> int:
        return self.process.wait(limit_s)

    def workers(self) -> list[int]:
        """Process ids of everything below the agent."""
        found = {self.process.pid}
        for status in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda path: int(path.parent.name)):
            try:
                parent = int(status.read_text().rpartition(")")[2].split()[1])
            except OSError:  # it ended meanwhile
                continue
            if parent in found:
                found.add(int(status.parent.name))
        return sorted(found - {self.process.pid})

    def kill(self) -> None:
        """As when a machine loses its power."""
        for number in [self.process.pid, *self.workers()] if self.process.poll() is None else []:
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


def wait_for(condition, what: str, limit_s: float = 90) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)
