"""Many small files at once: fetched side by side, each checked against its hash, what failed told together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pooch
from tqdm import tqdm

from pci_core.data.download import MIRROR, fetch
from pci_core.errors import DownloadError

THREADS = 8
GIVE_UP = 5  # failed downloads after which the others are not tried


def fetch_all(files: Mapping[str, tuple[str, str]], what: str, progress: bool = False, threads: int | None = None) -> dict[str, Path]:
    """Fetch files of one source.

    Parameters
    ----------
    files : mapping of str to (str, str)
        Address and known hash of each file, by a name for messages; see `pci_core.data.download.fetch`.
    what : str
        The source, for messages and the progress bar.
    progress : bool
        Show a progress bar on stderr.
    threads : int
        Connections at once; `THREADS` where not given.

    Returns
    -------
    dict of str to Path
        Local path of each file, by the same names.

    Raises
    ------
    DownloadError
        Some could not be had: how many, which, and why the first. Those that were had are kept for the next attempt.
    StorageError
        The cache cannot be written.
    """
    patient = bool(os.environ.get(MIRROR))  # a mirror answers at once, so that its gaps can all be counted
    failures = 0
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # here already: threads that set and reset it would undo one another
    pool = ThreadPoolExecutor(threads or THREADS)
    try:
        jobs = {pool.submit(fetch, url, known_hash=known): name for name, (url, known) in files.items()}
        for job in tqdm(as_completed(jobs), total=len(jobs), desc=f"{what} download", unit=" files", disable=not progress):
            error = job.exception()
            if error is not None and not isinstance(error, DownloadError):
                raise error  # a full disk, say: no other file will fare better
            failures += error is not None
            if failures >= GIVE_UP and not patient:
                break
    finally:
        pool.shutdown(cancel_futures=True)
        logger.setLevel(level)
    tried = {name: job for job, name in jobs.items() if not job.cancelled()}
    failed = {name: error for name, job in tried.items() if (error := job.exception()) is not None}
    if failed:
        first = next(iter(failed.values()))
        raise DownloadError(
            f"{what}: {len(tried) - len(failed)} of {len(files)} files were had, {len(failed)} failed"
            f"{'' if len(tried) == len(files) else ' and the others were not tried'}: {', '.join(list(failed)[:5])}"
            f"{' …' if len(failed) > 5 else ''}. The first: {first}"
            f"{'' if patient else ' What was downloaded is kept; run the same again.'}"
        ) from first
    return {name: job.result() for name, job in tried.items()}
