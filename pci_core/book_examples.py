"""Contact sheets for the chapter on one's own images, made when the book is built: no picture of someone else is committed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from pci_core.data import catalog
from pci_core.data.simulate import simulate
from pci_core.errors import DownloadError
from pci_core.init import init_folder
from pci_core.recipe import load

PAGE = "own_images.md"
_MARKER = re.compile(r"^<!-- example: ([\w-]+) -->$", re.MULTILINE)
_SIMULATED = "simulated"
_PROTEINS = 6  # enough for a contact sheet


def fill(text: str, folder: Path, work: Path) -> str:
    """Put a contact sheet in place of each marker.

    Parameters
    ----------
    text : str
        The page with lines ``<!-- example: example-yeast -->``.
    folder : Path
        Folder of the page; the pictures are put beside it.
    work : Path
        Where images and recipes are kept between builds.

    Returns
    -------
    str
        A set that could not be fetched becomes a sentence that says why.
    """
    return _MARKER.sub(lambda match: _section(match[1], folder, work), text)


def _section(name: str, folder: Path, work: Path) -> str:
    get: Callable[[Path], object] = _draw if name == _SIMULATED else lambda out: catalog.get(name, out)
    images, out = work / name, work / f"{name}-pci"
    try:
        if name != _SIMULATED or not (images / "fields.csv").exists():
            get(images)
    except DownloadError as error:
        why = re.sub(r"\s+", " ", str(error)).split(". ")[0]
        return f"*The contact sheet of `{name}` is not shown: this build could not fetch its images ({_plain(why)}).*"
    shutil.rmtree(out, ignore_errors=True)  # what an earlier build made; a user's own files are elsewhere
    made = init_folder(images, out, name, progress=False)
    sheet = f"contact_sheet_{name}.png"
    shutil.copyfile(next(f for f in made.files if f.suffix == ".png"), folder / sheet)
    whose = "SIMULATED cells." if name == _SIMULATED else f"{catalog.SOURCES[name].title}. {_credit(name)}"
    return (
        f"```{{figure}} {sheet}\n:alt: Contact sheet of {name}: fields of view, found cells outlined, proposed crops\n\n"
        f"{whose} Made by `pci init` while this book was built, after a look at a sample of the fields.\n```"
    )


def _credit(name: str) -> str:
    source = catalog.SOURCES[name]
    return f"Credit: {source.credit}; {source.licence}."


def _draw(out: Path) -> None:
    source = load("simulated-human").replace(source={"proteins": _PROTEINS}).source
    out.mkdir(parents=True, exist_ok=True)
    simulate(source, out, jobs=1, progress=False)


def _plain(text: str) -> str:
    """Take out what would be read as markup, and folders of the machine that the book was built on."""
    return re.sub(r"(?:/[\w.+-]+){2,}", "…", text).replace("`", "'").replace("<", "").replace("*", "")
