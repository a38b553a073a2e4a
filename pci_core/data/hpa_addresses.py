"""Addresses of the Human Protein Atlas (HPA): releases, their files and licences, and the forms that an image's address takes.

Seen forms, all of them the same field of view or another one of the same kind::

    http://v18.proteinatlas.org/images/115/672_E2_1_blue_red_green.jpg            release 18, as its entries name it
    https://images.proteinatlas.org/115/672_E2_1_blue_red_green.jpg               later releases: one host for all of them
    http://images.proteinatlas.org/15021/1736_F10_19_cr5805e721b05c3_blue_red_green.jpg   with an infix
    https://images.proteinatlas.org/67042/1237_F6_1_red_green.jpg                 no nucleus
    http://v18.proteinatlas.org/images/30741/200_382_1_blue_green_red_yellow.jpg  with the endoplasmic reticulum (yellow)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from pci_core.data.addresses import why_not
from pci_core.errors import DownloadError

NEWEST = "newest"
CREDIT = "Human Protein Atlas, proteinatlas.org"
COLOURS = {"blue": "nucleus", "red": "microtubules", "green": "protein", "yellow": "endoplasmic reticulum"}
COMPOSITE = ("blue", "red", "green")  # what the recipe reads, in the order of the file's name

_NAME = re.compile(
    r"(?P<plate>[A-Za-z]{0,6}\d{1,7})_(?P<well>[A-Za-z]{0,2}\d{1,4})_(?P<number>\d{1,5})(?:_(?P<infix>cr[0-9A-Za-z]{1,40}))?"
    r"_(?P<colours>(?:blue|red|green|yellow)(?:_(?:blue|red|green|yellow)){0,3})\.jpg"
)
_RELEASE = re.compile(r"v?(\d{1,2}(?:\.\d)?)")


@dataclass(frozen=True)
class Release:
    """A release of the atlas and where its files are.

    Attributes
    ----------
    name : str
        ``"18"``, or ``"newest"`` for what the atlas shows today.
    site : str
        Start of the addresses of entries and tables, no slash at its end.
    images : str
        The same of the images that are kept for all releases.
    """

    name: str
    site: str
    images: str = "https://images.proteinatlas.org"

    @property
    def locations(self) -> str:
        """Address of the table of locations: Ensembl id and name of every gene that was looked at in cells."""
        return f"{self.site}/download/subcellular_location.tsv.zip"

    @property
    def whole_atlas(self) -> str:
        """Address of all entries in one file."""
        return f"{self.site}/download/proteinatlas.xml.gz"

    @property
    def licence_page(self) -> str:
        """Address of the page that counts, whatever `licence` says."""
        return f"{self.site}/about/licence"

    @property
    def licence(self) -> str:
        """Licence of the images.

        The licence changed between releases: NonCommercial-NoDerivatives on the page of release 15, ShareAlike 3.0
        for the releases in between, ShareAlike 4.0 for release 25. `licence_page` is to be read before images are passed on.
        """
        if self.name == NEWEST or float(self.name) >= 24:
            return "Creative Commons Attribution-ShareAlike 4.0 International (CC BY-SA 4.0)"
        if float(self.name) < 16:
            return "Creative Commons Attribution-NonCommercial-NoDerivatives 4.0 International (CC BY-NC-ND 4.0)"
        return "Creative Commons Attribution-ShareAlike 3.0 (CC BY-SA 3.0)"

    def entry(self, ensembl: str) -> str:
        """Return the address of one gene's entry as XML."""
        return f"{self.site}/{ensembl}.xml"

    def trusts(self, url: str) -> bool:
        """Whether an address belongs to the atlas; those in an entry are not followed anywhere else."""
        if not why_not(url) and _of_the_atlas(urlsplit(url).netloc.lower()):
            return True
        own = ["{0.scheme}://{0.netloc}/".format(urlsplit(u)) for u in (self.site, self.images)]  # that one alone, port and all
        return url.isprintable() and url.startswith(tuple(own))


def _of_the_atlas(host: str) -> bool:
    return host == "proteinatlas.org" or host.endswith(".proteinatlas.org")


def release(name: str) -> Release:
    """Return a release by its number (``"18"``, ``"v18"``, ``"16.1"``) or ``"newest"``.

    Raises
    ------
    DownloadError
        It is no number of a release.
    """
    text = name.strip().lower()
    if text == NEWEST:
        return Release(NEWEST, "https://www.proteinatlas.org")
    match = _RELEASE.fullmatch(text)
    if not match:
        raise DownloadError(f"'{name}' is no release of the Human Protein Atlas. Give a number such as 18, or 'newest'.")
    return Release(match[1], f"https://v{match[1]}.proteinatlas.org")


