"""HDF5 files of others, walked once in a process of its own before they are opened here.

The HDF5 library trusts the numbers in a file: on damaged ones it can loop for ever, or end the whole process, in code that no Python
error reaches. So a process of its own looks at everything first but large arrays, in bounded time. Costs about half a second a file;
files that a run wrote are held against their hash instead.
"""

from __future__ import annotations

import os
import subprocess
import sys

from pci_core.errors import PCIError

SECONDS = 8  # of work; a file of thousands of parts takes a tenth of one
_PATIENCE = 600  # seconds by the clock, where work is not counted or the machine is busy
_MEMORY = 2 << 30  # bytes: a piece of an array may unpack to any size; refused with the file, see `pci_core.unpacking`
_SMALL = 1 << 20  # bytes of an array or attribute that is read in passing

# What raises an error here, of whatever kind, is told in words when the file is read: only hanging and crashing are looked for.
# The limits come after the imports, which alone may take more addresses than that on a machine of many cores.
_WALK = f"""
import contextlib, pathlib, sys
import h5py

told_later = contextlib.suppress(Exception)

def limit(resource, which, most):
    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))

with contextlib.suppress(ImportError, FileNotFoundError):  # not on this system: the patience of the caller is left
    import resource
    limit(resource, resource.RLIMIT_CPU, {SECONDS})
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limit(resource, resource.RLIMIT_AS, pages * resource.getpagesize() + {_MEMORY})

def attributes(found):
    for name in found.attrs:
        with told_later:
            if found.attrs.get_id(name).get_storage_size() <= {_SMALL}:
                found.attrs[name]

def walk(group, seen):
    attributes(group)
    for name in group:
        with told_later:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            found = group[name]
            at = h5py.h5o.get_info(found.id).addr
            if at in seen:
                continue
            seen.add(at)
            if isinstance(found, h5py.Group):
                walk(found, seen)
            elif isinstance(found, h5py.Dataset):
                attributes(found)
                small = max(found.nbytes, found.id.get_storage_size()) <= {_SMALL}
                if not found.external and not found.is_virtual and small:
                    found[()]

with told_later, h5py.File(sys.argv[1], "r") as file:
    walk(file, set())
"""


def check_hdf5(path: str | os.PathLike[str], kind: type[PCIError], remedy: str) -> None:
    """Refuse an HDF5 file on which the library does not come back.

    Parameters
    ----------
    path : path-like
    kind : type of PCIError
        Raised in that case.
    remedy : str
        What to do, one or more sentences.

    Raises
    ------
    PCIError
        Of `kind`: the library does not come back, or the process that looks could not do so. Damage that the library notices is
        not told here but where the file is read.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _WALK, os.fspath(path)], env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=_PATIENCE, check=False,
        )  # fmt: skip
        status, said = done.returncode, done.stderr.strip().splitlines()[-1:]
    except subprocess.TimeoutExpired:
        status, said = -1, []
    if status > 0:  # else the look would be left out in silence
        raise kind(f"{path} was not opened: the process that looks at it first failed ({' '.join(said) or f'status {status}'}).")
    if status < 0:  # ended by a signal: out of time, or a crash
        raise kind(f"{path} is damaged: the HDF5 library comes to no end with it, or crashes. {remedy}")
