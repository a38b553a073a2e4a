"""GMT files, broken and whole, and the embedded sets, which must say what the simulators do."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import pytest

from pci_core import recipe as recipes
from pci_core.analysis.gene_sets import FOLDER, gene_sets, read_gmt, recognised
from pci_core.data.simulate import human_proteins, plan_fields, yeast_proteins
from pci_core.errors import EnrichmentError, UnknownNameError

GOOD = "nucleus\tsome words\tA\tB\tC\n\nGolgi\t\tC\tD\n"

_SPEC = importlib.util.spec_from_file_location("simulated_gene_sets", Path(__file__).parents[2] / "tools" / "gene_sets.py")
assert _SPEC is not None and _SPEC.loader is not None
_SCRIPT = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_SCRIPT)
ORGANISMS, gmt_text, write_all = _SCRIPT.ORGANISMS, _SCRIPT.gmt_text, _SCRIPT.write_all


def gmt(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "own.gmt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("text", [GOOD, GOOD.replace("\n", "\r\n"), "\ufeff" + GOOD, GOOD.rstrip("\n"), GOOD.replace("A", " A ")])
def test_sets_of_a_file(tmp_path: Path, text: str) -> None:
    assert read_gmt(gmt(tmp_path, text)) == {"nucleus": frozenset("ABC"), "Golgi": frozenset("CD")}


def test_doubled_and_blank_genes_are_counted_once_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = gmt(tmp_path, "nucleus\t\tA\tB\tA\t\tA\n")
    assert read_gmt(path) == {"nucleus": frozenset("AB")}
    told = capsys.readouterr().out
    assert "own.gmt: 2 genes stand twice" in told and "1 blank" in told
    read_gmt(path, quiet=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nucleus\t\tA\nGolgi  C D\n", "own.gmt, line 2: no tab in 'Golgi  C D'"),
        ("\t\tA\n", "line 1: the set has no name"),
        ("nucleus\t\tA\n\nGolgi\twords\n", "line 3: the set 'Golgi' has no genes"),
        ("nucleus\twords\t\t\n", "line 1: the set 'nucleus' has no genes"),
        ("nucleus\t\tA\nGolgi\t\tB\nnucleus\t\tC\n", "'nucleus' stands in line 1 and again in line 3"),
        ("\n", "holds no gene set"),
        ("", "holds no gene set"),
        (b"nucleus\t\t\xff\xfeA\n", "not a text file"),
    ],
)
def test_broken_file_names_file_and_line(tmp_path: Path, text: str | bytes, told: str) -> None:
    with pytest.raises(EnrichmentError, match=told):
        read_gmt(gmt(tmp_path, text))


def test_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gmt", tmp_path):
        with pytest.raises(EnrichmentError, match="cannot read.*GMT"):
            gene_sets(str(path), "hsapiens")


def test_share_recognised(tmp_path: Path) -> None:
    sets = read_gmt(gmt(tmp_path, GOOD))
    assert recognised(["A", "D", "X", "Y", "A"], sets) == 0.5  # each gene once
    assert recognised(["A", "W", "X", "Y", "Z"], sets) == 0.2  # the limit itself will do


@pytest.mark.parametrize(
    ("genes", "told"),
    [
        ([f"ENSG{i:011d}" for i in range(30)], "only 0% of the 30 genes.*ENSG00000000000.*Ensembl genes.*in the sets: .*symbols.*Name "),
        (["P04637", "Q9Y6K9"], "UniProt"),
        (["YAL001C", "YBR020W"], "systematic yeast"),
        (["7157", "672"], "Entrez"),
        ([g.lower() for g in human_proteins.MARKERS["Mitochondria"].split()], "100% would be if upper and lower case"),
    ],
)  # fmt: skip
def test_other_names_are_an_error_that_shows_them(genes: list[str], told: str) -> None:
    with pytest.raises(EnrichmentError, match=told):
        recognised(genes, gene_sets("embedded", "hsapiens"))


# --- embedded


@pytest.mark.parametrize("organism", ORGANISMS)
def test_embedded_files_are_in_step_with_the_simulators(organism: str, tmp_path: Path) -> None:
    assert (FOLDER / f"{organism}.gmt").read_text(encoding="utf-8") == gmt_text(organism), "run python tools/gene_sets.py"
    assert (tmp_path / f"{organism}.gmt") in write_all(tmp_path)


def test_no_other_organism_is_embedded() -> None:
    assert {path.stem for path in FOLDER.glob("*.gmt")} == set(ORGANISMS)
    with pytest.raises(EnrichmentError, match="'mmusculus' .*hsapiens, scerevisiae"):
        gene_sets("embedded", "mmusculus")
    with pytest.raises(UnknownNameError):
        gmt_text("mmusculus")


@pytest.mark.parametrize("recipe", ["simulated-human", "simulated-human-large", "simulated-yeast", "simulated-yeast-nup49"])
def test_embedded_sets_say_where_the_proteins_of_a_recipe_are(recipe: str) -> None:
    loaded = recipes.load(recipe)
    sets = gene_sets("embedded", loaded.organism)
    for plan in plan_fields(loaded.source):
        found = {name for name, genes in sets.items() if plan.meta["protein"] in genes}
        assert found == set(plan.meta["location"].split(";"))


def test_embedded_sets_and_the_large_yeast_recipe() -> None:
    """Made-up names that the small recipe has too may have another second location there."""
    sets = gene_sets("embedded", "scerevisiae")
    small = {plan.meta["protein"] for plan in plan_fields(recipes.load("simulated-yeast").source)}
    source = recipes.load("simulated-yeast-large").source
    for protein in yeast_proteins.draw_proteins(source.proteins, source.seed):
        found = {name for name, genes in sets.items() if protein.name in genes}
        assert protein.first in found
        assert protein.name in small or found == {protein.first, protein.second} - {""}


def test_a_marker_stands_once_in_the_catalogue() -> None:
    for markers in (human_proteins.MARKERS.values(), (" ".join(m) for m in yeast_proteins.MARKERS.values())):
        assert max(Counter(" ".join(markers).split()).values()) == 1


# --- real ones


@pytest.mark.parametrize(("name", "number"), [("human.clean", 446), ("yeast", 307)])
def test_real_gene_ontology(test_data: Path, name: str, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    sets = gene_sets(test_data / "go-cc" / f"GO_Cellular_Component_2018.{name}.gmt", "hsapiens")
    assert len(sets) == number
    assert all(gene.strip() == gene != "" for genes in sets.values() for gene in genes)
    assert ("613 blank" in capsys.readouterr().out) == (name == "yeast")  # counted with awk
