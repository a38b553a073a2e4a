"""Builds HPA entries from the events of an XML parser. Used by `hpa_xml`, which opens the file and tells of faults."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast
from xml.sax import ContentHandler

from pci_core.data.hpa_entry import HUMAN, Antibody, Entry, Image, Location, Tally, variation
from pci_core.data.hpa_locations import canonical

_LONGEST_TEXT = 10_000  # characters of one value that is kept
_MOST_PARTS = 500_000  # elements of one entry that are followed; the real one of CCNB1 has some 300
_DEEPEST = 200
_MOST_NAMES = 2_000  # of elements and attributes; the parser keeps each, and HPA has about 100

# Which elements are followed, by the element they stand in; anything else is passed over with all it holds.
_FOLLOWED: dict[str, frozenset[str]] = {
    parent: frozenset(children.split())
    for parent, children in {
        "proteinAtlas": "entry",
        "entry": "name synonym identifier cellExpression antibody",
        "antibody": "cellExpression",
        "cellExpression": "verification data subAssay customAssay",
        "subAssay": "verification data customAssay",
        "customAssay": "cellLine cellcycledependent imageGroup",
        "data": "cellLine location antibodyData assayImage image",
        "antibodyData": "location",
        "assayImage": "image",
        "imageGroup": "channels image",
        "channels": "channel",
        "image": "channel imageUrl",
    }.items()
}
_TEXT = frozenset(["name", "synonym", "verification", "cellLine", "location", "channel", "imageUrl"])
_NONE: frozenset[str] = frozenset()
_ENSEMBL = re.compile(r"ENS[A-Z]*\d{6,}")  # also what makes it safe as a part of file names
_ANTIBODY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class FaultError(Exception):
    """Something in the file that cannot be: raised inside the parser, told as a `DatasetError` by `hpa_xml.read_entries`."""


class EntryHandler(ContentHandler):
    """Builds entries from the parser's events; `done` holds those that are complete."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self.tally, self.done, self.events = tally, cast(list[Entry], []), 0
        self._stack: list[str] = []
        self._names: set[str] = set()
        self._passing = 0  # how deep we are inside an element that is passed over
        self._text: list[str] | None = None
        self._length = self._parts = 0
        self._attributes: dict[str, str] = {}
        self._entry: dict[str, Any] = {}
        self._antibody: dict[str, Any] | None = None
        self._kind = HUMAN  # of the sub-assay
        self._data: dict[str, Any] = {}  # what holds for all images of one cell line
        self._shared: list[tuple[str, str]] = []  # channels of a group of images
        self._image: dict[str, Any] = {}

    def line(self) -> int:
        """Line of the file that the parser is at."""
        return cast(int, self._locator.getLineNumber())  # type: ignore[attr-defined]  # set by the parser

    def _fault(self, what: str) -> FaultError:
        return FaultError(f"line {self.line()}: {what}")

    # -- events ---------------------------------------------------------------------------------

    def startElement(self, name: str, attrs: Any) -> None:
        self.events += 1
        self._names.update(attrs.getNames(), (name,))
        if len(self._names) > _MOST_NAMES:
            raise self._fault(f"more than {_MOST_NAMES} names of elements and attributes. This is no file of HPA")
        if self._passing:
            self._passing += 1
            if self._passing > _DEEPEST:
                raise self._fault(f"elements nested more than {_DEEPEST} deep. This is no file of HPA")
            return
        if not self._stack:
            if name != "proteinAtlas":
                raise self._fault(f"the root element is <{name[:80]}>, expected <proteinAtlas>. Give an entry or the atlas as XML from HPA")
        elif name not in _FOLLOWED.get(self._stack[-1], _NONE):
            self._passing = 1
            return
        self._attributes = {k.casefold(): v for k, v in attrs.items()}
        if any(len(v) > _LONGEST_TEXT for v in self._attributes.values()):
            raise self._fault(f"an attribute of <{name}> is longer than {_LONGEST_TEXT} characters. This is no file of HPA")
        self._text, self._length = ([], 0) if name in _TEXT else (None, 0)
        if self._begin(name) is False:
            self._passing, self._text = 1, None
            return
        self._stack.append(name)

    def characters(self, content: str) -> None:  # no event: text without end is not waited for, wherever it stands
        if self._text is not None and not self._passing:
            self._length += len(content)
            if self._length > _LONGEST_TEXT:
                raise self._fault(f"the text of <{self._stack[-1]}> is longer than {_LONGEST_TEXT} characters. This is no file of HPA")
            self._text.append(content)

    def endElement(self, name: str) -> None:
        self.events += 1
        if self._passing:
            self._passing -= 1
            return
        self._stack.pop()
        text = " ".join("".join(self._text).split()) if self._text is not None else ""
        self._text = None
        self._end(name, text)

    # -- what they mean -------------------------------------------------------------------------

    def _begin(self, name: str) -> bool:
        """Take note of an element's attributes; False passes it over."""
        get = self._attributes.get
        if name == "entry":
            self._entry = {"line": self.line(), "release": get("version", ""), "url": get("url", ""), "name": "", "ensembl": ""}
            self._entry |= {"synonyms": [], "reliability": "", "locations": [], "antibodies": [], "cell_cycle": False}
            self._parts, self._antibody = 0, None
        elif name == "identifier" and get("db", "Ensembl") == "Ensembl":
            self._entry["ensembl"] = re.sub(r"\.\d+$", "", get("id", ""))
        elif name == "antibody":
            if not _ANTIBODY.fullmatch(get("id", "")):
                raise self._fault(
                    f"an antibody without a usable id (found {get('id', '')[:80]!r}). The file is damaged or of an unknown form"
                )
            self._antibody = {"id": get("id"), "reliability": {}, "images": [], "seen": set()}
        elif name == "cellExpression":
            return "IF" in get("technology", "ICC/IF").upper()
        elif name == "subAssay":
            kind, subtype = get("type", "unknown").casefold(), get("subtype", "").casefold()
            self._kind = kind if not subtype or subtype.startswith("human cell") else f"{kind} ({subtype})"
        elif name in ("data", "customAssay"):
            self._data = {"cell_line": "", "locations": [], "images": []}
        elif name == "imageGroup":
            self._shared = []
        elif name == "image":
            self._image = {"url": "", "channels": [], "magnification": get("magnification", "")}
            return get("imagetype", "").casefold() != "selected"  # the one shown on the gene's page, smaller and given again
        elif name == "cellcycledependent":
            self._entry["cell_cycle"] |= _true(get("cellcycle"))
        return True

    def _end(self, name: str, text: str) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise self._fault(f"an entry with more than {_MOST_PARTS} values. This is no file of HPA")
        if name == "name":
            self._entry["name"] = text
        elif name == "synonym" and text:
            self._entry["synonyms"].append(text)
        elif name == "verification":
            self._verification(text.capitalize())
        elif name == "cellLine":
            self._data["cell_line"] = text
        elif name == "location" and text:
            self._data["locations"].append(self._location(text))
        elif name == "channel":
            channels = self._image["channels"] if self._stack[-1] == "image" else self._shared
            channels.append((self._attributes.get("color", ""), text))
        elif name == "imageUrl":
            self._image["url"] = self._image["url"] or text
        elif name == "image":
            if self._stack[-1] == "imageGroup":
                self._image["channels"] = self._image["channels"] or self._shared
            self._data["images"].append(self._image)
        elif name in ("data", "customAssay"):
            self._finish_data("custom" if name == "customAssay" else self._kind if self._stack[-1] == "subAssay" else HUMAN)
        elif name == "antibody":
            self._finish_antibody()
        elif name == "entry":
            self._finish_entry()

    def _verification(self, grade: str) -> None:
        if self._antibody is None:
            self._entry["reliability"] = self._entry["reliability"] or grade
        else:
            self._antibody["reliability"].setdefault(self._kind if self._stack[-1] == "subAssay" else "", grade)

    def _location(self, text: str) -> Location:
        get = self._attributes.get
        return Location(
            term=canonical(text).replace(";", ","),  # terms are joined by ; in tables
            go=get("goid", ""),
            status=get("status", "").casefold(),
            intensity=_true(get("singlecellvariationintensity")),
            spatial=_true(get("singlecellvariationspatial")),
        )

    def _finish_data(self, kind: str) -> None:
        data, antibody = self._data, self._antibody
        self._data = {}
        if antibody is None:
            self._entry["locations"] += data["locations"]
            return
        locations = _merged(data["locations"])
        for image in data["images"]:
            url = image["url"]
            if not url.startswith(("http://", "https://")) or " " in url:
                self.tally.images_without_address += 1
            elif (kind, url) in antibody["seen"]:
                self.tally.images_twice += 1
            else:
                antibody["seen"].add((kind, url))
                antibody["images"].append(Image(url, data["cell_line"], locations, kind, tuple(image["channels"]), image["magnification"]))

    def _finish_antibody(self) -> None:
        antibody = cast(dict[str, Any], self._antibody)
        self._antibody, self._kind = None, HUMAN
        locations = _merged(x for i in antibody["images"] if i.assay == HUMAN for x in i.locations)
        grades = antibody["reliability"]
        grade = grades.get(HUMAN) or grades.get("") or ""
        self._entry["antibodies"].append(Antibody(antibody["id"], grade, locations, *variation(locations), tuple(antibody["images"])))

    def _finish_entry(self) -> None:
        raw = self._entry
        for key, what in (("ensembl", "Ensembl id"), ("name", "name")):
            if not raw[key] or (key == "ensembl" and not _ENSEMBL.fullmatch(raw[key])):
                found = f" (found {raw[key][:80]!r})" if raw[key] else ""
                raise self._fault(
                    f"the entry that begins in line {raw['line']} has no {what}{found}. The file is damaged or of an unknown form"
                )
        locations, antibodies = _merged(raw["locations"]), tuple(raw["antibodies"])
        intensity, spatial = variation([*locations, *(x for a in antibodies for x in a.locations)])
        host = re.match(r"https?://v(\d+(?:\.\d+)?)\.", raw["url"])
        entry = Entry(
            protein=raw["name"],
            ensembl=raw["ensembl"],
            synonyms=tuple(dict.fromkeys(raw["synonyms"])),
            release=raw["release"] or (host[1] if host else ""),
            reliability=raw["reliability"],
            locations=locations,
            variation_intensity=intensity,
            variation_spatial=spatial,
            antibodies=antibodies,
            cell_cycle=raw["cell_cycle"],
            url=raw["url"],
        )
        self.done.append(entry)


def _true(value: str | None) -> bool:
    return value is not None and value.strip().casefold() in ("true", "1", "yes")


def _merged(locations: Iterable[Location]) -> tuple[Location, ...]:
    """Name each location once, varying where any of its mentions does."""
    merged: dict[str, Location] = {}
    for x in locations:
        y = merged.get(x.term, x)
        merged[x.term] = Location(x.term, y.go or x.go, y.status or x.status, x.intensity or y.intensity, x.spatial or y.spatial)
    return tuple(merged.values())
