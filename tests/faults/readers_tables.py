"""Readers of tables and texts that a user or a public source hands over."""

from __future__ import annotations

import csv
import gzip
import io
import tarfile
import tomllib
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import test_hpa_tables
import test_hpa_xml
import test_subcell
from made_up import OWN_RECIPE, write_own_recipe
from readers import Reader, anything, exact

from pci_core import cli_hpa, recipe
from pci_core.analysis.gene_sets import read_gmt
from pci_core.analysis.join import read_table
from pci_core.analysis.neighbours import read_genes
from pci_core.data.archives import unpack
from pci_core.data.folder_layout import read_names
from pci_core.data.hpa_tables import read_image_table, read_locations
from pci_core.data.hpa_xml import entry_rows, read_entries
from pci_core.data.subcell import subcell_cells
from pci_core.data.table import read_field_table
from pci_core.features import feature_columns

FEATURES = pd.DataFrame(
    {
        "cell_id": [f"c{i}" for i in range(40)],
        "well": [f"A{i % 4}" for i in range(40)],
        **{f"f{j}": np.random.default_rng(j).normal(size=40).round(4) for j in range(5)},
    }
)
GMT = "nucleus\tGO:0005634\tAAA1\tBBB2\tCCC3\ncytosol\tGO:0005829\tDDD4\tEEE5\n\nplasma membrane\t\tFFF6\tAAA1\n"


def rows_of(path: Path, delimiter: str = ",") -> list[list[str]] | None:
    """Read a CSV as the standard library does; None where it is none: not UTF-8, quotes left open, rows of unequal width."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        rows = [r for r in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if r]
    except (UnicodeDecodeError, csv.Error):
        return None
    return rows if rows and len({len(r) for r in rows}) == 1 else None


def same_rows(columns: dict[str, str], delimiter: str = ",") -> Callable[[Any, pd.DataFrame, Path], str]:
    """The texts of these columns, by the file's own names, are those that the standard library reads from the same bytes."""

    def right(good: Any, found: pd.DataFrame, path: Path) -> str:
        rows = rows_of(path, delimiter)
        if rows is None:
            return "an answer, though the file is no table"
        head = [h.strip().casefold() for h in rows[0]]
        if len(found) != len(rows) - 1:
            return f"{len(found)} rows instead of {len(rows) - 1}"
        for ours, theirs in columns.items():
            want = [r[head.index(theirs)].strip() for r in rows[1:]] if theirs in head else None
            if want is not None and found[ours].tolist() != want:
                return f"column {ours} is not what stands there"
        return ""

    return right


