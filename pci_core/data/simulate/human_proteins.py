"""Which proteins a simulated human screen holds: textbook markers by location, and how many of each kind.

The symbols are real genes with a well-known place in the cell, written from common knowledge so that
gene-set analysis has something to find; the images are drawn. Proteins beyond the catalogue are called
``SIMH0001`` and so on.
"""

from __future__ import annotations

from dataclasses import dataclass

MARKERS: dict[str, str] = {
    "Nucleoplasm": "HDAC1 HDAC2 CREB1 SMARCA4 SMARCB1 PARP1 XRCC5 XRCC6 RCC1 TBP MED1 CTCF KDM1A POLR2A EP300 BRD4 RBBP4 HMGA1",
    "Nuclear membrane": "LMNB1 LMNA LMNB2 EMD LBR TMPO SUN1 SUN2 LEMD3 NUP98 NUP153 NUP62 TPR NUP107",
    "Nucleoli": "NOP56 NOP58 DKC1 FBL NOP2 NOP14 NOP10 GNL3 RRP9 WDR43 UTP4 BOP1 WDR12 NOL6 NAT10",
    "Nucleoli rim": "MKI67 NCL EN1 ETV4 PES1 DDX18 UTP18 NIFK",
    "Nucleoli fibrillar center": "UBTF POLR1A POLR1B POLR1C TCOF1 RRN3 TAF1A TAF1B TAF1C NOLC1 POLR1E",
    "Nuclear speckles": "SRSF1 SRSF2 SRSF3 SRRM1 SRRM2 SON SF3A1 SF3B1 U2AF1 U2AF2 RBM25 PRPF8 CWC22 THOC1",
    "Nuclear bodies": "COIL SMN1 PML SP100 DAXX GEMIN2 GEMIN4 NOLA2 SP110 NPAT ZNF451 SUMO1",
    "Cytosol": "GAPDH PGK1 LDHA ENO1 PKM ALDOA TPI1 EEF2 EIF4E RPS6KB1 MAP2K1 GSTP1 AKR1B1 RPL4 EIF3B HSP90AB1",
    "Endoplasmic reticulum": "CALR CANX HSPA5 PDIA3 P4HB SEC61A1 SEC61B HSP90B1 SSR1 CKAP4 RRBP1 RPN1 KDELR2 DNAJB11",
    "Golgi apparatus": "GOLGA2 GOLGB1 GORASP1 GORASP2 GOLGA1 GOLGA5 GOLIM4 GOLPH3 MAN2A1 B4GALT1 GALNT2 TMEM165 GCC2",
    "Mitochondria": "TOMM20 COX4I1 ATP5F1A ATP5F1B HSPD1 HSPA9 VDAC1 TIMM23 SDHA SDHB UQCRC1 CS MRPL12 NDUFS1 PHB1 ACO2",
    "Vesicles:even": "PEX14 CAT ABCD3 PEX5 PEX3 ACOX1 HSD17B4 SCP2 PEX19 CLTC CLTA",
    "Vesicles:perinuclear": "LAMP1 LAMP2 CTSD CTSB CD63 GBA1 NPC1 SCARB2 TFRC RAB11A VPS35",
    "Vesicles:large": "EEA1 RAB5A RAB7A RAB5C HGS VPS4A WDFY1 SNX1 SNX3 PIKFYVE VPS26A",
    "Plasma membrane": "ATP1A1 EGFR ERBB2 CD44 BSG SLC2A1 ITGB1 EZR CDH2 ATP2B1 SLC3A2 TFPI CD9 CD151",
    "Cell Junctions": "CDH1 TJP1 OCLN CLDN1 CLDN4 DSP DSG2 JUP GJA1 CTNND1 PKP2 CGN F11R",
    "Microtubules": "TUBA1A TUBB TUBB4B MAP4 MAP1B TUBA1B TUBB2A MAP7 CKAP5 EML4 MAPRE1 TTLL5",
    "Actin filaments": "ACTB ACTG1 ACTN1 ACTN4 MYH9 TPM1 TPM4 FLNA LIMA1 CNN2 CALD1 MYL9 PALLD",
    "Intermediate filaments": "VIM KRT8 KRT18 KRT5 KRT14 KRT17 KRT19 DES NES GFAP PLEC KRT7 SYNM",
    "Centrosome": "PCNT CEP135 CEP152 CDK5RAP2 TUBG1 NEDD1 CEP192 SAS6 CEP63 CNTROB CEP97 PCM1",
    "Focal adhesion sites": "PXN VCL TLN1 ZYX PTK2 ILK PARVA TNS1 FERMT2 LPP ITGA5",
    "Cytoplasmic bodies": "DCP1A DCP2 EDC4 EDC3 XRN1 DDX6 LSM1 LSM4 AGO2 TNRC6A PATL1",
    "Lipid droplets": "PLIN2 PLIN3 PLIN1 LDAH HSD17B13 CIDEB AUP1 PNPLA2 FAF2 METTL7B",
    "Cytosol;Nucleoplasm": "MAPK1 MAPK3 CDK2 PPP1CA PARK7 TXN PEBP1 UBE2I LYPD5 STAT3 GSK3B CSNK2A1 PSMA1 PSMC5 CTNNBL1 SMAD3",
    "Nucleoli;Nucleoplasm": "NPM1 DDX21 NOP53 MYL5 DDX47 RBM28 GTPBP4 TOP1 DHX9 SIRT7 RBM34 NOC2L EXOSC10",
    "Golgi apparatus;Vesicles": "M6PR FURIN TGOLN2 SORT1 RAB6A AP1G1 GGA1 ARF1",
    "Cytosol;Plasma membrane": "ANXA2 RAC1 SRC HRAS EPB41L2 CDC42 ANXA1 MSN",
    "Cytosol;Mitochondria": "HK1 HK2 ALDH2 FH BAX SOD1 OPA3 MAVS",
    "Actin filaments;Focal adhesion sites": "PDLIM7 TES PDLIM5 VASP ARHGEF7",
    "Cell Junctions;Plasma membrane": "CTNNB1 CTNNA1 CDH3 EPCAM CLDN7",
}


