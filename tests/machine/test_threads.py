import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from segue.machine import threads as pipeline
from segue.machine.threads import ordered


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_results_keep_their_order_and_few_are_made_ahead(threads: int) -> None:
    made: list[int] = []

    def slow_first(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        made.append(number)
        return number * number

    for count, square in enumerate(ordered(slow_first, range(20), threads, 2 * threads)):
        assert square == count * count
        assert len(made) <= count + 2 * threads
    assert sorted(made) == [*range(20)]
    assert [*ordered(slow_first, [], threads, 2 * threads)] == []


def test_what_is_stopped_reads_no_more() -> None:
    made: list[int] = []
    results = ordered(lambda number: (made.append(number), threading.Event().wait(0.01)), range(1000), 2, 4)
    next(results)
    results.close()
    assert len(made) <= 4
    fails = ordered(lambda number: 1 // (number - 3), range(1000), 2, 4)
    with pytest.raises(ZeroDivisionError):
        list(fails)


def test_items_are_worked_on_while_the_caller_does_something_else() -> None:
    begun = threading.Barrier(3, timeout=20)  # two threads and the caller

    def meet(item: int) -> int:
        if item in (1, 2):
            begun.wait()
        return item

    results = ordered(meet, range(5), threads=2, waiting=4)
    assert next(results) == 0
    begun.wait()  # is left only if both are under way now
    assert list(results) == [1, 2, 3, 4]


def test_no_more_is_begun_than_may_wait() -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for item in range(30):
            drawn.append(item)
            yield item

    with closing(ordered(lambda item: item, items(), threads=2, waiting=5)) as results:
        for item in results:
            assert len(drawn) <= item + 5
    assert len(drawn) == 30


def test_large_results_are_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "ROOM", 100)
    done: list[int] = []

    def work(item: int) -> int:
        done.append(item)
        return item

    with closing(ordered(work, range(30), threads=1, waiting=20, size=lambda result: 60)) as results:
        for item in results:
            time.sleep(0.002)
            assert len(done) <= item + 5  # two fill the room; one may be at work, and one be due


def test_an_error_comes_in_its_turn_and_what_was_not_begun_is_dropped() -> None:
    done: list[int] = []

    def work(item: int) -> int:
        if item == 2:
            raise KeyError("two")
        done.append(item)
        return item

    results = ordered(work, range(1000), threads=1, waiting=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError, match="two"):
        next(results)
    assert max(done) < 8
    assert threading.active_count() <= 1 + sum("ThreadPool" not in thread.name for thread in threading.enumerate())
