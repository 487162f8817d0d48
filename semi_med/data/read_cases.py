"""Reading many cases: in threads beside a training, or in processes of their own for a validation."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from semi_med.data.case_files import CaseContent, Look, read_case_files
from semi_med.errors import ResourceError

_AHEAD = 8  # cases for each worker that are handed out before their turn


@dataclass(frozen=True)
class Job:
    """One case to read.

    Attributes:
        images: one file for each channel.
        labels: label files of this image that may be opened.
        values: class indices that labels may hold; None for any.
        channels: of an image in one file.
        look: is shown the arrays and gives something to keep; a function of a module, so that processes can have it.
        check: "full", or "structure" to see only that the files are there.
        flat: what is flat is taken as slices.
    """

    images: tuple[str, ...]
    labels: tuple[str, ...] = ()
    values: tuple[int, ...] | None = None
    channels: int = 1
    look: Look | None = None
    check: str = "full"
    flat: bool = False

    def __call__(self) -> CaseContent:
        """Read the case."""
        return read_case_files(
            self.images,
            self.labels,
            self.values,
            channels=self.channels,
            look=self.look,
            check=self.check,
            flat=self.flat,
        )


def read_cases(
    jobs: Sequence[Job], *, workers: int, processes: bool, progress: Callable[[int, int], None] | None = None
) -> Iterator[CaseContent]:
    """The content of each case, in order.

    Args:
        jobs: the cases.
        workers: how many are read at a time; each holds one case in memory.
        processes: read in processes, which also survives a file that brings the decoder down; else in threads.
        progress: called with (cases done, cases in all) after each.
    """
    found: Iterator[CaseContent]
    if all(job.check == "structure" for job in jobs):  # takes less than handing it to another thread
        found = map(_run, jobs)
    elif processes and len(jobs) > 1:
        found = _in_processes(jobs, workers=max(1, workers))
    else:
        found = _in_pool(ThreadPoolExecutor(max_workers=max(1, workers)), jobs, workers=max(1, workers))
    for number, content in enumerate(found, start=1):
        yield content
        if progress is not None:
            progress(number, len(jobs))


def _run(job: Job) -> CaseContent:
    return job()


def _in_pool(pool: Executor, jobs: Sequence[Job], *, workers: int) -> Iterator[CaseContent]:
    """In order, with no more than a few results waiting, so that memory does not grow with the number of cases."""
    waiting: deque[Future[CaseContent]] = deque()
    rest = iter(jobs)
    try:
        while True:
            while len(waiting) < workers * _AHEAD and (job := next(rest, None)) is not None:
                waiting.append(pool.submit(_run, job))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _new_pool(workers: int) -> ProcessPoolExecutor:
    # "spawn": a forked child would inherit locks held by this process's threads
    return ProcessPoolExecutor(max_workers=workers, mp_context=multiprocessing.get_context("spawn"))


def _in_processes(jobs: Sequence[Job], *, workers: int) -> Iterator[CaseContent]:
    """As `_in_pool`; when a process dies, the cases in hand are read one by one to find the one that killed it."""
    done = 0
    while done < len(jobs):
        try:
            for content in _in_pool(_new_pool(workers), jobs[done:], workers=workers):
                done += 1
                yield content
        except BrokenProcessPool:
            for content in _one_by_one(jobs[done : done + workers * _AHEAD]):
                done += 1
                yield content


def _one_by_one(jobs: Sequence[Job]) -> Iterator[CaseContent]:
    """Each case alone in a process, so that one that dies is known by its case."""
    pool = _new_pool(1)
    try:
        for job in jobs:
            try:
                yield pool.submit(_run, job).result()
            except BrokenProcessPool:
                pool.shutdown()
                pool = _new_pool(1)
                yield _killed(job)
    finally:
        pool.shutdown(cancel_futures=True)


def _killed(job: Job) -> CaseContent:
    error = ResourceError(
        "the process that read this case was killed",
        where=job.images[0],
        fix="Too little memory is the usual cause: read with --workers 1, or crop the scan.",
        code="READER_KILLED",
    )
    return CaseContent(
        image_errors={job.images[0]: [error], **{file: [] for file in job.images[1:]}},
        label_errors={file: [] for file in job.labels},
    )