def _text(name: str, text: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        (folder / name).write_text(text, encoding="utf-8")
        return [folder / name]

    return make


def _packed(name: str, text: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        if name.endswith(".zip"):
            with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("subcellular_location.tsv", text)
        else:
            (folder / name).write_bytes(gzip.compress(text.encode(), mtime=0))
        return [folder / name]

    return make


# --- the user's own tables


def _field_table(folder: Path) -> list[Path]:
    write_own_recipe(folder / "own")
    return [folder / "own" / "fields.csv"]


def _read_fields(folder: Path) -> pd.DataFrame:
    return read_field_table(folder / "own" / "fields.csv", recipe.load(folder / "own" / "own.toml"))[0]


def _recipe(folder: Path) -> list[Path]:
    return _text("own.toml", OWN_RECIPE)(folder)


def as_said(good: Any, found: recipe.Recipe, path: Path) -> str:
    """Every key of the recipe has the value that the TOML says."""
    said = tomllib.loads(path.read_bytes().decode("utf-8"))
    for key, value in said.items():
        sections = {key: value} if not isinstance(value, dict) else {f"{key}.{k}": v for k, v in value.items()}
        for name, wanted in sections.items():
            have: Any = found
            for part in name.split("."):
                have = getattr(have, part)
            if name == "channels":
                have = [{"name": c.name, "role": c.role} for c in have]
            if list(have) != wanted if isinstance(wanted, list) else have != wanted:
                return f"{name} is {have!r}, the file says {wanted!r}"
    return ""


def _features(kind: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        path = folder / f"own.{kind}"
        if kind == "csv":
            FEATURES.to_csv(path, index=False)
        elif kind == "csv.gz":
            path.write_bytes(gzip.compress(FEATURES.to_csv(index=False).encode(), mtime=0))
        elif kind == "parquet":
            FEATURES.to_parquet(path, index=False)
        else:
            obs = FEATURES[["cell_id", "well"]].set_index("cell_id", drop=False).rename_axis(None)
            names = pd.DataFrame(index=[c for c in FEATURES if c.startswith("f")])
            anndata.AnnData(FEATURES[list(names.index)].to_numpy(np.float32), obs=obs, var=names).write_h5ad(path)
        return [path]

    return make


def _read_features(kind: str) -> Callable[[Path], anndata.AnnData]:
    return lambda folder: read_table(folder / f"own.{kind}")


def finite_set(good: anndata.AnnData, found: anndata.AnnData, path: Path) -> str:
    """A table of the user's has no check sum: finite numbers of distinct cells, as many rows as are not said to be left out."""
    facts = found.uns["pci"]
    if path.suffix == ".csv":
        rows = rows_of(path)
        if rows is None:
            return "an answer, though the file is no table"
        left = found.n_obs + facts["cells_without_values"]
        if left != len(rows) - 1:
            return f"{left} rows instead of {len(rows) - 1}"
    elif found.n_obs + facts["cells_without_values"] != good.n_obs:
        return f"{found.n_obs} cells instead of {good.n_obs}"
    if not np.isfinite(found.X).all() or not found.obs_names.is_unique:
        return "not finite, or cells twice"
    return ""


def _names(folder: Path) -> list[Path]:
    text = "plate,well,protein,note\n1,A1,ABC1,x\n1,A2,DEF2,y\n2,A1,GHI3,\n2,B12,JKL4,z\n"
    return _text("names.csv", text)(folder)


def _read_names(folder: Path) -> pd.DataFrame:
    fields = [{"plate": "1", "well": "A1"}, {"plate": "2", "well": "A1"}]
    keys, rows = read_names(folder / "names.csv", fields)
    return pd.DataFrame([{"key": "/".join(k), **v} for k, v in rows.items()])


def _subcell(folder: Path) -> list[Path]:
    test_subcell.images(folder)
    return [test_subcell.write(folder, [test_subcell.row(i, p) for i, p in enumerate(test_subcell.PREFIXES)])]


def _read_subcell(folder: Path) -> np.ndarray:
    spec = recipe.parse(tomllib.loads(test_subcell.RECIPE), "cells.toml", folder)
    return np.asarray(subcell_cells(spec, folder / "cells", progress=False).crops)


def _crops(good: np.ndarray, found: np.ndarray, path: Path) -> str:
    """Other files may be listed, or fewer: whole crops of the same side."""
    return "" if found.shape[1:] == good.shape[1:] else f"shape {found.shape}"


def _gmt(good: Any, found: dict[str, frozenset[str]], path: Path) -> str:
    lines = [x.split("\t") for x in path.read_bytes().decode("utf-8-sig").split("\n") if x.strip()]
    want = {x[0].strip(): frozenset(g.strip() for g in x[2:]) - {""} for x in lines}
    return "" if found == want else "other sets than stand there"


# --- public sources

_ATLAS = test_hpa_xml.HEAD + test_hpa_xml.entry_v18() + test_hpa_xml.V25 + test_hpa_xml.TAIL
_LOCATION_COLUMNS = same_rows({"ensembl": "gene", "protein": "gene name"}, "\t")


def _entries(name: str) -> Callable[[Path], list[dict[str, str]]]:
    return lambda folder: [row for entry in read_entries(folder / name) for row in entry_rows(entry)]


def well_formed(good: Any, found: list[Any], path: Path) -> str:
    """What another parser takes for XML; texts in it are free."""
    try:
        ElementTree.fromstring(path.read_bytes())
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        return f"an answer, though it is no XML ({error})"
    return ""


def _archive(kind: str) -> Callable[[Path], list[Path]]:
    members = {"top/a.txt": b"first " * 50, "top/b/c.bin": bytes(range(256)) * 3, "top/empty": b""}

    def make(folder: Path) -> list[Path]:
        path = folder / f"f.{kind}"
        if kind == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in members.items():
                    archive.writestr(name, content)
        else:
            with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as tar:
                for name, content in members.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        return [path]

    return make


def _unpack(kind: str) -> Callable[[Path], dict[str, bytes]]:
    def read(folder: Path) -> dict[str, bytes]:
        out = folder / "out"
        return {p.relative_to(out).as_posix(): p.read_bytes() for p in unpack(folder / f"f.{kind}", out)}

    return read


def same_contents(good: dict[str, bytes], found: dict[str, bytes], path: Path) -> str:
    """Contents have check sums, names and dates of a zip's list have none."""
    return "" if sorted(found.values()) == sorted(good.values()) else "other contents, though each has a check sum"


def tar_members(good: dict[str, bytes], found: dict[str, bytes], path: Path) -> str:
    """A plain tar has a check sum of each header, none of the contents, and no list of members: the same names and sizes, or fewer."""
    sizes = [{(k, len(v)) for k, v in each.items()} for each in (good, found)]
    return "" if sizes[1] <= sizes[0] else "other members"


def _genes_option(folder: Path) -> list[str]:
    """The command line takes this file apart itself; typer's own error of usage is right, too (exit status 2)."""
    import typer

    from pci_core.errors import CellTableError

    try:
        return cli_hpa.wanted_genes("", folder / "genes.txt") or []
    except typer.BadParameter as error:
        raise CellTableError(str(error)) from error


def _columns(folder: Path) -> list[str]:
    return feature_columns(folder / "features.parquet")


def _written_by_us(folder: Path) -> list[Path]:
    table = FEATURES.rename(columns={"cell_id": "Metadata_cell_id", "well": "Metadata_well"})
    table.to_parquet(folder / "features.parquet", index=False)
    return [folder / "features.parquet"]


READERS = [
    Reader("field table", _field_table, _read_fields, same_rows({c: c for c in ("field", "image", "path", "protein")}), text=True),
    Reader("recipe", _recipe, lambda f: recipe.load(f / "own.toml"), as_said, text=True),
    Reader("names of wells", _names, _read_names, anything, text=True),
    Reader("subcell list", _subcell, _read_subcell, _crops, text=True),
    Reader("features, csv", _features("csv"), _read_features("csv"), finite_set, text=True),
    Reader("features, csv.gz", _features("csv.gz"), _read_features("csv.gz"), exact),
    Reader("features, parquet", _features("parquet"), _read_features("parquet"), finite_set),
    Reader("features, h5ad", _features("h5ad"), _read_features("h5ad"), finite_set),
    Reader("columns of a parquet", _written_by_us, _columns, anything),
    Reader("gmt", _text("sets.gmt", GMT), lambda f: read_gmt(f / "sets.gmt", quiet=True), _gmt, text=True),
    Reader("genes, txt", _text("genes.txt", "AAA1\nBBB2\nCCC3\n"), lambda f: read_genes(str(f / "genes.txt")), anything, text=True),
    Reader("genes, csv", _text("genes.csv", "gene,x\nAAA1,1\nBBB2,2\n"), lambda f: read_genes(str(f / "genes.csv")), anything, text=True),
    Reader("genes to fetch", _text("genes.txt", "AAA1\nBBB2 # b\nCCC3,DDD4\n"), _genes_option, anything, text=True),
    Reader("hpa xml", _text("a.xml", _ATLAS), _entries("a.xml"), well_formed, text=True),
    Reader("hpa xml, gzip", _packed("a.xml.gz", _ATLAS), _entries("a.xml.gz"), exact),
    Reader("hpa locations", _text("l.tsv", test_hpa_tables.NEW), lambda f: read_locations(f / "l.tsv"), _LOCATION_COLUMNS, text=True),
    Reader("hpa locations, zip", _packed("l.tsv.zip", test_hpa_tables.OLD), lambda f: read_locations(f / "l.tsv.zip"), exact),
    Reader("hpa locations, gzip", _packed("l.tsv.gz", test_hpa_tables.OLD), lambda f: read_locations(f / "l.tsv.gz"), exact),
    Reader("hpa images", _text("i.csv", test_hpa_tables.IMAGES), lambda f: read_image_table(f / "i.csv"),
           same_rows({"id": "id", "protein": "gene name", "ensembl": "gene"}), text=True),
    Reader("zip", _archive("zip"), _unpack("zip"), same_contents),
    Reader("tar", _archive("tar"), _unpack("tar"), tar_members),
    Reader("tar.gz", _archive("tar.gz"), _unpack("tar.gz"), exact),
]  # fmt: skip
