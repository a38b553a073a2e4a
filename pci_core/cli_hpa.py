"""``pci data fetch hpa``: images of the Human Protein Atlas by gene."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pci_core.cli_options import QuietOption


def hpa(
    genes: Annotated[str, typer.Option("--genes", help="Gene names or Ensembl ids, e.g. CCNB1,ENSG00000148773; 'all' = the atlas.")] = "",
    genes_file: Annotated[
        Path | None, typer.Option("--genes-file", help="Text file with one gene a line; what follows # is left out.")
    ] = None,
    release: Annotated[str, typer.Option("--release", help="Number of the release, or 'newest'. The paper's is 18.")] = "18",
    out: Annotated[Path | None, typer.Option("--out", help="Folder to put the images into, by default ./hpa-18 (or the release).")] = None,
    cell_lines: Annotated[str, typer.Option("--cell-lines", help="Only these, e.g. 'U-2 OS,A-431'.")] = "",
    antibodies: Annotated[str, typer.Option("--antibodies", help="Only these, e.g. CAB000115,HPA030741.")] = "",
    reliability: Annotated[str, typer.Option("--reliability", help="Only antibodies of these grades, e.g. enhanced,supported.")] = "",
    images_per_gene: Annotated[
        int, typer.Option("--images-per-gene", min=0, help="At most so many combinations of cell line and antibody; 0 = all.")
    ] = 0,
    fields_per_image: Annotated[int, typer.Option("--fields-per-image", min=0, help="At most so many fields of view; 0 = all.")] = 0,
    skip_unknown: Annotated[bool, typer.Option("--skip-unknown", help="Leave genes out that the release does not have.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many images, GB and hours; fetch entries and tables only.")] = False,
    connections: Annotated[int, typer.Option("--connections", min=1, max=4, help="Requests at once.")] = 2,
    interval: Annotated[float, typer.Option("--interval", min=0.1, help="Seconds between two requests, at least.")] = 0.5,
    tries: Annotated[int, typer.Option("--tries", min=1, max=20, help="For one image, with growing pauses.")] = 6,
    again: Annotated[bool, typer.Option("--again", help="Ask once more for images that were not there in an earlier run.")] = False,
    newer: Annotated[
        bool, typer.Option("--newer/--no-newer", help="Look for images that are not there at the address in the newest entry.")
    ] = True,
    quiet: QuietOption = False,
) -> None:
    """Fetch fields of view of genes in the Human Protein Atlas; the same again fetches only what is missing.

    The folder then holds fields.csv, the field table for 'pci cells hpa --data FOLDER', and manifest.csv, what was had and
    what failed and why. Images are CC BY-SA (older releases: see LICENCE.txt); credit: Human Protein Atlas, proteinatlas.org.
    """
    from pci_core.data import hpa as atlas
    from pci_core.data.hpa_addresses import NEWEST
    from pci_core.data.hpa_addresses import release as named_release
    from pci_core.data.polite import Manners, PoliteSession

    wanted = wanted_genes(genes, genes_file)
    which = named_release(release)
    folder = out or Path(f"hpa-{which.name}")
    manners = Manners(connections=connections, interval=interval, tries=tries)
    selection = atlas.Selection(_names(cell_lines), _names(antibodies), _names(reliability), images_per_gene, fields_per_image)
    with PoliteSession(manners, trusted=which.trusts) as session:
        if dry_run and wanted is None and not atlas.has_whole_atlas(folder, which):
            print("\n".join(atlas.describe_unseen(which, folder, session)))
            return
        print(f"{which.site}: {connections} connections, at least {interval:g} s between two requests", flush=True)
        plan = atlas.plan(
            wanted, folder, release=which, selection=selection, skip_unknown=skip_unknown, session=session, progress=not quiet
        )
        rows = atlas.missing_rows(plan, again=again, progress=not quiet)
        cost = atlas.cost(rows, which, folder, session)
        print("\n".join(atlas.describe(plan, cost)), flush=True)
        if dry_run:
            return
        cost.require_space(folder)
        outcome = atlas.fetch(
            plan, session=session, newer=named_release(NEWEST) if newer else None, again=again, progress=not quiet, say=print
        )
    manifest = folder / "manifest.csv"
    print(
        f"{outcome.fields} fields of view in {folder / 'fields.csv'}: {outcome.fetched} fetched ({outcome.received / 1e6:.1f} MB), "
        f"{outcome.had} were there; {outcome.failed} failed, {outcome.not_there} are not on the server"
        f"{f', see {manifest}' if outcome.failed or outcome.not_there else ''}"
    )
    print(f"next: pci cells hpa --data {folder}")


def wanted_genes(genes: str, genes_file: Path | None) -> list[str] | None:
    """Return the genes that the options name, None for all.

    Raises
    ------
    typer.BadParameter
        Neither or both options, or a file that cannot be read or names no gene.
    """
    if bool(genes.strip()) == (genes_file is not None):
        raise typer.BadParameter("give either --genes A,B (or --genes all) or --genes-file FILE")
    if genes_file is None:
        return None if genes.strip().lower() == "all" else list(_names(genes))
    try:
        lines = genes_file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{genes_file} cannot be read as text in UTF-8 ({error})") from error
    names = [name for line in lines for name in _names(line.split("#")[0].replace("\t", ","))]
    if not names:
        raise typer.BadParameter(f"{genes_file} names no gene; write one a line")
    return names


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
