"""Forms of the atlas' image addresses, releases and licences."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pci_core.data.hpa_addresses import ImageAddress, parse_image_address, release, same_image, secure, variants
from pci_core.errors import DownloadError

V18 = release("18")
BRG = ("blue", "red", "green")

FORMS = {
    "http://v18.proteinatlas.org/images/115/672_E2_1_blue_red_green.jpg":
        ImageAddress("v18.proteinatlas.org", "115", "672", "E2", "1", "", BRG),
    "https://images.proteinatlas.org/38541/634_G11_3_blue_red_green.jpg":
        ImageAddress("images.proteinatlas.org", "38541", "634", "G11", "3", "", BRG),
    "http://images.proteinatlas.org/15021/1736_F10_19_cr5805e721b05c3_blue_red_green.jpg":
        ImageAddress("images.proteinatlas.org", "15021", "1736", "F10", "19", "cr5805e721b05c3", BRG),
    "https://images.proteinatlas.org/67042/1237_F6_1_red_green.jpg":
        ImageAddress("images.proteinatlas.org", "67042", "1237", "F6", "1", "", ("red", "green")),
    "http://v18.proteinatlas.org/images/30741/200_382_1_blue_green_red_yellow.jpg":
        ImageAddress("v18.proteinatlas.org", "30741", "200", "382", "1", "", ("blue", "green", "red", "yellow")),
    "http://v18.proteinatlas.org/images/30741/si28_H2_13_blue_red_green.jpg":
        ImageAddress("v18.proteinatlas.org", "30741", "si28", "H2", "13", "", BRG),
    "http://v18.proteinatlas.org/images/4109/24_H11_1_yellow.jpg":
        ImageAddress("v18.proteinatlas.org", "4109", "24", "H11", "1", "", ("yellow",)),
}  # fmt: skip


@pytest.mark.parametrize("url", FORMS)
def test_every_known_form_is_taken_apart(url: str) -> None:
    assert parse_image_address(url) == FORMS[url]


@pytest.mark.parametrize(
    "url",
    [
        "http://v18.proteinatlas.org/images/3804/10580_B_8_5.jpg",  # a tissue section
        "http://v18.proteinatlas.org/images/115/if_selected.jpg",
        "http://v18.proteinatlas.org/images/61448/1319_C10_2_selected.jpg",
        "https://images.proteinatlas.org/115/../../1_A1_1_blue_red_green.jpg",
        "https://images.proteinatlas.org/..%2F/1_A1_1_blue_red_green.jpg",
        "https://images.proteinatlas.org/115/1_A1_1_blue_red_green.jpg?x=1",
        "https://images.proteinatlas.org/115/1_A1_1_blue_blue_green.jpg",
        "file:///images/115/1_A1_1_blue_red_green.jpg",
        "images/115/1_A1_1_blue_red_green.jpg",
        "https://images.proteinatlas.org/115/1_A1_1_blue_red_green.jpg\n.sh",
        "",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(DownloadError, match="form|twice"):
        parse_image_address(url)


def test_file_and_field_are_the_same_for_all_forms() -> None:
    a = parse_image_address("http://v18.proteinatlas.org/images/15021/1736_F10_19_blue_red_green.jpg")
    b = parse_image_address("https://images.proteinatlas.org/15021/1736_F10_19_cr58_blue_red_green_yellow.jpg")
    assert a.file == b.file == "15021/1736_F10_19_blue_red_green.jpg"
    assert a.field == b.field == "15021_1736_F10_19"
    assert parse_image_address("https://images.proteinatlas.org/00115/1_A1_1_blue_red_green.jpg").antibody_number == "115"


def test_same_image() -> None:
    a = "http://v18.proteinatlas.org/images/15021/1736_F10_19_blue_red_green.jpg"
    assert same_image(a, "https://images.proteinatlas.org/15021/1736_F10_19_cr5805e721b05c3_blue_red_green.jpg")
    assert not same_image(a, "https://images.proteinatlas.org/15021/1736_F10_1_blue_red_green.jpg")
    assert not same_image(a, "https://images.proteinatlas.org/15022/1736_F10_19_blue_red_green.jpg")
    assert not same_image(a, "no address")


def test_what_is_lacking() -> None:
    assert parse_image_address("https://images.proteinatlas.org/1/1_A1_1_red_green.jpg").lacks == ["nucleus"]
    assert parse_image_address("https://images.proteinatlas.org/1/1_A1_1_blue_green.jpg").lacks == ["microtubules"]
    assert parse_image_address("https://images.proteinatlas.org/1/1_A1_1_blue_red_green_yellow.jpg").lacks == []


def test_variants_in_a_fixed_order() -> None:
    url = "http://v18.proteinatlas.org/images/15021/1736_F10_19_cr58_blue_red_green.jpg"
    assert variants(url, V18) == [
        "https://v18.proteinatlas.org/images/15021/1736_F10_19_cr58_blue_red_green.jpg",
        "https://images.proteinatlas.org/15021/1736_F10_19_cr58_blue_red_green.jpg",
        "https://v18.proteinatlas.org/images/15021/1736_F10_19_blue_red_green.jpg",
        "https://images.proteinatlas.org/15021/1736_F10_19_blue_red_green.jpg",
    ]


def test_variants_take_the_newer_entry_and_the_composite_of_three() -> None:
    old = "http://v18.proteinatlas.org/images/15021/1736_F10_19_blue_red_green_yellow.jpg"
    new = "https://images.proteinatlas.org/15021/1736_F10_19_cr58_blue_red_green.jpg"
    others = ["https://images.proteinatlas.org/15021/1736_F10_20_blue_red_green.jpg", "broken", new]
    found = variants(old, V18, others)
    assert found[-1] == new and len(found) == 3
    assert all(u.endswith("_blue_red_green.jpg") for u in found)  # yellow would be mixed into two channels
    assert variants(old, release("newest")) == ["https://images.proteinatlas.org/15021/1736_F10_19_blue_red_green.jpg"]


def test_variants_never_leave_the_atlas() -> None:
    found = variants("http://proteinatlas.org.example.com/images/1/1_A1_1_blue_red_green.jpg", V18)
    assert found and all(V18.trusts(u) for u in found)
    assert not V18.trusts("https://notproteinatlas.org/1/1_A1_1_blue_red_green.jpg")
    assert not V18.trusts("ftp://images.proteinatlas.org/1")
    assert not V18.trusts("https://images.proteinatlas.org@example.com/1")


def test_secure_only_where_it_is_known_to_work() -> None:
    assert secure("http://v18.proteinatlas.org/a") == "https://v18.proteinatlas.org/a"
    assert secure("http://127.0.0.1:8000/a") == "http://127.0.0.1:8000/a"


def test_releases() -> None:
    assert release("v18") == V18 == release(" 18 ")
    assert V18.entry("ENSG00000134057") == "https://v18.proteinatlas.org/ENSG00000134057.xml"
    assert V18.locations.startswith("https://v18.proteinatlas.org/download/")
    assert release("16.1").site == "https://v16.1.proteinatlas.org"
    assert release("Newest").site == "https://www.proteinatlas.org"
    for wrong in ("", "latest", "18.proteinatlas.org", "1000", "v18/../x"):
        with pytest.raises(DownloadError, match="newest"):
            release(wrong)


def test_licences() -> None:
    assert "3.0" in V18.licence and "ShareAlike" in V18.licence
    assert "4.0" in release("newest").licence and "ShareAlike" in release("newest").licence
    assert "NonCommercial" in release("15").licence


def test_all_addresses_of_the_real_entry(test_data: Path) -> None:
    text = (test_data / "mirror/v18.proteinatlas.org/ENSG00000134057.xml").read_text(encoding="utf-8")
    urls = re.findall(r"<imageUrl>([^<]*(?:blue|red|green)[^<]*\.jpg)</imageUrl>", text)
    addresses = [parse_image_address(u) for u in urls]
    assert len(urls) == 32  # counted with grep in the file
    assert sum(not a.lacks for a in addresses) == 32 and sum("yellow" in a.colours for a in addresses) == 2
    assert {a.antibody_number for a in addresses} == {"115", "30741", "61448"}
