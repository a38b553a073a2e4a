"""Dendrograms for other programs: Java TreeView (CDT with GTR and ATR) and Newick.

The three files of Java TreeView share their stem: ``<stem>.cdt`` holds the values in the order of the dendrograms,
``<stem>.gtr`` the dendrogram of the rows and ``<stem>.atr`` that of the columns, one line a merge with the nodes joined and
their similarity. It opens the CDT and finds the other two beside it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pci_core.analysis.trees import Tree
from pci_core.errors import CellTableError
from pci_core.storage import atomic_path, write_text
from pci_core.tables import guarded

_PLAIN = re.compile(r"[^\s()\[\]{}/\\,;:='\"_]+")  # may stand in Newick without quotes; an underscore would be read as a space


def write_treeview(
    path: str | os.PathLike[str],
    values: np.ndarray,
    rows: Tree,
    columns: Tree,
    *,
    descriptions: Sequence[str] | None = None,
) -> list[Path]:
    """Write a clustered heat map for Java TreeView.

    Parameters
    ----------
    path : path-like
        The ``.cdt``; the ``.gtr`` and ``.atr`` take its stem.
    values : ndarray
        (rows, columns) what the heat map shows, in the order of the trees' names.
    rows, columns : Tree
        Of the proteins and of the features.
    descriptions : sequence of str, optional
        One a row, for the column ``NAME``, e.g. gene, location and cluster; by default the row's name.

    Returns
    -------
    list of Path
        CDT, GTR and ATR.

    Raises
    ------
    CellTableError
        Values or descriptions that do not fit the trees.
    """
    path = Path(path).with_suffix(".cdt")
    told = list(rows.names) if descriptions is None else list(descriptions)
    if np.shape(values) != (len(rows), len(columns)) or len(told) != len(rows):
        raise CellTableError(
            f"values of shape {np.shape(values)} and {len(told)} descriptions do not fit dendrograms of {len(rows)} rows and "
            f"{len(columns)} columns."
        )
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for line in (
            ["GID", "ID", "NAME", "GWEIGHT", *(_cell(columns.names[j]) for j in columns.order)],
            ["AID", "", "", "", *(f"ARRY{j}X" for j in columns.order)],
            ["EWEIGHT", "", "", "", *("1" for _ in columns.order)],
        ):
            file.write("\t".join(line) + "\n")
        for i in rows.order:
            numbers = np.char.mod("%.4g", np.asarray(values[i], np.float64)[columns.order])
            file.write("\t".join([f"GENE{i}X", _cell(rows.names[i]), _cell(told[i]), "1", *numbers]) + "\n")
    for tree, kind, suffix in ((rows, "GENE", ".gtr"), (columns, "ARRY", ".atr")):
        write_text(path.with_suffix(suffix), _merges(tree, kind))
    return [path, path.with_suffix(".gtr"), path.with_suffix(".atr")]


def similarities(tree: Tree) -> np.ndarray:
    """Return the similarity at each merge as Java TreeView draws it: (leaves - 1,).

    The correlation itself where the distance is one minus it (or one minus the cosine); else 1 - height / greatest height.
    """
    heights = tree.merges[:, 2]
    if tree.metric in ("correlation", "cosine"):
        return np.asarray(1 - heights)
    return np.asarray(1 - heights / (heights.max() or 1.0))


def _merges(tree: Tree, kind: str) -> str:
    n = len(tree)
    names = [f"{kind}{i}X" for i in range(n)] + [f"NODE{i + 1}X" for i in range(n - 1)]
    pairs = tree.merges[:, :2].astype(np.int64)
    rows = zip(names[n:], pairs, similarities(tree), strict=True)
    return "".join(f"{node}\t{names[a]}\t{names[b]}\t{s:.6f}\n" for node, (a, b), s in rows)


def _field(text: str) -> str:
    """Return text without what would end a field or a line."""
    return re.sub(r"[\t\r\n]+", " ", text)


def _cell(text: str) -> str:
    """Return text for a CDT, which people open in spreadsheets too."""
    return str(guarded(_field(text)))


def newick(tree: Tree) -> str:
    """Write a dendrogram in Newick's form, e.g. ``((A:1,B:1):2,'C 1':3);``.

    Branches are half of the difference in height, so that the way from one leaf to another is as long as the height at which they
    join. Names with blanks, quotes, parentheses, underscores and the like stand in single quotes, quotes in them twice.
    """
    heights = np.concatenate([np.zeros(len(tree)), tree.merges[:, 2]]) / 2
    # without recursion: with single linkage a tree of 12,000 leaves is nearly as deep
    out: list[str] = []
    todo: list[int | str] = [2 * len(tree) - 2]
    parents = tree.parents()
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            out.append(item)
            continue
        above = parents[item]
        length = f":{max(heights[above] - heights[item], 0):.6g}" if above >= 0 else ""
        if item < len(tree):
            out.append(_quoted(tree.names[item]) + length)
        else:
            a, b = (int(x) for x in tree.merges[item - len(tree), :2])
            out.append("(")
            todo += [")" + length, b, ",", a]
    return "".join(out) + ";\n"


def _quoted(name: str) -> str:
    name = _field(name)
    return name if _PLAIN.fullmatch(name) else "'" + name.replace("'", "''") + "'"


def write_newick(path: str | os.PathLike[str], tree: Tree) -> Path:
    """Write a dendrogram to a Newick file and return its path."""
    write_text(Path(path), newick(tree))
    return Path(path)
