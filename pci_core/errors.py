"""Every error that pci_core raises on purpose, and the helper that names near misses.

Each message says what was wrong, what was found and what to do. The command line prints the message
of a `PCIError` and exits with 1; anything else is a bug and shows its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PCIError(Exception):
    """Base of all errors of this package."""


class RecipeError(PCIError):
    """A recipe that is not there, cannot be parsed, or asks for something impossible."""


class ImageError(PCIError):
    """An image file that cannot be read, or whose channels or pixels are unusable."""


class CellTableError(PCIError):
    """A cell table or field table without a needed column, or with doubled or missing values."""


class DatasetError(PCIError):
    """A CellDataset folder that is incomplete, damaged, or does not fit what was asked of it."""


class SamplingError(PCIError):
    """No valid source-target pair can be drawn."""


class TrainingError(PCIError):
    """A training gives nothing of use: its features collapsed or diverged."""


class CheckpointError(PCIError):
    """Weights or a checkpoint that are damaged or belong to another architecture or channel set."""


class UnknownNameError(PCIError):
    """A recipe, layer, model or feature set of a name that nobody knows."""


class StaleError(PCIError):
    """A result whose inputs changed after it was made."""


class ProvenanceError(PCIError):
    """A file that does not say where it comes from, or says it in a form that cannot be read."""


class AnalysisNeedsError(PCIError):
    """An analysis that these cells do not allow: a column, two locations or enough members of a class are missing."""


class ParameterError(PCIError):
    """A parameter of a notebook whose name or value is wrong."""


class EnrichmentError(PCIError):
    """Gene sets that cannot be read or share no names with the genes, or g:Profiler without a usable answer."""


class BookError(PCIError):
    """A notebook, page or setting of the book that is missing, fails or gives a warning."""


class DownloadError(PCIError):
    """A download that failed, or whose content is not what its hash says."""


class WeightsUnavailableError(PCIError):
    """Public weights that a feature set needs could be neither downloaded nor found; nothing is put in their place."""


class StorageError(PCIError):
    """A full disk, or a folder that cannot be read or written."""


class ClusterError(PCIError):
    """A Dask cluster that cannot be reached, or whose workers cannot do the work."""


class DeviceError(PCIError):
    """A device or precision that this machine does not have."""


class DistributedError(PCIError):
    """Processes that work together: one is gone or stopped, they cannot meet, or differ in code or data.

    Attributes
    ----------
    told : bool
        The process where it began tells of it; the others need not repeat it.
    """

    told = False


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Build the error for a `name` that is not among the `known` ones, with the nearest first.

    Parameters
    ----------
    kind : str
        What the name was taken for, e.g. ``"recipe"``.
    name : str
        What the user wrote.
    known : iterable of str
        All names that would have worked.

    Returns
    -------
    UnknownNameError
    """
    known = list(map(str, known))
    name = " ".join(str(name).split())
    name = name if len(name) <= 80 else name[:80] + "…"  # what was pasted by mistake, or a damaged file's
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    listed = ", ".join(known[:40]) + (" …" if len(known) > 40 else "")
    return UnknownNameError(f"unknown {kind} '{name}'.{hint} Known: {listed}.")
