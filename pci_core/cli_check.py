"""``pci check``: is what this installation computes right?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pci_core.cli_options import DataOption, JobsOption, QuietOption, RunsOption


def check(
    recipe: Annotated[
        str | None, typer.Argument(metavar="[RECIPE]", help="Also check the cells of this recipe [default: a few simulated cells].")
    ] = None,
    draws: Annotated[int, typer.Option("--draws", help="Shuffles and repeats; fewer tell less and are faster.")] = 1000,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="Of chance, enrichment, coverage, leaks, invariance, flips, flags; can be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Keep the result in this .json or .csv.")] = None,
    data: DataOption = None,
    runs: RunsOption = None,
    jobs: JobsOption = -1,
    quiet: QuietOption = False,
) -> None:
    """Check that results are right: chance, p values, intervals, leaks, features that depend on the cell alone, spoilt cells."""
    from pci_core import check as checks

    if out is not None:
        checks.check_ending(out)
    found = checks.run_checks(recipe, draws=draws, only=only or (), runs=runs, data=data, jobs=jobs, quiet=quiet)
    print(checks.text(found))
    if out is not None:
        checks.save(found, out, {"recipe": recipe or "", "draws": draws})
        print(f"kept: {out}")
    failed = [f for f in found if not f.passed]
    n = sum(f.required for f in found)
    print(f"{n - len(failed)} of {n} passed, {len(found) - n} reported")
    if failed:
        raise typer.Exit(1)
