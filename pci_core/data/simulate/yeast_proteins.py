"""Which simulated yeast proteins there are: their classes, names, and how each differs from its class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pci_core.data.simulate.frame import field_seed

# The 17 classes of the labelled single-cell benchmark, each with textbook markers. The names are real, the
# images are not: a marker name says where the simulated protein is, nothing about the real one's images.
MARKERS: dict[str, tuple[str, ...]] = {
    "cytoplasm": ("PGK1", "TDH3", "FBA1", "ENO2", "ADH1", "PDC1", "CDC19", "PFK1"),
    "nuclei": ("HTB2", "HTA2", "RPO21", "SPT16", "RPB2", "POB3", "TAF4", "SWI3"),
    "mitochondria": ("ATP1", "CIT1", "COX4", "TOM70", "HSP60", "POR1", "SDH1", "TIM44"),
    "ER": ("SEC61", "KAR2", "SEC63", "WBP1", "OST1", "PDI1", "HMG1", "SBH1"),
    "cytoplasm and nucleus": ("BMH1", "SSA1", "GSP1", "BMH2", "SSA2", "SOD1", "TRX2", "CPR1"),
    "cell periphery": ("PMA1", "PIL1", "SUR7", "LSP1", "FKS1", "MRH1", "TPO1", "HXT2"),
    "vacuolar membrane": ("VPH1", "ZRC1", "YCF1", "VAC8", "VTC4", "ZRT3", "PHO8", "VPH2"),
    "nucleolus": ("NOP1", "NSR1", "NOP56", "NOP58", "RPA190", "GAR1", "NOP2", "UTP9"),
    "Golgi": ("ANP1", "MNN9", "SEC7", "SED5", "VRG4", "GOS1", "CHS5", "COG1"),
    "bud neck": ("CDC10", "CDC11", "CDC3", "CDC12", "SHS1", "BNI4", "MYO1", "HSL1"),
    "nuclear periphery": ("NUP84", "NUP133", "NIC96", "NUP188", "NSP1", "POM152", "NUP192", "NUP60"),
    "vacuole": ("PRC1", "PEP4", "PRB1", "CPS1", "APE3", "ATH1"),
    "actin": ("ABP1", "SAC6", "CAP2", "ARC40", "SLA1", "AIP1", "CRN1", "COF1"),
    "spindle": ("TUB1", "SPC42", "SPC110", "SPC97", "STU2", "TUB4", "SPC98", "NUF2"),
    "endosome": ("SNF7", "PEP12", "VPS4", "VPS27", "SNX4", "VPS24", "HSE1", "VPS5"),
    "peroxisome": ("PEX11", "PEX3", "PEX14", "POT1", "ANT1", "FOX2", "PXA1", "PEX13"),
    "bud tip": ("SPA2", "EXO70", "SEC3", "BEM1", "SEC6", "PEA2", "BUD6", "KEL1"),
}
CLASSES = tuple(MARKERS)

# Where a protein of two locations also is, or where the cells of the second phenotype have it.
PARTNERS: dict[str, tuple[str, ...]] = {
    "cytoplasm": ("mitochondria", "peroxisome", "nuclei"),
    "nuclei": ("nucleolus", "cytoplasm"),
    "mitochondria": ("cytoplasm", "ER"),
    "ER": ("cell periphery", "nuclear periphery"),
    "cytoplasm and nucleus": ("cell periphery", "bud neck"),
    "cell periphery": ("ER", "endosome"),
    "vacuolar membrane": ("endosome", "vacuole"),
    "nucleolus": ("nuclei", "cytoplasm"),
    "Golgi": ("endosome", "cytoplasm"),
    "bud neck": ("cell periphery", "cytoplasm"),
    "nuclear periphery": ("ER", "nuclei"),
    "vacuole": ("vacuolar membrane", "cell periphery"),
    "actin": ("cytoplasm", "bud neck"),
    "spindle": ("nuclei", "cytoplasm"),
    "endosome": ("vacuolar membrane", "Golgi"),
    "peroxisome": ("cytoplasm", "mitochondria"),
    "bud tip": ("bud neck", "cell periphery"),
}

TWO_LOCATIONS, VARYING = 0.15, 0.10  # shares of the proteins
ONE, TWO, PHENOTYPES, LEVELS = "one location", "two locations", "two phenotypes", "two levels"


@dataclass(frozen=True)
class Protein:
    """A simulated protein.

    Attributes
    ----------
    name : str
        A marker of its class, or ``SIMY0001`` and so on: proteins of two locations and those that vary
        between cells never carry a real name.
    kind : str
        ``one location``, ``two locations``, ``two phenotypes`` or ``two levels``.
    first, second : str
        Class, and partner class or an empty text.
    mean : float
        ``two locations``: mean share in the second; ``two phenotypes`` and ``two levels``: share of the
        cells with the second phenotype or the low level; else 0.
    brightness : float
        Signal where it is brightest, in units of the exposure; over an order of magnitude.
    style : dict
        How its pattern differs from others of the class: numbers, sizes, patchiness, free pool.
    """

    name: str
    kind: str
    first: str
    second: str
    mean: float
    brightness: float
    style: dict[str, float]

    def columns(self) -> dict[str, Any]:
        """Columns of the field table."""
        return {"sim_kind": self.kind, "sim_mean": round(self.mean, 4), "sim_brightness": round(self.brightness, 4)}


def draw_proteins(number: int, seed: int) -> list[Protein]:
    """Draw the proteins of a recipe, classes in turn.

    Parameters
    ----------
    number : int
        At least 17 for all classes.
    seed : int
        Of the recipe. A larger `number` does not keep the earlier proteins, since the shares of the kinds are exact.

    Returns
    -------
    list of Protein
        Names are unique.
    """
    rng = np.random.default_rng(field_seed(seed, "yeast proteins"))
    kinds = np.full(number, ONE, dtype=object)
    order = rng.permutation(number)
    n_two, n_vary = round(TWO_LOCATIONS * number), round(VARYING * number)
    kinds[order[:n_two]] = TWO
    kinds[order[n_two : n_two + n_vary : 2]] = PHENOTYPES
    kinds[order[n_two + 1 : n_two + n_vary : 2]] = LEVELS
    used = dict.fromkeys(CLASSES, 0)
    out = []
    for i, kind in enumerate(kinds):
        first = CLASSES[i % len(CLASSES)]
        name = f"SIMY{i + 1:04d}"
        if kind == ONE and used[first] < len(MARKERS[first]):
            name = MARKERS[first][used[first]]
            used[first] += 1
        # the style hangs on the name, so that it stays when proteins are added
        out.append(_protein(name, str(kind), first, np.random.default_rng(field_seed(seed, f"yeast protein {name}"))))
    return out


def _protein(name: str, kind: str, first: str, rng: np.random.Generator) -> Protein:
    second, mean = "", 0.0
    if kind in (TWO, PHENOTYPES):
        second = str(rng.choice(PARTNERS[first]))
    if kind == TWO:
        mean = float(rng.choice([0.25, 0.5, 0.75]))
    elif kind != ONE:
        mean = float(rng.uniform(0.3, 0.6))
    style = {
        "number": float(np.exp(rng.normal(0, 0.3))),
        "size": float(np.exp(rng.normal(0, 0.12))),
        "patchy": float(rng.uniform(0.1, 0.5)),
        "exclude": float(rng.uniform(0.55, 0.9)),
        "pool": float(0.05 + 0.75 * rng.beta(1.2, 2.4)),
        "spread": float(rng.uniform(0.2, 0.5)),
        "lines": float(rng.uniform(0.0, 1.0)),
    }
    return Protein(name, kind, first, second, mean, float(np.exp(rng.uniform(np.log(0.08), 0))), style)
