"""Trainings in processes of their own that meet an end on purpose, and what is left of them compared."""

import csv
import errno
import hashlib
import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from van.train.folder import write_recipe

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["van.train", "van.train.prepare", "van.cli.train", "timm.data", "torchmetrics", "sklearn"]
)
LIMIT_S = 120


def die_at(fate: tuple[str, str, int]) -> None:
    """Arranges that this process meets `fate`: what happens, at which place of the code, at which visit of it."""
    what, where, visit = fate
    from van.train.module import TrainingModule

    owner, name = {
        "step": (TrainingModule, "training_step"),
        "update": (TrainingModule, "optimizer_step"),
        "validation": (TrainingModule, "validation_step"),
        "write": (os, "fsync"),  # the file is not renamed yet
        "rename": (Path, "replace"),
    }[where]
    original, visits = getattr(owner, name), []

    def fateful(*arguments, **named):
        visits.append(1)
        if len(visits) == visit:
            meet(what)
        return original(*arguments, **named)

    setattr(owner, name, fateful)


def meet(what: str) -> None:
    if what == "full":  # no file may grow beyond this: checkpoints do
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
    elif what == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif what == "worker":  # one that reads images
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        time.sleep(LIMIT_S)  # until torch notices
    elif what == "stop":
        raise ZeroDivisionError
    else:
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "term": signal.SIGTERM, "usr1": signal.SIGUSR1}[what])


def note_images(path: str) -> None:
    """Writes down what this process trains on: (epoch, digest) of every image of every step."""
    from van.train.module import TrainingModule

    step = TrainingModule.training_step

    def noting(self, batch, batch_idx):
        with Path(path).open("a") as file:
            for image in batch[0]:
                file.write(f"{self.current_epoch} {hashlib.md5(image.numpy().tobytes()).hexdigest()}\n")
        return step(self, batch, batch_idx)

    TrainingModule.training_step = noting


def train(
    arguments: list[str], fate: tuple[str, str, int] | None, environment: dict[str, str], log: str, notes: str
) -> None:
    """`van train` in this process; ends it."""
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1), os.dup2(output, 2)
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of data workers, as in a process that nobody forked
    note_images(notes)
    if fate is not None:
        die_at(fate)
    from van.cli import main

    try:
        code = main(["train", *arguments])
    except SystemExit as end:
        code = end.code or 0
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)


class Victim:
    """A run of a recipe that is started, killed and started again with the same command."""

    def __init__(self, recipe, folder: Path, *, ranks: int = 1, launcher: str = "torchrun") -> None:
        self.folder, self.ranks, self.launcher = folder, ranks, launcher
        self.settings = folder.parent / f"{folder.name}-settings"
        self.settings.mkdir(parents=True)
        write_recipe(self.settings, recipe)
        resuming = ["--trainer.out", str(folder), "--trainer.resume", "auto"]
        self.arguments = ["--config", str(self.settings / "recipe.yaml"), *resuming]

    def live(self, fate: tuple[str, str, int] | None = None, *, rank: int = 0) -> list[int]:
        """Exit code of every process (negative: the signal that killed it); `fate` is that of process `rank`."""
        self.start(fate, rank=rank)
        return self.wait()

    def start(self, fate: tuple[str, str, int] | None = None, *, rank: int = 0) -> None:
        environments = launched(self.ranks, self.launcher) if self.ranks > 1 else [{}]
        self.processes = []
        for number, environment in enumerate(environments):
            own = fate if number == rank else None
            log = str(self.settings / f"{number}.log")
            notes = str(self.settings / f"{number}.notes")
            process = FORKS.Process(target=train, args=(self.arguments, own, environment, log, notes))
            process.start()
            self.processes.append(process)

    def wait(self) -> list[int]:
        end = time.monotonic() + LIMIT_S
        for process in self.processes:
            process.join(max(0.1, end - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
        return [process.exitcode for process in self.processes]

    def said(self, rank: int = 0) -> str:
        return (self.settings / f"{rank}.log").read_text()

    def saw(self, epoch: int) -> list[list[str]]:
        """Digests of the images that each process trained on in an epoch."""
        notes = [(self.settings / f"{rank}.notes").read_text().splitlines() for rank in range(self.ranks)]
        return [[line.split()[1] for line in lines if int(line.split()[0]) == epoch] for lines in notes]


def launched(ranks: int, launcher: str) -> list[dict[str, str]]:
    """What torchrun or Slurm's srun puts into the environment of each process."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    if launcher == "slurm":
        common |= {"SLURM_NTASKS": str(ranks), "SLURM_NTASKS_PER_NODE": str(ranks), "SLURM_NNODES": "1"}
        common |= {"SLURM_JOB_ID": "1234", "SLURM_JOB_NAME": "train", "SLURM_NODEID": "0"}
        return [{**common, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(ranks)]
    common |= {"TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0"}
    common |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def truncate(path: Path, share: float = 0.7) -> None:
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * share))


def numbers(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without times."""
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_s")} for row in csv.DictReader(file)]


def assert_same(one: Path, two: Path) -> None:
    """Two runs ended in the same state, bit for bit: figures, exported weights, and everything a run resumes from."""
    assert numbers(one) == numbers(two)
    for name in sorted(path.name for path in one.glob("*.safetensors")):
        ours, theirs = load_file(one / name), load_file(two / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    ours, theirs = (torch.load(folder / "last.ckpt", weights_only=True) for folder in (one, two))
    for part in ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers"):
        compare(ours[part], theirs[part], part)
    compare(ours["callbacks"]["ProcessState"], theirs["callbacks"]["ProcessState"], "processes")


def compare(one, two, where: str) -> None:
    assert type(one) is type(two), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two), where
    elif isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            compare(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), where
        for place, (a, b) in enumerate(zip(one, two, strict=True)):
            compare(a, b, f"{where}.{place}")
    else:
        assert one == two, where
