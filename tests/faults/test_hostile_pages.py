"""Names with markup: in the atlas, in figures and their captions, in tables and texts of notebooks, and on pages of the book."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pci_core import notebook, plots, results
from pci_core.book import _copy_folded, _write_left_out
from pci_core.cells import CellDataset, Channel
from pci_core.plots import neighbours, style
from pci_core.plots.contact_sheet import View, contact_sheet

MARKUP = [
    "<script>window.pwned=1</script>", "</script><script>window.pwned=1</script>", "<img src=x onerror=window.pwned=1>",
    "<svg onload=window.pwned=1>", "<!--", "-->", "]]>", "</td></tr></table><h1>x</h1>", "\"'><b>x</b>", "javascript:window.pwned=1",
    "<a href='javascript:window.pwned=1'>x</a>", "[x](javascript:window.pwned=1)", "![x](x)", "`code`", "**bold**", "| a | b |",
    "{{ x }}", "<%= x %>", "${window.pwned=1}", "&lt;b&gt;", "A\u2028B", "a\u202eb",
]  # fmt: skip
MATHS = ["$", "$$", "$x$", "$\\frac{$", "a$b$c", "$\\undefined{x}$", "\\$", "$\\mathdefault{\\bad}$", "{", "^_^", "%s", "\\"]


class Tags(HTMLParser):
    """The tags of a page, with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


def harmless(html: str) -> Tags:
    found = Tags(html)
    assert not found.tags & {"script", "img", "svg", "iframe", "object", "h1", "b"}, found.tags
    assert not [a for a in found.attributes if a.startswith("on")]
    assert not [link for link in found.links if link.startswith("javascript:")]
    return found


# --- tables of notebooks


def test_tables_of_notebooks() -> None:
    table = pd.DataFrame({"protein": MARKUP, "<img src=x onerror=y>": 0.5, "n": range(len(MARKUP))})
    for index in (False, True):
        shown = notebook.shown(table.set_index("protein", drop=False) if index else table, {"n": "{:,}"}, index=index, precision=2)
        told = harmless(shown.to_html())
        assert all(name.strip() in told.text for name in MARKUP if "\u2028" not in name)
    with pytest.raises(AssertionError):
        harmless(table.style.to_html())  # pandas' own style writes names as markup: the test would see it
    harmless(table.to_html())


def test_every_styled_table_of_a_notebook_is_made_so() -> None:
    root = Path(__file__).resolve().parents[2]
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            plain = re.sub(r"plots\.style|\.style\.format\(\"\{:\.2f\}\"\)", "", source)  # the second: a table of numbers, see its page
            assert cell["cell_type"] != "code" or not re.search(r"\.style\b", plain), f"{path.name}: use pci.notebook.shown"


# --- pages


def executed(path: Path, text: str) -> Path:
    output = {"output_type": "display_data", "metadata": {}, "data": {"text/markdown": text, "text/plain": text}}
    cell = {"cell_type": "code", "metadata": {}, "source": "x", "execution_count": 1, "outputs": [output]}
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def rendered(markdown: str) -> Tags:
    from markdown_it import MarkdownIt

    return harmless(MarkdownIt("commonmark").enable("table").render(markdown))  # raw HTML is let through by it, as on the pages


def test_texts_of_notebooks_on_a_page(tmp_path: Path) -> None:
    for name in MARKUP:
        _copy_folded(executed(tmp_path / "a.ipynb", f"**Title** of {name}: 5 cells"), tmp_path / "b.ipynb")
        shown = json.loads((tmp_path / "b.ipynb").read_text())["cells"][0]["outputs"][0]["data"]["text/markdown"]
        if not name.startswith(("![", "**")):  # a picture or bold type from beside the page: markup, but no script
            rendered("".join(shown))
    with pytest.raises(AssertionError):
        rendered("<img src=x onerror=y>")


def test_a_page_that_says_why_an_analysis_was_left_out(tmp_path: Path) -> None:
    (tmp_path / "t.ipynb").write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": ["# Title\n"], "metadata": {}}]}))
    for name in [*MARKUP, "a\n:::\n<script>x</script>\n"]:
        if name.startswith(("![", "**")):
            continue
        _write_left_out(tmp_path / "t.ipynb", tmp_path / "p.ipynb", f"needs the column '{name}'")
        source = json.loads((tmp_path / "p.ipynb").read_text())["cells"][0]["source"]
        assert source.count(":::") == 2 + ("\n" not in name and name.count(":::")) + name.count(":::") * ("\n" in name)
        assert len([line for line in source.splitlines() if line.startswith(":::")]) == 2  # nothing ends the box
        rendered(source.partition("\n")[2])


