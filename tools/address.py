"""Copy the repository's address from pyproject.toml, the one place where it is written by hand, to the files that need it.

    make address

The files: the first code cell of each notebook (it installs the package on Colab), the badges of README.md,
``repository-code`` of CITATION.cff, the repository of _config.yml, and `pci_core.notebook.ADDRESS`.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = ("README.md", "CITATION.cff", "_config.yml", "pci_core/notebook.py", "book/start.md", "book/gpu_cluster.md", "notebooks/*.ipynb")


def address() -> str:
    """Return the address that pyproject.toml names."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"])


def holders() -> list[Path]:
    """Return the files that hold a copy of the address."""
    return [path for pattern in FILES for path in sorted(ROOT.glob(pattern))]


def old_address() -> str:
    """Return the address that the files hold now, as the frame of the notebooks has it."""
    found = re.search(r'^ADDRESS = "(.*?)"', (ROOT / "pci_core" / "notebook.py").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit("pci_core/notebook.py has no line ADDRESS = …; put it back.")
    return found[1]


def main() -> None:
    """Replace the old address by that of pyproject.toml in every file."""
    old, new = old_address(), address()
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", new):
        raise SystemExit(f"pyproject.toml: Repository = '{new}' is no address of the form https://github.com/OWNER/REPOSITORY.")
    for path in holders():
        text = path.read_text(encoding="utf-8")
        changed = text.replace(old, new).replace(old.removeprefix("https://github.com/"), new.removeprefix("https://github.com/"))
        if changed != text:
            path.write_text(changed, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: {new}")


if __name__ == "__main__":
    main()