@dataclass(frozen=True)
class Kind:
    """One kind of protein: its terms, how it varies between cells, and its share of the screen.

    ``variation``: "" (none), "location" (two phenotypes in one field: a cell shows one term or the other) or
    "intensity". ``weight``: proteins in a screen of 120. ``most``: never more than this many.
    """

    terms: tuple[str, ...]
    weight: float
    subclass: str = ""
    variation: str = ""
    most: int = 10**9

    @property
    def markers(self) -> str:
        """The key of `MARKERS` for this kind."""
        return ";".join(self.terms) + (f":{self.subclass}" if self.subclass else "")


def _kinds() -> list[Kind]:
    one = {
        "Nucleoplasm": 6, "Nuclear membrane": 4, "Nucleoli": 5, "Nucleoli fibrillar center": 4, "Nuclear speckles": 4,
        "Nuclear bodies": 4, "Cytosol": 6, "Endoplasmic reticulum": 4, "Golgi apparatus": 4, "Mitochondria": 5,
        "Plasma membrane": 4, "Cell Junctions": 4, "Microtubules": 4, "Actin filaments": 4, "Intermediate filaments": 4,
        "Centrosome": 4, "Focal adhesion sites": 3, "Cytoplasmic bodies": 3, "Lipid droplets": 3,
    }  # fmt: skip
    two = {
        "Cytosol;Nucleoplasm": 5, "Nucleoli;Nucleoplasm": 4, "Golgi apparatus;Vesicles": 2, "Cytosol;Plasma membrane": 2,
        "Cytosol;Mitochondria": 1, "Actin filaments;Focal adhesion sites": 1, "Cell Junctions;Plasma membrane": 1,
    }  # fmt: skip
    kinds = [Kind((term,), weight) for term, weight in one.items()]
    kinds += [Kind(("Nucleoli rim",), 5, most=8)]  # rare in the Human Protein Atlas too
    kinds += [Kind(("Vesicles",), 3, subclass=s) for s in ("even", "perinuclear", "large")]
    kinds += [Kind(tuple(terms.split(";")), weight) for terms, weight in two.items()]
    kinds += [Kind(("Cytosol", "Nucleoplasm"), 3, variation="location"), Kind(("Nucleoli", "Nucleoplasm"), 2, variation="location")]
    varying = ("Cytosol", "Nucleoplasm", "Mitochondria", "Nucleoli", "Intermediate filaments", "Plasma membrane", "Golgi apparatus")
    kinds += [Kind((term,), 1, variation="intensity") for term in varying]
    return kinds


KINDS = _kinds()


def draw_proteins(number: int) -> list[tuple[str, Kind]]:
    """Name `number` proteins and give each its kind, so that any beginning of the list holds a fair mixture.

    Returns
    -------
    list of (str, Kind)
        Names are unique; real symbols as long as the catalogue lasts, then ``SIMH0001`` …
    """
    given = [0] * len(KINDS)
    total = sum(kind.weight for kind in KINDS)
    names = {key: iter(symbols.split()) for key, symbols in MARKERS.items()}
    out: list[tuple[str, Kind]] = []
    made_up = 0
    for position in range(number):
        # the kind that lags furthest behind its share comes next
        lag = [k.weight / total * (position + 1) - g if g < k.most else float("-inf") for k, g in zip(KINDS, given, strict=True)]
        chosen = max(range(len(KINDS)), key=lag.__getitem__)
        given[chosen] += 1
        kind = KINDS[chosen]
        name = next(names[kind.markers], "")
        if not name:
            made_up += 1
            name = f"SIMH{made_up:04d}"
        out.append((name, kind))
    return out
