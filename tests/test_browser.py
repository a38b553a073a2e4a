"""Pages in a real browser: the protein atlas used as a reader would, and every page of the built book."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Page, browser, check_atlas, check_book, check_page, find_browser, main
from test_atlas import HOSTILE, made_up_atlas

HTML = Path(__file__).resolve().parent.parent / "_build" / "html"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    pytest.importorskip("tornado", reason="the browser is spoken to through tornado, which comes with ipykernel")
    executable = find_browser()
    if executable is None:
        pytest.skip("no Chromium or Chrome on the PATH (CHROMIUM names another)")
    with browser(executable) as found:
        yield found


@pytest.fixture(scope="module")
def atlas_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("atlas")
    names = [f"GENE{i}" for i in range(40)]
    (folder / "atlas.html").write_text(made_up_atlas(folder / "cells", names)[0], encoding="utf-8")
    return folder / "atlas.html"


@pytest.fixture
def shown(page: Page, atlas_file: Path) -> Page:
    page.prefer("light")
    page.size(1400, 900)
    page.goto("about:blank")
    page.goto(atlas_file)
    page.wait("document.documentElement.dataset.ready && atlas.map.size()[0] > 0")
    return page


def selected(page: Page) -> str:
    return str(page.run("document.querySelector('.title h2')?.textContent ?? ''"))


def test_atlas_is_used_without_a_fault(page: Page, atlas_file: Path) -> None:
    assert check_atlas(page, atlas_file) == []
    assert page.requests[0].startswith("file:")


def test_search_by_keyboard(shown: Page) -> None:
    shown.press("/")
    assert shown.run("document.activeElement.id") == "search"
    shown.type("gene3")
    assert shown.run("[...document.querySelectorAll('#results [role=option]')].map((o) => o.dataset.protein)")[:3] == [
        "GENE3",
        "GENE30",
        "GENE31",
    ]
    assert shown.run("document.getElementById('search').getAttribute('aria-activedescendant')") == "result-0"
    shown.press("ArrowDown")
    shown.press("ArrowDown")
    shown.press("Enter")
    assert selected(shown) == "GENE31" and shown.run("location.hash") == "#GENE31"
    assert shown.run("document.getElementById('said').textContent").startswith("GENE31 selected")
    shown.press("Escape")  # first the search box is emptied and left, then the protein
    shown.press("Escape")
    shown.press("Escape")
    assert selected(shown) == ""


def test_unknown_gene_offers_similar_names(shown: Page) -> None:
    shown.run("document.getElementById('search').focus()")
    shown.type("GEMNE12")
    assert "No protein of this name" in shown.run("document.getElementById('results').textContent")
    assert shown.run("document.querySelector('#results [role=option]').dataset.protein") == "GENE12"
    shown.press("Enter")
    assert selected(shown) == ""  # nothing is taken for what was not asked


def test_address_and_back_button_lead_to_proteins(shown: Page) -> None:
    shown.run("location.hash = '#GENE7'")
    shown.wait("document.querySelector('.title h2')?.textContent === 'GENE7'")
    assert shown.run("document.querySelector('.near button').dataset.protein") == "GENE8"
    shown.run("document.querySelector('.near button').click()")
    assert selected(shown) == "GENE8"
    shown.run("history.back()")
    shown.wait("document.querySelector('.title h2')?.textContent === 'GENE7'")


def test_human_proteins_link_to_the_atlas(shown: Page) -> None:
    shown.run("atlas.select(5)")
    assert shown.run("document.querySelector('.link').href") == "https://www.proteinatlas.org/search/GENE5"
    assert "drawn by a simulator" in shown.run("document.querySelector('.caution').textContent")
    assert shown.run("document.getElementById('kind').textContent") == "SIMULATED cells"
    assert shown.asked_elsewhere() == []


def test_wheel_drag_and_keys_move_the_map(shown: Page) -> None:
    x, y = 600, 500
    shown.mouse("Wheel", x, y, deltaX=0, deltaY=-300)
    shown.wait("atlas.map.zoomed() > 1.5")
    shown.run("document.getElementById('marks').focus()")
    shown.press("0")
    shown.wait("Math.abs(atlas.map.zoomed() - 1) < 1e-6")
    before = shown.run("atlas.map.view.x")
    shown.mouse("Pressed", x, y, button="left", buttons=1, clickCount=1)
    shown.mouse("Moved", x + 40, y, button="left", buttons=1)
    shown.mouse("Released", x + 40, y, button="left", clickCount=1)
    assert shown.run("atlas.map.view.x") == pytest.approx(before + 40)
    assert selected(shown) == ""  # a drag is no click
    shown.press("+")
    assert shown.run("atlas.map.zoomed()") == pytest.approx(1.4)


def test_classes_are_switched_off_and_cannot_be_hit(shown: Page) -> None:
    i = shown.run("atlas.data.schemes[0].codes.findIndex((c) => c.length === 1 && c[0] === 2)")
    hit = f"(() => {{ const [x, y] = atlas.map.screen({i}); return atlas.map.hit(x, y); }})()"
    assert shown.run(hit) == i
    shown.run("document.querySelector('#classes [data-code=\"2\"]').click()")
    assert shown.run("document.querySelector('#classes [data-code=\"2\"]').getAttribute('aria-pressed')") == "false"
    assert shown.run(hit) != i
    shown.run("document.getElementById('all-on').click()")
    assert shown.run(hit) == i


def test_cells_stand_on_the_map_when_zoomed_in(shown: Page) -> None:
    shown.run("atlas.map.zoomBy(4, ...atlas.map.screen(3)); atlas.map.draw()")
    assert shown.run("atlas.map.thumbs()") > 0
    shown.run("document.getElementById('pictures').click(); atlas.map.draw()")
    assert shown.run("atlas.map.thumbs()") == 0


def test_dark_follows_the_system_and_the_button(shown: Page) -> None:
    light = shown.run("getComputedStyle(document.body).backgroundColor")
    shown.prefer("dark")
    shown.wait("document.documentElement.dataset.theme === 'dark'")
    assert shown.run("getComputedStyle(document.body).backgroundColor") != light
    shown.run("document.getElementById('theme').click()")
    assert shown.run("getComputedStyle(document.body).backgroundColor") == light


@pytest.mark.parametrize("size", [(900, 700), (390, 800)])
def test_small_windows_hold_all_of_it(shown: Page, size: tuple[int, int]) -> None:
    shown.size(*size)
    shown.run("atlas.select(2)")
    assert shown.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    shown.wait("[...document.querySelectorAll('.crops canvas')].every((c) => c.dataset.loaded === 'true')")
    shown.run("document.getElementById('legend-toggle').click()")
    assert shown.run("document.getElementById('legend').offsetHeight") > 100


@pytest.mark.parametrize("location", ["l", ""])
def test_few_proteins_without_clusters(page: Page, tmp_path: Path, location: str) -> None:
    text = made_up_atlas(tmp_path / "cells", [f"P{i}" for i in range(5)], lines=1, location=location, clusters=False)[0]
    (tmp_path / "atlas.html").write_text(text, encoding="utf-8")
    assert check_atlas(page, tmp_path / "atlas.html", 5) == []
    assert page.run("atlas.data.schemes.map((s) => s.key)") == (["location"] if location else ["cluster"])


def test_hostile_names_stay_names(page: Page, tmp_path: Path) -> None:
    (tmp_path / "atlas.html").write_text(made_up_atlas(tmp_path / "cells", HOSTILE)[0], encoding="utf-8")
    page.goto(tmp_path / "atlas.html")
    page.wait("document.documentElement.dataset.ready && atlas.map.size()[0] > 0")
    for i, name in enumerate(HOSTILE):
        page.run(f"atlas.select({i})")
        assert selected(page) == name
    page.run("const b = document.getElementById('search'); b.value = '<'; b.dispatchEvent(new Event('input'))")
    assert page.run("document.querySelectorAll('#results [role=option]').length") >= 3
    assert page.run("typeof window.pwned") == "undefined" and page.run("document.querySelectorAll('#app img, main img').length") == 0
    assert page.errors == []


# --- the checks themselves must be able to fail


def test_faults_of_a_page_are_found(page: Page, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<title>x</title><img src="missing.png"><span class="math">\\(x\\)</span><img src="http://127.0.0.1:9/x.png">'
        '<div style="width: 3000px">wide</div><script>console.error("told"); window.MathJax = {startup: {promise: 1}};'
        "nothing();</script>"
    )
    found = "\n".join(check_page(page, bad))
    for part in (
        "missing.png",
        "asks another host: http://127.0.0.1:9/x.png",
        "told",
        "nothing is not defined",
        "formula not drawn",
        "wider",
    ):
        assert part in found
    good = tmp_path / "good.html"
    good.write_text("<title>x</title><p>Nothing wrong")
    assert check_page(page, good) == []
    assert check_page(page, tmp_path / "none.html") == ["is in the table of contents but was not written"]


def test_faults_of_an_atlas_are_found(page: Page, atlas_file: Path, tmp_path: Path) -> None:
    text = atlas_file.read_text(encoding="utf-8")
    broken = tmp_path / "atlas.html"
    broken.write_text(text.replace("ui.select(i);\n}", "}"), encoding="utf-8")  # a search that chooses nothing
    assert text != broken.read_text(encoding="utf-8")
    assert any("never true" in w for w in check_atlas(page, broken, 1))


def test_no_book_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(str(tmp_path)) == 1
    assert "holds no book" in capsys.readouterr().err


@pytest.mark.slow
def test_every_page_of_the_built_book(page: Page) -> None:
    if not (HTML / "index.html").is_file():
        pytest.skip("no book in _build/html: run 'make book' first, or after it 'python -m tests.browser _build/html'")
    assert {name: wrong for name, wrong in check_book(page, HTML).items() if wrong} == {}
