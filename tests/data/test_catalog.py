"""The catalog of public sources: every source names licence and credit; example files are checked, copied whole, and not fetched twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from pci_core import recipe
from pci_core.data import catalog
from pci_core.data.download import git_blob_sha1
from pci_core.errors import DownloadError, UnknownNameError

FILES = {"LICENSE": b"terms", "example/input_images/a_ch1.tiff": b"one", "example/labeled_images/a_labeled.tiff": b"two"}


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files in place of the real ones, in a mirror."""
    base = tmp_path / "mirror" / catalog.CYCLENET.removeprefix("https://")
    for name, content in FILES.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(content)
    known = {"example-yeast": {name: (git_blob_sha1(content), len(content)) for name, content in FILES.items()}}
    monkeypatch.setattr(catalog, "_examples", lambda: known)
    monkeypatch.setenv("PCI_MIRROR", str(tmp_path / "mirror"))
    return base


def test_every_source_says_what_it_is_and_whose() -> None:
    for name, source in catalog.SOURCES.items():
        assert source.licence and source.credit and source.title and source.holds and source.address.startswith("https://"), name


def test_every_real_recipe_says_licence_and_credit() -> None:
    for name in recipe.names():
        spec = recipe.load(name)
        assert spec.simulated or (spec.licence and spec.credit), name
        assert not spec.simulated or not spec.credit, name  # ours: nobody else is to be credited


def test_example_files_are_copied_with_their_credit(mirror: Path, tmp_path: Path) -> None:
    out = catalog.get("example-yeast", tmp_path / "mine")
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    credit = found.pop("CREDIT.txt").decode()
    assert "BSD-3-Clause" in credit and catalog.CYCLENET in credit
    assert found == {"LICENSE": b"terms", "input_images/a_ch1.tiff": b"one", "labeled_images/a_labeled.tiff": b"two"}


def test_what_is_there_is_left_alone_and_a_damaged_copy_is_renewed(mirror: Path, tmp_path: Path) -> None:
    out = catalog.get("example-yeast", tmp_path / "mine")
    kept, cut = out / "input_images" / "a_ch1.tiff", out / "labeled_images" / "a_labeled.tiff"
    before = kept.stat().st_mtime_ns
    cut.write_bytes(b"tow")
    catalog.get("example-yeast", out)
    assert kept.stat().st_mtime_ns == before
    assert cut.read_bytes() == b"two"


def test_a_file_with_another_content_is_refused(mirror: Path, tmp_path: Path) -> None:
    (mirror / "LICENSE").write_bytes(b"other")
    with pytest.raises(DownloadError, match="1 failed.*LICENSE"):
        catalog.get("example-yeast", tmp_path / "mine")
    assert not (tmp_path / "mine" / "LICENSE").exists()


def test_names_and_folders_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean example-yeast"):
        catalog.get("example-yaest")
    with pytest.raises(DownloadError, match="stays in the cache"):
        catalog.get("duloc", tmp_path)


def test_the_real_registry_names_the_classes_of_the_dictionary() -> None:
    examples = catalog._examples()
    assert len(examples["example-human"]) == 82 and len(examples["example-yeast"]) == 25
    numbers = {int(Path(p).name.split("-")[0]) for p in examples["example-human"]}
    assert numbers == set(range(len(catalog.DICTIONARY_CLASSES)))