@dataclass(frozen=True)
class ImageAddress:
    """What an address of an image says: antibody number (HPA000115 is 115), plate, well, number of the field, colours."""

    host: str
    antibody_number: str
    plate: str
    well: str
    number: str
    infix: str
    colours: tuple[str, ...]

    @property
    def field(self) -> str:
        """Name of the field of view, the same in every release: ``<antibody>_<plate>_<well>_<number>``."""
        return f"{self.antibody_number}_{self.plate}_{self.well}_{self.number}"

    @property
    def file(self) -> str:
        """Path of the composite in a folder of images: ``<antibody>/<plate>_<well>_<number>_blue_red_green.jpg``."""
        return f"{self.antibody_number}/{self._name('', COMPOSITE)}"

    @property
    def lacks(self) -> list[str]:
        """What is not in it of nucleus, microtubules and protein."""
        return [COLOURS[c] for c in COMPOSITE if c not in self.colours]

    def _name(self, infix: str, colours: Iterable[str]) -> str:
        return "_".join([self.plate, self.well, self.number, *([infix] if infix else []), *colours]) + ".jpg"

    def addresses(self, release: Release) -> list[str]:
        """Return the forms of its composite's address on the hosts that keep it, without repeats, in a fixed order."""
        out = []
        for infix in dict.fromkeys([self.infix, ""]):
            name = self._name(infix, COMPOSITE)
            hosts = [f"{release.site}/images", release.images] if release.name != NEWEST else [release.images]
            out += [f"{host}/{self.antibody_number}/{name}" for host in hosts]
        return out


def parse_image_address(url: str) -> ImageAddress:
    """Take the address of an image apart.

    Parameters
    ----------
    url : str
        ``http`` or ``https``, any host; no query.

    Returns
    -------
    ImageAddress
        Every part is made of letters and digits only, so that it can stand in a path.

    Raises
    ------
    DownloadError
        The address is of another form, e.g. that of a tissue section.
    """
    parts = urlsplit(url.strip())
    segments = parts.path.strip("/").split("/")
    match = _NAME.fullmatch(segments[-1]) if len(segments) in (2, 3) and segments[:-2] in ([], ["images"]) else None
    if parts.scheme not in ("http", "https") or parts.query or not match or not re.fullmatch(r"[0-9]{1,7}", segments[-2]):
        raise DownloadError(
            f"'{url}' is not of the form in which the atlas names images of cells: "
            "https://images.proteinatlas.org/<antibody>/<plate>_<well>_<number>_blue_red_green.jpg."
        )
    colours = tuple(match["colours"].split("_"))
    if len(set(colours)) != len(colours):
        raise DownloadError(f"'{url}' names a colour twice; this is no address of an image.")
    number = segments[-2].lstrip("0") or "0"
    return ImageAddress(parts.netloc.lower(), number, match["plate"], match["well"], match["number"], match["infix"] or "", colours)


def same_image(a: str, b: str) -> bool:
    """Whether two addresses name the same field of view, whatever host, infix and colours; False where one is none."""
    try:
        return parse_image_address(a).field == parse_image_address(b).field
    except DownloadError:
        return False


def secure(url: str) -> str:
    """Return the address with ``https`` where it belongs to the atlas, whose old entries write ``http``."""
    return "https" + url[4:] if url.startswith("http:") and _of_the_atlas(urlsplit(url).netloc.lower()) else url


def variants(url: str, release: Release, newer: Iterable[str] = ()) -> list[str]:
    """Return the addresses to try for the composite of an image, one after another while they are not there.

    Parameters
    ----------
    url : str
        As the entry names it.
    release : Release
        Its own host and the host of all releases are tried.
    newer : iterable of str
        Addresses in a newer entry; those of the same image are tried last.

    Returns
    -------
    list of str
        The address itself first (where it is that of the composite of three colours), then the release's host, the
        host of all releases, both without infix, then `newer`. No repeats; only addresses of the atlas.

    Raises
    ------
    DownloadError
        `url` is of another form.
    """
    address = parse_image_address(url)
    out = [secure(url.strip())] if address.colours == COMPOSITE else []
    out += address.addresses(release)
    for other in newer:
        if same_image(url, other) and not parse_image_address(other).lacks:
            known = parse_image_address(other)
            out.append(secure(other.strip()) if known.colours == COMPOSITE else known.addresses(Release(NEWEST, "", release.images))[0])
    return [u for u in dict.fromkeys(out) if release.trusts(u)]
