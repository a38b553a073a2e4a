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
    """Return the table of what `pci data fetch` gets."""
    rows = ["| `pci data fetch` | holds | download | licence | credit |", "|---|---|---|---|---|"]
    rows += [f"| `{name}` | {s.title}: {s.holds} | {s.download} | {s.licence} | {s.credit} |" for name, s in SOURCES.items()]
    return "\n".join(rows)


def licences() -> str:
    """Return the table of licence and credit of every recipe of real cells."""
    rows = ["| recipe | licence | credit |", "|---|---|---|"]
    specs = [spec for name in recipe.names() if not (spec := recipe.load(name)).simulated]
    return "\n".join([*rows, *(f"| `{s.name}` | {s.licence} | {s.credit} |" for s in specs)])


def filled(text: str) -> str:
    """Return the page with its tables renewed between their markers."""
    for name, table in (("downloads", downloads()), ("licences", licences())):
        text = re.sub(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", rf"\g<1>{table}\n\g<2>", text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    write_text(PAGE, filled(PAGE.read_text(encoding="utf-8")))
