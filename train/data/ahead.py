"""Work done ahead of whoever takes its results, in order, by a few threads. Knows nothing about what the work is."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

_EACH = 2  # results a thread may be ahead


def in_order(tasks: Iterable[Callable[[], Result]], workers: int) -> Generator[Result]:
    """The results of `tasks`, in their order; with no workers each is done when its result is asked for.

    What a task raises is raised in its place. When the iterator is closed or fails, its threads have ended.
    """
    if not workers:
        for task in tasks:
            yield task()
        return
    pool = ThreadPoolExecutor(workers, "ahead")
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > _EACH * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
