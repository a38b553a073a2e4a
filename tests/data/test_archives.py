"""Hostile, damaged and plain zip and tar archives: unpacked whole or not at all."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pci_core.data.archives import Limits, open_zip, unpack, unpack_tar, unpack_zip
from pci_core.errors import DownloadError

NOISE = b"".join(hashlib.sha256(bytes([i])).digest() for i in range(200))


def files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()]


def make_zip(path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of double names, which are the point here
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members:
                archive.writestr(name, content)
    return path


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def test_unpack(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [("top/", b""), ("top/a.txt", b"a"), ("top/deep/b.txt", b"b")])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    assert unpack_zip(archive, tmp_path / "out") == [tmp_path / "out/top/a.txt", tmp_path / "out/top/deep/b.txt"]
    assert sorted(p.name for p in files(tmp_path / "out")) == ["a.txt", "b.txt"]
    assert unpack_zip(archive, tmp_path / "one", lambda name: name.endswith("b.txt")) == [tmp_path / "one/top/deep/b.txt"]


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([("../evil.txt", b"x")], "leave the folder"),
        ([("a/../../evil.txt", b"x")], "leave the folder"),
        ([("/evil.txt", b"x")], "leave the folder"),
        ([("C:/evil.txt", b"x")], "leave the folder"),
        ([("a\\..\\evil.txt", b"x")], "leave the folder"),
        ([(link("link"), b"/etc"), ("link/evil.txt", b"x")], "link"),
        ([("a.txt", b"1"), ("a.txt", b"2")], "occurs twice"),
        ([("a", b"1"), ("a/b.txt", b"2")], "collides"),
        ([(f"{i}.txt", b"") for i in range(30)], "30 members"),
        ([("bomb.bin", bytes(3_000_000))], "more than is allowed"),
        ([(f"{i}.bin", bytes(900_000)) for i in range(5)], "more than is allowed"),
    ],
)  # fmt: skip
def test_hostile_archives(members: list[tuple[str | zipfile.ZipInfo, bytes]], says: str, tmp_path: Path) -> None:
    folder = tmp_path / "box"
    folder.mkdir()
    archive = make_zip(folder / "a.zip", [("fine.txt", b"fine"), *members])
    with pytest.raises(DownloadError, match=says if says != "30 members" else "31 members"):
        unpack_zip(archive, folder / "out", limits=Limits(members=20, member_bytes=1_000_000, total_bytes=4_000_000))
    assert files(tmp_path) == [archive]  # nothing outside, nothing half-made


def test_bomb_that_lies_about_its_size(tmp_path: Path) -> None:
    """The header says 10 bytes; the limits must hold for what is read, whatever zipfile makes of it."""
    archive = make_zip(tmp_path / "a.zip", [("bomb.bin", bytes(3_000_000))])
    content = archive.read_bytes().replace((3_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    archive.write_bytes(content)
    with pytest.raises(DownloadError, match="damaged|more than is allowed"):
        unpack_zip(archive, tmp_path / "out", limits=Limits(member_bytes=1_000_000))
    assert files(tmp_path) == [archive]


def _truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flip(content: bytes) -> bytes:
    return content[:60] + bytes([content[60] ^ 255]) + content[61:]


@pytest.mark.parametrize("damage", [_truncate, _flip, lambda content: b"<html>no archive</html>", lambda content: b""])
def test_damaged_archives(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [("a.bin", NOISE)])
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(DownloadError, match="a.zip"):
        unpack_zip(archive, tmp_path / "out")
    assert files(tmp_path) == [archive]


def test_archive_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="not there"), open_zip(tmp_path / "none.zip"):
        pass


def test_encrypted_member(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [("a.txt", b"secret")])
    content = bytearray(archive.read_bytes())
    content[6] |= 1  # the local header's and the central directory's flag of encryption
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(bytes(content))
    assert zipfile.ZipFile(io.BytesIO(bytes(content))).infolist()[0].flag_bits & 1
    with pytest.raises(DownloadError, match="a.txt"):
        unpack_zip(archive, tmp_path / "out")


# --- tar

PACKERS: dict[str, Callable[[bytes], bytes]] = {"tar": bytes, "gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}


def member(name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in more.items():
        setattr(info, key, value)
    return info


def tar_bytes(members: list[tuple[str | tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in members:
            info = member(name) if isinstance(name, str) else name
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_unpack_tar(packer: str, form: int, tmp_path: Path) -> None:
    long = "/".join(["deep" * 10] * 5 + ["c.bin"])  # over 100 characters: each form says it in its own way
    names: list[tuple[str | tarfile.TarInfo, bytes]] = [
        (member("./", tarfile.DIRTYPE), b""), (member("./top/", tarfile.DIRTYPE), b""),
        ("./top/a.txt", b"a"), ("top/b.txt", b""), (long, NOISE)
    ]  # fmt: skip
    archive = tmp_path / "a.bin"  # told apart by its content
    archive.write_bytes(PACKERS[packer](tar_bytes(names, form)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    assert unpack(archive, tmp_path / "out") == [tmp_path / "out/top/a.txt", tmp_path / "out/top/b.txt", tmp_path / "out" / long]
    assert (tmp_path / "out" / long).read_bytes() == NOISE and len(files(tmp_path / "out")) == 3
    assert unpack_tar(archive, tmp_path / "one", lambda name: name == "top/a.txt") == [tmp_path / "one/top/a.txt"]
    assert len(files(tmp_path / "one")) == 1


def test_unpack_tells_zip_by_its_content(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.tar.gz", [("a.txt", b"a")])
    assert unpack(archive, tmp_path / "out") == [tmp_path / "out/a.txt"]
    inside = tmp_path / "b.zip"  # a tar whose last member is a zip that is not compressed once more
    inside.write_bytes(tar_bytes([("a.zip", archive.read_bytes())]))
    assert unpack(inside, tmp_path / "out") == [tmp_path / "out/a.zip"]
    (tmp_path / "c").write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(DownloadError, match="no tar archive"):
        unpack(tmp_path / "c", tmp_path / "out")
    with pytest.raises(DownloadError, match="not there"):
        unpack(tmp_path / "d", tmp_path / "out")
    assert [p.name for p in files(tmp_path / "out")] == ["a.zip"]


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([("../evil.txt", b"x")], "leave the folder"),
        ([("a/../../evil.txt", b"x")], "leave the folder"),
        ([("/evil.txt", b"x")], "leave the folder"),
        ([(".//../evil.txt", b"x")], "leave the folder"),
        ([("C:/evil.txt", b"x")], "leave the folder"),
        ([("a\\..\\evil.txt", b"x")], "leave the folder"),
        ([("bell\a.txt", b"x")], "leave the folder"),
        ([(member("link", tarfile.SYMTYPE, linkname="/etc"), b""), ("link/evil.txt", b"x")], "is a link"),
        ([(member("hard", tarfile.LNKTYPE, linkname="fine.txt"), b"")], "is a link"),
        ([(member("pipe", tarfile.FIFOTYPE), b"")], "is a link"),
        ([(member("disk", tarfile.BLKTYPE, devmajor=8), b"")], "is a link"),
        ([("a.txt", b"1"), ("./a.txt", b"2")], "occurs twice"),
        ([("a", b"1"), ("a/b.txt", b"2")], "collides"),
        ([("n" * 300, b"1")], "too long"),
        ([(f"{i}.txt", b"") for i in range(30)], "more than the 20 members"),
        ([("bomb.bin", bytes(3_000_000))], "more than is allowed"),
        ([(f"{i}.bin", bytes(900_000)) for i in range(5)], "more than is allowed"),
    ],
)  # fmt: skip
def test_hostile_tars(members: list[tuple[str | tarfile.TarInfo, bytes]], says: str, tmp_path: Path) -> None:
    folder = tmp_path / "box"
    folder.mkdir()
    archive, limits = folder / "a.tgz", Limits(members=20, member_bytes=1_000_000, total_bytes=4_000_000)
    archive.write_bytes(gzip.compress(tar_bytes([("fine.txt", b"fine"), *members])))
    with pytest.raises(DownloadError, match=says):
        unpack(archive, folder / "out", limits=limits)
    if says not in ("collides", "too long"):  # the archive is no better where the evil member is not wanted
        with pytest.raises(DownloadError, match=says):
            unpack(archive, folder / "out", lambda name: name == "fine.txt", limits=limits)
    assert files(tmp_path) == [archive]  # nothing outside, nothing half-made


def test_tar_headers_are_bounded(tmp_path: Path) -> None:
    """A header that claims a name of gigabytes, or that never ends, takes neither memory nor time."""
    archive = tmp_path / "a.tar"
    claim = member("name", tarfile.GNUTYPE_LONGNAME, size=3 << 30).tobuf(tarfile.GNU_FORMAT)
    archive.write_bytes(claim + bytes(1 << 20))
    with pytest.raises(DownloadError, match="header asks for"):
        unpack(archive, tmp_path / "out")
    archive.write_bytes((member("name", tarfile.GNUTYPE_LONGNAME, size=512).tobuf(tarfile.GNU_FORMAT) + b"n".ljust(512, b"\0")) * 3000)
    with pytest.raises(DownloadError, match="damaged"):
        unpack(archive, tmp_path / "out")
    archive.write_bytes(tar_bytes([("a.txt", b"a")]) + bytes(64 << 20))
    with pytest.raises(DownloadError, match="damaged"):
        unpack(archive, tmp_path / "out")
    assert files(tmp_path) == [archive]


def _flip_header(content: bytes) -> bytes:
    at = content.index(b"b.bin")
    return content[:at] + b"X" + content[at + 1 :]


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_cut_tars(packer: str, share: float, tmp_path: Path) -> None:
    content = PACKERS[packer](tar_bytes([("a.bin", NOISE), ("b.bin", NOISE[::-1]), ("c.bin", NOISE[1:])]))
    archive = tmp_path / "a"
    archive.write_bytes(content[: int(share * (len(content) if packer != "tar" else 21_000))])  # a plain one ends in many zeros
    with pytest.raises(DownloadError, match="cut short|damaged"):
        unpack_tar(archive, tmp_path / "out")
    assert files(tmp_path) == [archive]


def test_damaged_tars(tmp_path: Path) -> None:
    whole = tar_bytes([("a.bin", NOISE), ("b.bin", NOISE)])
    last = whole.index(b"b.bin")
    wrong = {
        "a damaged second header": _flip_header(whole),
        "cut before the second header": whole[:last],
        "cut behind the last file": whole[: last + 512 + 6656],
        "more behind the end": whole + b"more",
        "wrong check sum of the compression": gzip.compress(whole)[:-8] + bytes(8),
    }
    archive = tmp_path / "a"
    for what, content in wrong.items():
        archive.write_bytes(content)
        with pytest.raises(DownloadError, match="cut short|damaged"):
            unpack_tar(archive, tmp_path / "out")
            pytest.fail(what)
    assert files(tmp_path) == [archive]
