"""Write the tables of book/data.md that the catalog and the recipes know: what each source holds, costs, and whose it is.

    python tools/sources.py

A test keeps the page in step.
"""

from __future__ import annotations

import re
from pathlib import Path

from pci_core import recipe
from pci_core.data.catalog import SOURCES
from pci_core.storage import write_text

PAGE = Path(__file__).resolve().parent.parent / "book" / "data.md"


def downloads() -> str:
    """Return what `pci data fetch` gets; lists, since tables with sentences in them grow too wide for a page."""
    return "\n".join(
        f"- `{name}`: **{s.title}** ({s.download}). {s.holds[0].upper()}{s.holds[1:]}.\n  Licence: {s.licence}. Credit: {s.credit}."
        for name, s in SOURCES.items()
    )


def licences() -> str:
    """Return licence and credit of every recipe of real cells."""
    specs = [spec for name in recipe.names() if not (spec := recipe.load(name)).simulated]
    return "\n".join(f"- `{s.name}`: {s.licence}. Credit: {s.credit}." for s in specs)


def filled(text: str) -> str:
    """Return the page with its tables renewed between their markers."""
    for name, table in (("downloads", downloads()), ("licences", licences())):
        text = re.sub(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", rf"\g<1>{table}\n\g<2>", text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    write_text(PAGE, filled(PAGE.read_text(encoding="utf-8")))
