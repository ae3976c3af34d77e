"""Dynamic batches: what waits runs together, and what breaks one item leaves the others their results."""

import asyncio
import threading

import pytest

from van.serve.http.dynamic_batches import DynamicBatches, Item


class Runner:
    """Records what runs together; waits before its first batch until it is let go."""

    def __init__(self):
        self.batches, self.go = [], threading.Event()

    def __call__(self, key, works):
        self.batches.append(list(works))
        assert self.go.wait(10)
        return [ValueError(work) if work == "bad" else f"{key}:{work}" for work in works]


def results(works, *, max_batch=4, drop=(), coming=lambda: 0, linger_s=0.0, runner=None):
    """What items (key, work) get, put while a first one runs, and the batches they ran in."""
    runner = runner or Runner()

    async def run():
        batches = DynamicBatches(
            runner, max_batch=max_batch, linger_s=linger_s, coming=coming, observe=lambda *_: None, name="test"
        )
        loop = asyncio.get_running_loop()
        first = Item("first", 0, loop.create_future())
        batches.put(first)
        while not runner.batches:
            await asyncio.sleep(0.001)
        items = [Item(key, work, loop.create_future()) for key, work in works]
        for item in items:
            batches.put(item)
        for number in drop:
            batches.drop(items[number])
        runner.go.set()
        await asyncio.to_thread(batches.close)
        kept = [item.future for number, item in enumerate(items) if number not in drop]
        return await asyncio.gather(*kept, return_exceptions=True)

    return asyncio.run(run()), runner.batches[1:]


def test_what_waits_runs_together_up_to_the_limit():
    found, batches = results([("a", n) for n in range(6)])
    assert batches == [[0, 1, 2, 3], [4, 5]]
    assert found == [f"a:{n}" for n in range(6)]


def test_only_items_of_a_key_run_together_and_the_first_comes_first():
    found, batches = results([("a", 1), ("b", 2), ("a", 3), ("b", 4)])
    assert batches == [[1, 3], [2, 4]]
    assert found == ["a:1", "b:2", "a:3", "b:4"]


def test_the_exception_of_one_item_is_its_own():
    good, bad, last = results([("a", 1), ("a", "bad"), ("a", 3)])[0]
    assert (good, last) == ("a:1", "a:3")
    assert isinstance(bad, ValueError)


def test_what_is_dropped_does_not_run():
    found, batches = results([("a", 1), ("a", 2)], drop=[0])
    assert (found, batches) == (["a:2"], [[2]])


def test_a_runner_that_fails_as_a_whole_fails_the_batch_and_the_thread_goes_on():
    class Failing(Runner):
        def __call__(self, key, works):
            super().__call__(key, works)
            if key == "a":
                raise RuntimeError("broken")
            return works

    (first, second), _ = results([("a", 1), ("b", 2)], runner=Failing())
    assert isinstance(first, RuntimeError)
    assert second == 2


@pytest.mark.parametrize(("coming", "batches"), [(0, [[1], [2]]), (1, [[1, 2]])])
def test_an_incomplete_batch_waits_only_for_what_is_coming(coming, batches):
    runner = Runner()
    runner.go.set()
    collected = threading.Event()

    async def run():
        def arriving():
            collected.set()
            return coming

        waiting = DynamicBatches(
            runner, max_batch=2, linger_s=20, coming=arriving, observe=lambda *_: None, name="test"
        )
        loop = asyncio.get_running_loop()
        one, two = (Item("a", n, loop.create_future()) for n in (1, 2))
        waiting.put(one)
        await asyncio.to_thread(collected.wait)
        if not coming:
            await one.future
        waiting.put(two)
        await asyncio.gather(one.future, two.future)
        await asyncio.to_thread(waiting.close)

    asyncio.run(run())
    assert runner.batches == batches
