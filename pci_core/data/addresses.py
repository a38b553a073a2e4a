"""Which addresses are asked: files of public hosts by https (or http), and no redirection that leads away from there.

An address may come from a stranger's file or answer. What is refused here is refused before anything is asked: other schemes,
addresses of this machine or of a private network in any way of writing, a port or a user in front of the host, and characters that
two readers of an address take differently. A public name that its owner points to a private address (DNS rebinding) is not told
by its name; nothing but a file that passes its check is kept of such an answer.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urljoin, urlsplit

import requests

from pci_core.errors import DownloadError

_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")  # a name with a dot, no number
_OWN_NETWORK = (".local", ".localhost", ".internal", ".intranet", ".lan", ".home", ".corp", ".localdomain", ".home.arpa")
_PORTS = {"http": 80, "https": 443}


def why_not(url: str) -> str:
    """Say why an address is not asked; empty where nothing speaks against it.

    Parameters
    ----------
    url : str
        As it was found.
    """
    if not url.isprintable() or set(url) & set(' \\"<>^`{|}'):
        return "it holds characters that no address has"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "it is no address"
    if parts.scheme not in _PORTS:
        return f"only http and https are asked, not '{parts.scheme}'"
    host = parts.hostname or ""
    if "@" in parts.netloc:
        return "it names a user"
    if parts.netloc.endswith(":") or port not in (None, _PORTS[parts.scheme]):
        return "it names a port"
    if not is_public(host):
        return f"'{host}' is no public host"
    return ""


def is_public(host: str) -> bool:
    """Tell whether a host is a name or number that anyone's network could reach; nothing is looked up."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        pass
    try:
        return ipaddress.ip_address(socket.inet_aton(host)).is_global  # 127.1, 0x7f.1, 2130706433: the same machine
    except (OSError, UnicodeError):
        pass
    return _HOST.fullmatch(host) is not None and not f".{host}".endswith(_OWN_NETWORK)


def check_redirection(response: requests.Response, *unused: object, **named: object) -> None:
    """Refuse the redirection of an answer before it is followed; to be given to ``requests`` as a hook for responses.

    It may lead to the same host and port, or to another public host; from https not back to http.

    Raises
    ------
    DownloadError
        It leads elsewhere.
    """
    place = response.headers.get("Location")
    if place is None or response.status_code not in (301, 302, 303, 307, 308):
        return
    target = urljoin(response.url, place)
    here, there = urlsplit(response.url), urlsplit(target)
    same = (here.scheme, here.netloc) == (there.scheme, there.netloc) and target.isprintable()
    why = "" if same else why_not(target)
    if not why and here.scheme == "https" and there.scheme != "https":
        why = "it leads from https to http"
    if why:
        raise DownloadError(f"{response.url}: the server points to {ascii(target)[1:-1][:200]}, which was not asked ({why}).")
