"""Runs that are killed, preempted, starved of disk and robbed of a checkpoint end as if nothing had happened."""

import os
import random
import signal

import pytest
from agents import Agent, wait_for
from chaos import Victim, assert_same, free_port, truncate
from tiny_training import make_stripes, slim_recipe

from van.errors import LostProcessError, PreemptedError

EVERYTHING = {
    "trainer.epochs": 4,
    "trainer.batch_size": 2,
    "trainer.keep": "best",
    "trainer.ema_decay": 0.9,
    "trainer.checkpoint_every_steps": 1,
    "optim.clip_norm": 1.0,
    "schedule.warmup_epochs": 1.0,
    "augment.mixup": 0.8,
    "augment.cutmix": 1.0,
    "augment.auto_augment": "rand-m9-mstd0.5-inc1",
    "augment.erasing": 0.5,
    "model.drop_path_rate": 0.2,
}

# Long enough for something to happen meanwhile.
LONG = {"trainer.epochs": 40, "trainer.checkpoint_every_steps": 2}


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    return make_stripes(tmp_path_factory.mktemp("stripes"))


def victims(stripes, folder, *, ranks=1, **options):
    """The same run twice: one to be left alone, one to suffer."""
    recipe = slim_recipe(stripes, folder, **{**EVERYTHING, "trainer.devices": ranks, **options})
    return [Victim(recipe, folder / name, ranks=ranks) for name in ("whole", "cut")]


@pytest.mark.long
def test_a_hard_life_in_one_process(stripes, tmp_path):
    whole, cut = victims(stripes, tmp_path)
    assert whole.live() == [0]
    assert cut.live(("kill", "step", 3)) == [-signal.SIGKILL]
    assert cut.live(("term", "update", 2)) == [PreemptedError.exit_code]
    assert "everything up to step" in cut.said()
    assert cut.live(("full", "step", 3)) == [2]
    assert cut.said().splitlines()[-1].startswith("van: error: cannot write ")
    assert "File too large" in cut.said()
    truncate(cut.folder / "last.ckpt")
    assert cut.live(("kill", "rename", 3)) == [-signal.SIGKILL]
    assert "resuming from previous.ckpt" in cut.said()
    assert cut.live() == [0]
    assert_same(whole.folder, cut.folder)
    assert cut.live() == [0]  # a scheduler that starts a finished run again
    assert "has finished" in cut.said()


@pytest.mark.long
def test_one_of_two_processes_is_lost(stripes, tmp_path):
    """Both have batches, drop paths and BatchNorm statistics of their own, and go on with them."""
    whole, cut = victims(stripes, tmp_path, ranks=2)
    assert whole.live() == [0, 0]
    codes = cut.live(("kill", "step", 4), rank=1)
    assert codes == [LostProcessError.exit_code, -signal.SIGKILL]
    assert "lost contact with another one at step 3" in cut.said()
    assert cut.live(("usr1", "step", 2), rank=1) == [PreemptedError.exit_code] * 2  # both learn of it
    assert cut.live() == [0, 0]
    assert_same(whole.folder, cut.folder)


SLOW = [pytest.param(*case, marks=pytest.mark.slow) for case in ((2, 1, 1), (0, 2, 2), (2, 2, 3))]


@pytest.mark.parametrize(("workers", "ranks", "seed"), [(0, 1, 0), *SLOW])
@pytest.mark.long
def test_ten_random_ends(workers, ranks, seed, stripes, tmp_path):
    """Every process of the run lives until its random end, then the next one takes over; nothing is lost."""
    chance = random.Random(seed)
    options = {"trainer.workers": workers, "trainer.accumulate": chance.choice((1, 2)), "trainer.epochs": 20}
    options["schedule.per"] = chance.choice(("step", "epoch"))
    whole, cut = victims(stripes, tmp_path, ranks=ranks, **options)
    assert whole.live() == [0] * ranks
    story = []
    for _ in range(10):
        workers_too = ("worker",) if workers else ()
        what = chance.choice(("kill", "kill", "term", "usr1", "full", "enospc", "truncate", *workers_too))
        where = {"full": "step", "enospc": "write", "worker": "step"}.get(what) or chance.choice(
            ("step", "update", "validation", "write", "rename")
        )
        if where in ("write", "rename") and what in ("term", "usr1"):
            where = "step"
        rank = 0 if where in ("write", "rename") or what == "full" else chance.randrange(ranks)
        fate = ("kill" if what == "truncate" else what, where, chance.randint(1, 6))
        codes = cut.live(fate, rank=rank)
        story.append((what, *fate[1:], rank, codes))
        assert_known_end(codes[rank], what, cut.said(rank), story)
        if what == "truncate" and all((cut.folder / f"{name}.ckpt").exists() for name in ("last", "previous")):
            truncate(cut.folder / "last.ckpt", chance.uniform(0.01, 0.99))
    assert cut.live() == [0] * ranks, (story, cut.said())
    assert_same(whole.folder, cut.folder)


def assert_known_end(code, what, said, story):
    """Each end has its exit code, and a sentence where the process could still speak."""
    expected = {
        "kill": -signal.SIGKILL, "truncate": -signal.SIGKILL, "term": PreemptedError.exit_code,
        "usr1": PreemptedError.exit_code, "full": 2, "enospc": 2, "worker": LostProcessError.exit_code,
    }[what]  # fmt: skip
    assert code == expected, (story, said)
    if code > 0:
        last = said.splitlines()[-1]
        assert last.startswith("van: error: "), said
        assert {75: "asked to stop", 69: "a process that reads images ended", 2: "cannot write"}[code] in last


@pytest.mark.slow
def test_two_agents_of_which_one_dies_and_comes_back(stripes, tmp_path):
    """torchrun on two machines, both of them this one: an agent and its process are killed, and started again."""
    whole, _ = victims(stripes, tmp_path, ranks=2, **LONG)
    assert whole.live() == [0, 0]
    _, cut = victims(stripes, tmp_path / "agents", ranks=2, **LONG)
    port = free_port()
    agents = [Agent(cut, number, port) for number in range(2)]
    try:
        wait_for(lambda: (cut.folder / "last.ckpt").exists(), "a first checkpoint")
        agents[1].kill()
        wait_for(lambda: "lost contact with another one" in agents[0].said(), "the other's complaint")
        agents[1] = Agent(cut, 1, port)
        assert [agent.wait() for agent in agents] == [0, 0], [agent.said() for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    assert_same(whole.folder, cut.folder)


@pytest.mark.slow
def test_a_lost_process_is_started_again_by_torchrun(stripes, tmp_path):
    whole, _ = victims(stripes, tmp_path, ranks=2, **LONG)
    assert whole.live() == [0, 0]
    _, cut = victims(stripes, tmp_path / "restarts", ranks=2, **LONG)
    agent = Agent(cut, 0, free_port(), nodes=1, processes=2)
    try:
        wait_for(lambda: (cut.folder / "last.ckpt").exists(), "a first checkpoint")
        os.kill(agent.workers()[-1], signal.SIGKILL)
        assert agent.wait() == 0, agent.said()
    finally:
        agent.kill()
    assert_same(whole.folder, cut.folder)
