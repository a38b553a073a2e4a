"""Files for Java TreeView and Newick, read back by small readers of their own and compared with the dendrogram."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import cophenet
from scipy.spatial.distance import squareform

from pci_core.analysis import trees, treeview
from pci_core.errors import CellTableError

AWKWARD = ["HLA-A", "a b", "it's", "(x)", "a_b", "x:1,2;", 'say "yes"', "[c]", "tab\there", "", "''", "Ünïcode"]


def made(rows: int = 12, columns: int = 5, metric: str = "correlation", seed: int = 0) -> tuple[np.ndarray, trees.Tree, trees.Tree]:
    x = np.random.default_rng(seed).normal(size=(rows, columns + 3))[:, :columns]
    return x, trees.grow(x, AWKWARD[:rows], metric=metric), trees.grow(x.T, [f"f {i}" for i in range(columns)], metric=metric)


def read_newick(text: str) -> dict[str, list[tuple[int, float]]]:
    """Return the way from the root to each leaf as (number of the node, length of its branch)."""
    at, count, leaves = 0, 0, {}

    def label() -> str:
        nonlocal at
        if text[at] != "'":
            start = at
            while text[at] not in ",():;":
                at += 1
            return text[start:at]
        out, at = "", at + 1
        while text[at] != "'" or text[at : at + 2] == "''":
            step = 2 if text[at] == "'" else 1
            out, at = out + text[at], at + step
        at += 1
        return out

    def node(way: list[tuple[int, float]]) -> tuple[list[str], float]:
        nonlocal at, count
        number, count = count, count + 1
        below: list[str] = []
        if text[at] == "(":
            while text[at] in "(,":
                at += 1
                below += node(way)[0]
            assert text[at] == ")"
            at += 1
        else:
            below = [label()]
            leaves[below[0]] = []
        length = 0.0
        if text[at] == ":":
            end = min(i for i in (text.find(c, at) for c in ",);") if i > 0)
            length, at = float(text[at + 1 : end]), end
        for leaf in below:
            leaves[leaf].append((number, length))
        return below, length

    node([])
    assert text[at:] == ";\n"
    return leaves


@pytest.mark.parametrize("metric", ["euclidean", "correlation"])
def test_newick_holds_every_name_and_distance(metric: str) -> None:
    _, tree, _ = made(metric=metric)
    ways = read_newick(treeview.newick(tree))
    assert list(ways) == [tree.names[i].replace("\t", " ") for i in tree.order]  # a tab cannot stand in a name
    joined = squareform(cophenet(tree.merges))
    for i, a in enumerate(tree.names):
        for j, b in enumerate(tree.names[:i]):
            first, second = (dict(ways[n.replace("\t", " ")]) for n in (a, b))
            apart = sum(v for k, v in first.items() if k not in second) + sum(v for k, v in second.items() if k not in first)
            assert apart == pytest.approx(joined[i, j], abs=1e-4)  # lengths are written with six digits


def test_newick_by_hand() -> None:
    tree = trees.grow(np.array([[0.0], [2.0], [10.0]]), ["A", "it's", "C 1"])
    pairs = ("(A:1,'it''s':1):3.5", "('it''s':1,A:1):3.5")  # a dendrogram may stand either way round
    assert treeview.newick(tree) in [f"({a},{b});\n" for p in pairs for a, b in ((p, "'C 1':4.5"), ("'C 1':4.5", p))]


def test_newick_of_a_deep_tree() -> None:
    x = np.cumsum(1.001 ** np.arange(1600))[:, None]
    assert treeview.newick(trees.grow(x, map(str, range(1600)), linkage="single")).count("(") == 1599


def test_treeview_files_read_back(tmp_path: Path) -> None:
    x, rows, columns = made()
    paths = treeview.write_treeview(tmp_path / "map.cdt", x, rows, columns, descriptions=[f"{n} · here" for n in rows.names])
    assert [p.name for p in paths] == ["map.cdt", "map.gtr", "map.atr"]
    table = pd.read_csv(paths[0], sep="\t", header=None, keep_default_na=False, quoting=3)
    assert table.iloc[0, :4].tolist() == ["GID", "ID", "NAME", "GWEIGHT"]
    assert table.iloc[:3, 0].tolist() == ["GID", "AID", "EWEIGHT"]
    assert table.iloc[3:, 1].tolist() == [rows.names[i].replace("\t", " ") for i in rows.order]
    assert table.iloc[0, 4:].tolist() == [columns.names[j] for j in columns.order]
    shown = table.iloc[3:, 4:].astype(float).to_numpy()
    np.testing.assert_allclose(shown, x[rows.order][:, columns.order], rtol=1e-3)  # four digits are written
    for path, tree, ids in (
        (paths[1], rows, table.iloc[3:, 0].tolist()),
        (paths[2], columns, table.iloc[1, 4:].tolist()),
    ):
        kind = "GENE" if tree is rows else "ARRY"
        assert ids == [f"{kind}{i}X" for i in tree.order]
        merges = pd.read_csv(path, sep="\t", header=None)
        known = {i: {i} for i in ids}
        for node, a, b, _ in merges.itertuples(index=False):  # every node joins two that stand before it
            known[node] = known.pop(a) | known.pop(b)
        assert list(known.values()) == [set(ids)]
        np.testing.assert_allclose(merges[3], 1 - tree.merges[:, 2], atol=1e-6)
        assert merges[3].is_monotonic_decreasing


def test_distances_are_scaled_where_they_are_no_correlation(tmp_path: Path) -> None:
    _, tree, _ = made(metric="euclidean")
    s = treeview.similarities(tree)
    assert s[-1] == 0 and s.max() < 1
    assert (treeview.similarities(trees.grow(np.ones((3, 2)), "abc")) == 1).all()


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    x, rows, columns = made()
    with pytest.raises(CellTableError, match=r"shape \(11, 5\) and 12 descriptions do not fit"):
        treeview.write_treeview(tmp_path / "map", x[1:], rows, columns)
    assert not list(tmp_path.iterdir())
    path = treeview.write_newick(tmp_path / "map.nwk", rows)
    assert path.read_text(encoding="utf-8") == treeview.newick(rows)
