"""Threads in which the stock server works, and who waits for them.

Its endpoints block the event loop while they compute. Here each request runs in a thread with an event loop of its
own, so that the server answers while a network runs, and one inference waits for another.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from semi_med.label_app.guard.answers import Refused

T = TypeVar("T")


class Gone(Exception):
    """The client left while it waited; nobody is there to be answered."""


class Lane:
    """So many requests at once, in the order in which they came, and so many that wait.

    Args:
        name: of its threads.
        workers: that run at once.
        waiting: beyond them; one more is told to come again.
    """

    def __init__(self, name: str, *, workers: int, waiting: int) -> None:
        self.workers, self.most_waiting = workers, waiting
        self.running = self.waiting = 0
        self.seconds = 1.0  # that a request takes, a running mean
        self._turn = asyncio.Semaphore(workers)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name)

    async def run(self, work: Callable[[], T], *, gone: Callable[[], Awaitable[None]] | None = None) -> T:
        """Does it in a thread when its turn comes.

        Args:
            work: blocks.
            gone: returns when the client has left, after which waiting is in vain.

        Raises:
            Refused: 503, if too many wait.
            Gone: the client left before its turn came.
        """
        if self._turn.locked() and self.waiting >= self.most_waiting:
            raise self.full()
        self.waiting += 1
        try:
            await self._wait(gone)
        finally:
            self.waiting -= 1
        self.running += 1
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            future = loop.run_in_executor(self._pool, work)
        except RuntimeError:
            self._done(started)
            raise Refused(503, "the server stops", code="BUSY") from None
        future.add_done_callback(lambda _: self._done(started))  # also if nobody waits for it any more
        return await asyncio.shield(future)

    def full(self) -> Refused:
        """The answer to one too many."""
        seconds = math.ceil(self.seconds * (self.waiting + self.running) / self.workers)
        return Refused(
            503,
            f"{self.waiting} requests wait already",
            fix="Try again later.",
            code="BUSY",
            headers=[("retry-after", str(min(max(seconds, 1), 600)))],
        )

    def close(self) -> None:
        """Takes no more; what runs is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self, started: float) -> None:
        self.running -= 1
        self.seconds = 0.7 * self.seconds + 0.3 * (time.monotonic() - started)
        self._turn.release()

    async def _wait(self, gone: Callable[[], Awaitable[None]] | None) -> None:
        if gone is None or not self._turn.locked():
            await self._turn.acquire()
            return
        turn, left = asyncio.ensure_future(self._turn.acquire()), asyncio.ensure_future(gone())
        try:
            await asyncio.wait({turn, left}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if not turn.cancel():  # it came at the last moment
                self._turn.release()
            raise
        finally:
            left.cancel()
        if not turn.done():
            turn.cancel()
            raise Gone
