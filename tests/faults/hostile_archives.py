"""Archives made to do harm: names that climb, links, devices, doubled names and bombs, as zip and as tar."""

from __future__ import annotations

import io
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

BOMB = 40 << 20  # bytes of one member; unpacked under limits of a few MB it shows as well as a larger one

NAMES = {
    "climbs": "../evil.txt",
    "climbs within": "a/../../evil.txt",
    "climbs at the end": "a/..",
    "absolute": "/evil.txt",
    "absolute twice": "//evil.txt",
    "drive": "C:/evil.txt",
    "drive without slash": "C:evil.txt",
    "backslash": "a\\..\\evil.txt",
    "backslash at the start": "\\evil.txt",
    "network share": "\\\\host\\share\\evil.txt",
    "other stream": "a.txt:evil",
    "dot": "a/./evil.txt",
    "empty part": "a//evil.txt",
    "line break": "a\n../evil.txt",
}


def _zip(path: Path, fill: Callable[[zipfile.ZipFile], None]) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of doubled names, which are the point here
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("fine.txt", b"fine")
            fill(archive)
    return path


def zips(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield what is wrong with each archive, and the archive."""

    def member(name: str, mode: int = stat.S_IFREG, content: bytes = b"x") -> Callable[[zipfile.ZipFile], None]:
        info = zipfile.ZipInfo("placeholder")
        info.filename = name  # the constructor would turn backslashes round and cut at a NUL
        info.external_attr = (mode | 0o777) << 16
        return lambda archive: archive.writestr(info, content)

    def several(*fills: Callable[[zipfile.ZipFile], None]) -> Callable[[zipfile.ZipFile], None]:
        return lambda archive: [fill(archive) for fill in fills] and None

    made = {what: member(name) for what, name in NAMES.items()}
    made |= {
        "link, then a file through it": several(member("link", stat.S_IFLNK, b"/tmp"), member("link/evil.txt")),
        "link to a file": member("link", stat.S_IFLNK, b"/etc/passwd"),
        "pipe": member("pipe", stat.S_IFIFO, b""),
        "device": member("device", stat.S_IFCHR, b""),
        "socket": member("socket", stat.S_IFSOCK, b""),
        "same name twice": several(member("a.txt"), member("a.txt", content=b"y")),
        "file and folder of one name": several(member("a"), member("a/b.txt")),
        "NUL in a name": member("a.txt\0../evil.txt"),
        "name too long": member("n" * 5000),
        "bomb": member("bomb.bin", content=bytes(BOMB)),
        "many small bombs": several(*(member(f"{i}.bin", content=bytes(900_000)) for i in range(10))),
        "more members than allowed": several(*(member(f"{i}", content=b"") for i in range(40))),
    }
    for i, (what, fill) in enumerate(made.items()):
        yield f"zip: {what}", _zip(folder / f"{i}.zip", fill)
    liar = _zip(folder / "liar.zip", made["bomb"])
    liar.write_bytes(liar.read_bytes().replace(BOMB.to_bytes(4, "little"), (10).to_bytes(4, "little")))
    yield "zip: bomb that says it is small", liar


def tars(folder: Path, mode: str = "w:gz") -> Iterator[tuple[str, Path]]:
    """Yield what is wrong with each archive, and the archive."""

    def member(
        name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"x", size: int | None = None
    ) -> tuple[tarfile.TarInfo, bytes]:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        content = content if kind == tarfile.REGTYPE else b""
        info.size = len(content) if size is None else size
        return info, content

    made = {what: [member(name)] for what, name in NAMES.items()}
    made |= {
        "link, then a file through it": [member("link", tarfile.SYMTYPE, "/tmp"), member("link/evil.txt")],
        "link to a file": [member("link", tarfile.SYMTYPE, "/etc/passwd")],
        "link that climbs": [member("link", tarfile.SYMTYPE, "../../evil")],
        "hard link": [member("hard", tarfile.LNKTYPE, "/etc/passwd")],
        "hard link to a member": [member("a.txt"), member("hard", tarfile.LNKTYPE, "a.txt")],
        "pipe": [member("pipe", tarfile.FIFOTYPE)],
        "character device": [member("device", tarfile.CHRTYPE)],
        "block device": [member("device", tarfile.BLKTYPE)],
        "same name twice": [member("a.txt"), member("a.txt", content=b"y")],
        "same name, once with ./": [member("a.txt"), member("./a.txt", content=b"y")],
        "file and folder of one name": [member("a"), member("a/b.txt")],
        "name too long": [member("n" * 5000)],
        "bomb": [member("bomb.bin", content=bytes(BOMB))],
        "many small bombs": [member(f"{i}.bin", content=bytes(900_000)) for i in range(10)],
        "more members than allowed": [member(f"{i}", content=b"") for i in range(40)],
    }
    for i, (what, members) in enumerate(made.items()):
        path = folder / f"{i}.tar"
        with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
            archive.addfile(*_with_stream(member("fine.txt", content=b"fine")))
            for entry in members:
                archive.addfile(*_with_stream(entry))
        yield f"tar: {what}", path


def _with_stream(entry: tuple[tarfile.TarInfo, bytes]) -> tuple[tarfile.TarInfo, io.BytesIO]:
    return entry[0], io.BytesIO(entry[1])
