"""The gene sets of the simulated truth: which simulated protein is where, as the embedded GMT files.

``python tools/gene_sets.py`` writes them anew into the package; a test compares them with the simulators.
"""

from __future__ import annotations

from pathlib import Path

from pci_core import recipe as recipes
from pci_core.analysis.gene_sets import FOLDER
from pci_core.data.simulate import human_proteins, yeast_proteins
from pci_core.errors import unknown_name
from pci_core.storage import write_text

ORGANISMS = {"hsapiens": ("simulated-human", "simulated-human-large"), "scerevisiae": ("simulated-yeast", "simulated-yeast-large")}


def simulated_sets(organism: str) -> dict[str, frozenset[str]]:
    """Return where the simulated proteins are: proteins of each location.

    All names of the catalogue and the made-up ones (``SIMH0001``, ``SIMY0001`` …) of the small and the large recipe. A
    protein of two locations is in both sets, one whose cells show one location or the other too. The first
    location of a made-up yeast name is the same in both recipes, its second is not always: the small recipe's is taken.

    Parameters
    ----------
    organism : str
        ``hsapiens`` or ``scerevisiae``.

    Returns
    -------
    dict of str to frozenset of str
        By name of the location.

    Raises
    ------
    UnknownNameError
        No simulator for this organism.
    """
    if organism not in ORGANISMS:
        raise unknown_name("simulated organism", organism, ORGANISMS)
    places = _human() if organism == "hsapiens" else _yeast()
    sets: dict[str, set[str]] = {}
    for protein, locations in places.items():
        for location in locations:
            sets.setdefault(location, set()).add(protein)
    return {location: frozenset(sets[location]) for location in sorted(sets)}


def _human() -> dict[str, tuple[str, ...]]:
    places: dict[str, tuple[str, ...]] = {}
    for key, symbols in human_proteins.MARKERS.items():
        terms = tuple(key.split(":")[0].split(";"))  # behind ':' is a subclass, which is no location
        places |= dict.fromkeys(symbols.split(), terms)
    for recipe in ORGANISMS["hsapiens"]:
        for name, kind in human_proteins.draw_proteins(recipes.load(recipe).source.proteins):
            places.setdefault(name, kind.terms)
    return places


def _yeast() -> dict[str, tuple[str, ...]]:
    places: dict[str, tuple[str, ...]] = {symbol: (location,) for location, symbols in yeast_proteins.MARKERS.items() for symbol in symbols}
    for recipe in ORGANISMS["scerevisiae"]:
        source = recipes.load(recipe).source
        for protein in yeast_proteins.draw_proteins(source.proteins, source.seed):
            places.setdefault(protein.name, tuple(filter(None, (protein.first, protein.second))))
    return places


def gmt_text(organism: str) -> str:
    """Return the text of the embedded GMT file."""
    lines = ["\t".join([name, "simulated location", *sorted(genes)]) for name, genes in simulated_sets(organism).items()]
    return "\n".join(lines) + "\n"


def write_all(folder: Path = FOLDER) -> list[Path]:
    """Write the GMT file of every simulated organism and return the paths."""
    paths = [folder / f"{organism}.gmt" for organism in ORGANISMS]
    for path in paths:
        write_text(path, gmt_text(path.stem))
    return paths


if __name__ == "__main__":
    for written in write_all():
        print(written)
