"""Reading, computing and writing at the same time."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

ROOM = 2**28  # bytes of results that may wait


def ordered(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    waiting: int,
    size: Callable[[Result], int] = lambda result: 0,
) -> Generator[Result, None, None]:
    """`function` of each item, in the order of the items, computed in threads while the caller does something else.

    At most `waiting` items are under way or have results that are not fetched yet, and none is begun while the bytes of such
    results, by `size`, are more than ROOM. Items are drawn in the caller's thread. An error of the function or of the items is
    raised where its result would come; when the caller stops, what has not begun is dropped.
    """
    under_way: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            under_way.append(pool.submit(function, item))
            while len(under_way) >= waiting or is_busy(under_way, threads) or is_full(under_way, size):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def is_busy(under_way: Iterable[Future[Result]], threads: int) -> bool:
    """Whether each thread has something to do, and one item waits for them."""
    return sum(not future.done() for future in under_way) > threads


def is_full(under_way: Iterable[Future[Result]], size: Callable[[Result], int]) -> bool:
    return sum(size(future.result()) for future in under_way if future.done() and not future.exception()) > ROOM