def test_the_page_of_results(tmp_path: Path) -> None:
    for name in MARKUP:
        row = {"recipe": "own", "simulated": True, "features": name, "what": name, "value": 0.5, "low": 0.4, "high": 0.6, "n_cells": 3,
               "n_proteins": 2.0, "unit": "", "paper": np.nan, "paper_on": "", "note": ""}  # fmt: skip
        text = results._table(pd.DataFrame([row, row | {"features": "conv3"}]), "own, this build")
        if not name.startswith(("![", "**")):
            rendered(text)
        assert len({line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}) == 1, name  # no further cell


# --- figures


@pytest.fixture
def drawn() -> Callable[[Figure], str]:
    """Draw a figure and return all its texts."""

    def draw(figure: Figure) -> str:
        figure.set_dpi(30)
        figure.canvas.draw()
        return "\n".join(t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")))  # type: ignore[attr-defined]

    return draw


def figures(make_cells: Callable[..., CellDataset], names: list[str]) -> Iterator[Figure]:
    n = len(names)
    rng = np.random.default_rng(0)
    labels = [names[i % n] for i in range(4 * n)]
    yield plots.umaps({names[0]: rng.normal(size=(4 * n, 2)), names[1]: rng.normal(size=(4 * n, 2))}, labels, names[2], note=names[3])
    counts = pd.DataFrame(rng.integers(0, 9, (n, n)) + 1, index=pd.Index(names, name="label"), columns=pd.Index(names, name="predicted"))
    yield plots.confusion(counts, names[0], note=names[1])
    recalls = pd.DataFrame(
        {"features": names[0], "classifier": "knn", "k": 11, "left_out": "image", "label": names, "recall": 0.5, "n_cells": 3}
    )
    yield plots.recall_heatmap(pd.concat([recalls, recalls.assign(features=names[1])]), names[2], note=names[3])
    cells = make_cells(name=f"cells{n}{len(names[0])}")
    yield plots.crop_rows(
        cells, {name: [i] for i, name in enumerate(names)}, names[0], names={name: [name] for name in names}, note=names[1]
    )
    ranks = {"euclidean": np.arange(n)}
    yield neighbours.rank_strip(ranks, names, np.arange(n) < n // 2, names[0], term=names[1], k=2, note=names[2], n_cells=9)
    blobs = np.zeros((40, 40), np.int32)
    blobs[5:15, 5:15] = 1
    view = View(
        names[0], names[1], rng.integers(0, 99, (2, 40, 40)).astype(np.uint16), blobs, np.array([[10.0, 10.0]]), rng.random((1, 2, 16, 16))
    )
    sheet = contact_sheet([view], [Channel(names[2], "protein"), Channel(names[3], "structural")], 10, 0.5, names[4], [names[5]])
    style.literal(sheet)  # as pci init does
    yield sheet


@pytest.mark.slow
def test_names_in_figures_are_drawn_as_they_are(
    make_cells: Callable[..., CellDataset], drawn: Callable[[Figure], str], thorough: bool
) -> None:
    for names in (MATHS, [m for m in MARKUP if "\u2028" not in m])[: 2 if thorough else 1]:
        for number, figure in enumerate(figures(make_cells, names)):
            told = drawn(figure)
            assert names[0] in told or names[2] in told, number
            assert not [t for t in figure.findobj(lambda a: hasattr(a, "get_parse_math")) if t.get_parse_math() and "$" in t.get_text()]  # type: ignore[attr-defined]


def test_a_figure_that_is_kept(tmp_path: Path) -> None:
    from types import SimpleNamespace

    figure = Figure(figsize=(2, 1))
    axes = figure.subplots()
    axes.set_title("$\\frac{$ <script>window.pwned=1</script>")
    nb = notebook.Notebook("04_x", SimpleNamespace(folder=tmp_path, recording=lambda *a, **k: nullcontext()), "conv3")  # type: ignore[arg-type]
    nb.figure(figure, "a")
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["04_x_conv3_a.png", "04_x_conv3_a.svg"]
    svg = (tmp_path / "figures" / "04_x_conv3_a.svg").read_text()
    assert "<script" not in re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
