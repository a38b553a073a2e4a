"""What can be downloaded: each public source with what it holds, what it costs, whose it is, and how it is fetched."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path, PurePosixPath

from pci_core.data import authors, duloc
from pci_core.data.download import fetch, git_blob_sha1
from pci_core.data.many import fetch_all
from pci_core.errors import DownloadError, unknown_name
from pci_core.storage import as_storage_error, atomic_path, write_text

ATLAS_LICENCE = "CC BY-SA (proteinatlas.org/about/licence)"
ATLAS_CREDIT = "Human Protein Atlas, proteinatlas.org"
CYCLENET = "https://raw.githubusercontent.com/BooneAndrewsLab/CycleNET/856d92b99997f37a770f89326d23f9f86c3c5a9a"
DICTIONARY = "https://raw.githubusercontent.com/protein27/protein/92ef623ecd864098d925a02638c2011462f8363a"
CREDIT_FILE = "CREDIT.txt"

# The folder's files are named <class>-<example>-a.jpg; these are the classes of the atlas' own dictionary of cell structures.
DICTIONARY_CLASSES = (
    "Nucleoplasm", "Nuclear membrane", "Nucleoli", "Nucleoli fibrillar center", "Nuclear speckles", "Nuclear bodies",
    "Endoplasmic reticulum", "Golgi apparatus", "Peroxisomes", "Endosomes", "Lysosomes", "Intermediate filaments", "Actin filaments",
    "Focal adhesion sites", "Microtubules", "Microtubule ends", "Cytokinetic bridge", "Mitotic spindle",
    "Microtubule organizing center", "Centrosome", "Lipid droplets", "Plasma membrane", "Cell junctions", "Mitochondria", "Aggresome",
    "Cytosol", "Cytoplasmic bodies", "Rods & rings",
)  # fmt: skip


@dataclass(frozen=True)
class PublicSource:
    """A public source of images or weights.

    Attributes
    ----------
    title, holds : str
        What it is and how much of it.
    download : str
        What the download costs.
    licence, credit : str
        What may be done with it, and the line that goes with any picture of it.
    address : str
        Where it comes from, with the version.
    fetch : callable
        Given a folder (or None for the cache) and whether to show progress, returns where the files lie.
    copies : bool
        Whether the files are put into a folder of the user's; else they stay in the cache, where recipes look for them.
    """

    title: str
    holds: str
    download: str
    licence: str
    credit: str
    address: str
    fetch: Callable[[Path | None, bool], Path]
    copies: bool = False


@lru_cache(maxsize=1)
def _examples() -> dict[str, dict[str, tuple[str, int]]]:
    """Return path -> (git's SHA-1, bytes) of every example file, by source."""
    text = (resources.files("pci_core") / "data" / "examples_registry.tsv").read_text(encoding="utf-8")
    out: dict[str, dict[str, tuple[str, int]]] = {}
    for row in csv.DictReader(text.splitlines(), delimiter="\t"):
        out.setdefault(row["source"], {})[row["path"]] = (row["git_blob_sha1"], int(row["bytes"]))
    return out


def _fetch_example(name: str, base: str, out: Path | None, progress: bool) -> Path:
    folder = Path(out or name)
    files = fetch_all({path: (f"{base}/{path}", f"gitblob:{sha}") for path, (sha, _) in _examples()[name].items()}, name, progress)
    for path, local in files.items():
        target = folder.joinpath(*PurePosixPath(path).parts[-2:]) if path != "LICENSE" else folder / path
        if target.is_file() and git_blob_sha1(target.read_bytes()) == _examples()[name][path][0]:
            continue
        with as_storage_error(target), atomic_path(target) as temporary:
            shutil.copyfile(local, temporary)
    source = SOURCES[name]
    write_text(folder / CREDIT_FILE, f"{source.title}\n{source.address}\nLicence: {source.licence}\nCredit: {source.credit}\n")
    return folder


def _dictionary(out: Path | None, progress: bool) -> Path:
    folder = _fetch_example("example-human", DICTIONARY, out, progress)
    rows = [(PurePosixPath(p).name, DICTIONARY_CLASSES[int(PurePosixPath(p).name.split("-")[0])]) for p in _examples()["example-human"]]
    write_text(folder / "locations.csv", "\n".join(["file,location", *(f"{a},{b}" for a, b in rows)]) + "\n")
    return folder


def _toy_sets(out: Path | None, progress: bool) -> Path:
    return fetch(authors.ARCHIVE, known_hash=None, progress=progress)  # its files are checked one by one when they are read


def _authors_weights(out: Path | None, progress: bool) -> Path:
    return [authors.pretrained(name, progress) for name in authors.WEIGHTS][0].parent


def _mosaics(out: Path | None, progress: bool) -> Path:
    return next(iter(duloc.fetch_mosaics(progress).values())).parent


SOURCES: dict[str, PublicSource] = {
    "example-yeast": PublicSource(
        "Six fields of budding yeast, example images of CycleNET",
        "6 fields of one well, 1080x1080 px, 16 bits: GFP channel (the strain has no tagged protein), nuclear and cytosolic marker, "
        "and cell labels made by a network",
        "25 files, 56 MB",
        "BSD-3-Clause",
        "Boone and Andrews labs, CycleNET, github.com/BooneAndrewsLab/CycleNET",
        CYCLENET,
        lambda out, progress: _fetch_example("example-yeast", CYCLENET, out, progress),
        copies=True,
    ),
    "example-human": PublicSource(
        "Fields of 28 cell structures, from the atlas' dictionary",
        "82 RGB pictures (red microtubules, green protein, blue nucleus) of 28 locations, of differing magnification, scale bars in "
        "the pictures, some without nucleus or microtubules",
        "82 files, 13 MB",
        ATLAS_LICENCE,
        ATLAS_CREDIT,
        DICTIONARY,
        _dictionary,
        copies=True,
    ),
    "authors-toy": PublicSource(
        "The toy sets of the paper's authors",
        "1,642 yeast cells of 5 proteins and 62 human cells of 3 proteins, cropped",
        "one archive, which also holds their weights",
        "GPL-2.0 for the repository; human images: " + ATLAS_LICENCE,
        "Lu et al. 2019, github.com/alexxijielu/paired_cell_inpainting; human images: " + ATLAS_CREDIT,
        authors.ARCHIVE,
        _toy_sets,
    ),
    "authors-weights": PublicSource(
        "The pretrained networks of the paper's authors",
        "Keras weights: yeast, human, and human trained without proteins that vary between cells",
        "3 files",
        "GPL-2.0 for the repository; no separate terms are given for the weights",
        "Lu et al. 2019, github.com/alexxijielu/paired_cell_inpainting",
        authors.RAW,
        _authors_weights,
    ),
    "duloc": PublicSource(
        "Single human cells with known fractions (recipe hpa-duloc)",
        "1,890 cells as mosaics, 1,332 of them sums of two cells with known weights",
        "632 files, 100 MB",
        "images: " + ATLAS_LICENCE + "; the repository names no licence of its own",
        f"{ATLAS_CREDIT}; DULoc, Xue et al. 2021",
        duloc.RAW,
        _mosaics,
    ),
}


def get(name: str, out: str | os.PathLike[str] | None = None, progress: bool = False) -> Path:
    """Fetch a public source; what is there already and right is not fetched again.

    Parameters
    ----------
    name : str
        A key of `SOURCES`.
    out : path-like, optional
        Folder to put the files into, for sources that are copied; default: a folder of the source's name.
    progress : bool
        Show progress bars on stderr.

    Returns
    -------
    Path
        Where the files lie.

    Raises
    ------
    UnknownNameError
        No such source.
    DownloadError
        A file could not be had or is not what its hash says; or `out` for a source that stays in the cache.
    StorageError
        The folder cannot be written.
    """
    if name not in SOURCES:
        raise unknown_name("public source", name, [*SOURCES, "hpa"])
    if out is not None and not SOURCES[name].copies:
        raise DownloadError(f"{name} stays in the cache, where its recipes look for it; leave the folder out.")
    return SOURCES[name].fetch(Path(out) if out is not None else None, progress)
