"""A browser without a window, for tests: headless Chromium, spoken to by its DevTools protocol.

    python -m tests.browser _build/html

looks at every page of a built book and prints what is wrong with it; exit status 1 where anything is.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
HERE = ("file", "data", "blob", "about", "chrome", "chrome-error", "devtools")  # schemes that ask no other host
FLAGS = (
    "--headless=new", "--disable-gpu", "--hide-scrollbars", "--mute-audio", "--no-first-run", "--no-default-browser-check",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--remote-debugging-port=0", "--remote-allow-origins=*", "--force-color-profile=srgb",
)  # fmt: skip


class BrowserError(Exception):
    """The browser did not start, did not answer in time, or a script in the page failed."""


def _leads_on(error: BrowserError) -> bool:
    """Tell whether a script was cut because its page led on to another, as a book's index.html does."""
    return "navigated" in str(error) or "context" in str(error)


def find_browser() -> str | None:
    """Return the path of an installed Chromium, or None; ``CHROMIUM`` in the environment names another."""
    named = os.environ.get("CHROMIUM", "")
    found = [named or None, *(shutil.which(name) for name in NAMES)]
    return next((f for f in found if f), None)


class Page:
    """One page of the browser.

    Attributes
    ----------
    errors : list of str
        What the page wrote to its console as an error, exceptions nobody caught, and files that did not load.
    requests : list of str
        Addresses that the page asked for.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: Any) -> None:
        self._loop, self._socket, self._ids = loop, socket, itertools.count(1)
        self._session = ""
        self._addresses: dict[str, str] = {}
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._loaded = False

    def open(self) -> None:
        """Make the page, with a window of 1400 x 900."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.size(1400, 900)

    def call(self, method: str, timeout: float = 60, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session

        async def send() -> None:
            await self._socket.write_message(json.dumps(message))

        self._loop.run_until_complete(send())
        until = time.monotonic() + timeout
        while True:
            answer = self._next(until, method)
            if answer.get("id") == number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def _next(self, until: float, what: str) -> dict[str, Any]:
        async def read() -> Any:
            return await asyncio.wait_for(self._socket.read_message(), max(0.01, until - time.monotonic()))

        try:
            text = self._loop.run_until_complete(read())
        except TimeoutError:
            raise BrowserError(f"no answer in time to {what}") from None
        if text is None:
            raise BrowserError(f"the browser went away during {what}")
        message = dict(json.loads(text))
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, told: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
            self._addresses[told["requestId"]] = told["request"]["url"]
        elif event == "Network.loadingFailed" and not told.get("canceled"):
            self.errors.append(f"did not load: {self._addresses.get(told['requestId'], '?')[:200]} ({told.get('errorText', '')})")
        elif event == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.errors.append(str(details.get("exception", {}).get("description", details.get("text"))))
        elif event == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(a.get("value", a.get("description", ""))) for a in told["args"]))
        elif event == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(f"{told['entry']['text']} {told['entry'].get('url', '')}".strip())
        elif event == "Page.loadEventFired":
            self._loaded = True

    def goto(self, address: str | Path, timeout: float = 60) -> float:
        """Open an address or file, forget what was noted before, wait until it has loaded, and return the seconds."""
        self.errors.clear()
        self.requests.clear()
        self._loaded = False
        began = time.monotonic()
        found = self.call("Page.navigate", url=address.resolve().as_uri() if isinstance(address, Path) else address)
        if found.get("errorText"):
            raise BrowserError(f"{address}: {found['errorText']}")
        while not self._loaded:
            self._next(began + timeout, f"loading {address}")
        seconds = time.monotonic() - began
        self.wait("document.documentElement !== null && document.readyState === 'complete'", timeout)
        return seconds

    def run(self, script: str, timeout: float = 60) -> Any:
        """Return the value of an expression in the page; a promise is waited for."""
        given = self.call("Runtime.evaluate", timeout, expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in given:
            details = given["exceptionDetails"]
            raise BrowserError(f"{script[:200]}: {details.get('exception', {}).get('description', details.get('text'))}")
        return given["result"].get("value")

    def wait(self, script: str, timeout: float = 20) -> Any:
        """Wait until an expression is true, and return it."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            try:
                if value := self.run(script):
                    return value
            except BrowserError as error:
                if not _leads_on(error):
                    raise
            time.sleep(0.03)
        raise BrowserError(f"never true: {script}")

    def size(self, width: int, height: int, ratio: float = 1, mobile: bool = False) -> None:
        """Set size and pixel ratio of the window."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=ratio, mobile=mobile)

    def prefer(self, scheme: str) -> None:
        """Make the reader's system ``light`` or ``dark``."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Send a mouse event: ``Moved``, ``Pressed``, ``Released`` or ``Wheel``."""
        self.call("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, **more)

    def click(self, x: float, y: float) -> None:
        """Click with the left button."""
        self.mouse("Moved", x, y)
        for kind in ("Pressed", "Released"):
            self.mouse(kind, x, y, button="left", buttons=1, clickCount=1)

    def type(self, text: str) -> None:
        """Type letters into what has the focus."""
        for letter in text:
            self.call("Input.dispatchKeyEvent", type="keyDown", text=letter, key=letter)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=letter)

    def press(self, key: str) -> None:
        """Press a key by its name, e.g. ``Enter``, ``ArrowDown``, ``Escape``."""
        code = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}.get(key, 0)
        more: dict[str, Any] = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **(more if kind == "keyDown" else {})
            )

    def picture(self, path: Path) -> None:
        """Save what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def asked_elsewhere(self) -> list[str]:
        """Return the addresses of other hosts that the page asked for."""
        return [a for a in self.requests if urlparse(a).scheme not in HERE]


@contextlib.contextmanager
def browser(executable: str) -> Iterator[Page]:
    """Start a browser and give it a page; it ends with the block.

    Raises
    ------
    BrowserError
        It did not start within a minute.
    """
    from tornado.httpclient import HTTPRequest
    from tornado.websocket import websocket_connect

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        flags = [*FLAGS, f"--user-data-dir={home}", *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else [])]
        process = subprocess.Popen([executable, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        loop = asyncio.new_event_loop()
        try:
            port, way = _address(Path(home), process)

            async def connect() -> Any:
                return await websocket_connect(HTTPRequest(f"ws://127.0.0.1:{port}{way}"), max_message_size=2**28)

            page = Page(loop, loop.run_until_complete(connect()))
            page.open()
            yield page
            with contextlib.suppress(BrowserError):
                page._session = ""
                page.call("Browser.close", 5)
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()
            loop.close()


def _address(home: Path, process: subprocess.Popen[bytes]) -> tuple[str, str]:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(FileNotFoundError, ValueError):
            port, way = (home / "DevToolsActivePort").read_text().split()
            return port, way
        if process.poll() is not None:
            raise BrowserError(f"the browser ended with {process.returncode} before it could be used")
        time.sleep(0.05)
    raise BrowserError("the browser did not start within a minute")


# --- a built book


SETTLED = """(async () => {
  if (document.readyState !== "complete") await new Promise((done) => addEventListener("load", done));
  for (const image of document.images) image.loading = "eager";
  await Promise.all([...document.images].map((i) => i.complete ? 0 : new Promise((done) => { i.onload = i.onerror = done; })));
  if (document.querySelector(".math")) {
    for (let k = 0; k < 200 && !window.MathJax?.startup?.promise; k++) await new Promise((done) => setTimeout(done, 25));
    await window.MathJax?.startup?.promise;
  }
  const math = [...document.querySelectorAll("span.math, div.math")];
  return {
    title: document.title,
    broken: [...document.images].filter((i) => !i.naturalWidth).map((i) => i.getAttribute("src").slice(0, 200)),
    images: document.images.length,
    math: math.length,
    undrawn: math.filter((m) => !m.querySelector("mjx-container svg")).map((m) => m.textContent.trim().slice(0, 80)),
    wrong: document.querySelectorAll('mjx-merror, [data-mml-node="merror"]').length,
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  };
})()"""


def pages_of(html: Path) -> list[Path]:
    """Return the pages of a built book: those of its table of contents beside it, or all that are there."""
    import yaml

    from pci_core.book import _pages

    toc = html.parent / "book-source" / "_toc.yml"
    if toc.is_file():
        return [html / f"{page}.html" for page in _pages(yaml.safe_load(toc.read_text(encoding="utf-8")))]
    return sorted(
        p for p in html.rglob("*.html") if p.name not in ("genindex.html", "search.html", "atlas.html") and "_static" not in p.parts
    )


def check_page(page: Page, path: Path) -> list[str]:
    """Return what is wrong with one page: console errors, other hosts, images, formulas."""
    if not path.is_file():
        return ["is in the table of contents but was not written"]
    try:
        page.goto(path)
        found = page.wait(SETTLED, 60)
    except BrowserError as error:
        return [str(error)]
    wrong = [f"console: {e}" for e in page.errors] + [f"asks another host: {a}" for a in page.asked_elsewhere()]
    wrong += [f"image did not load: {src}" for src in found["broken"]] + [f"formula not drawn: {text}" for text in found["undrawn"]]
    if found["wrong"]:
        wrong.append(f"{found['wrong']} formulas with an error")
    if found["wide"] > 2:
        wrong.append(f"{found['wide']} px wider than the window")
    return wrong


def check_atlas(page: Page, path: Path, patience: float = 20) -> list[str]:
    """Use an atlas as a reader would: search, hover, click, go to a neighbour, colour by something else; return what fails.

    `patience`: seconds to wait for each thing to happen.
    """
    wrong: list[str] = []

    wait = functools.partial(page.wait, timeout=patience)

    def expect(ok: object, what: str) -> None:
        if not ok:
            wrong.append(what)

    page.size(1400, 900)
    page.goto(path)
    try:
        wait("document.documentElement.dataset.ready")
        wait("atlas.map.size()[0] > 0 && atlas.map.zoomed() > 0")
        names = page.run("atlas.data.names")
        gene = names[len(names) // 2]
        page.run("document.getElementById('search').focus()")
        page.type(gene)
        wait("!document.getElementById('results').hidden")
        first = page.run("document.querySelector('#results [role=option]').dataset.protein")
        expect(first == gene, f"search for {gene} lists {first} first")
        page.press("Enter")
        wait(f"document.querySelector('.title h2')?.textContent === {json.dumps(gene)}")
        wait("document.querySelectorAll('.crops canvas').length && "
                  "[...document.querySelectorAll('.crops canvas')].every((c) => c.dataset.loaded === 'true')")  # fmt: skip
        expect(page.run(LIT % "'.crops canvas'"), f"the crops of {gene} are black")
        neighbour = page.run("document.querySelector('.near button').dataset.protein")
        page.run("document.querySelector('.near button').click()")
        wait(f"document.querySelector('.title h2').textContent === {json.dumps(neighbour)}")
        page.run("document.getElementById('close').click(); atlas.map.zoomBy(1 / 50); atlas.map.draw()")
        i = page.run("atlas.data.names.findIndex((_, i) => { const [x, y] = atlas.map.screen(i), [w, h] = atlas.map.size();"
                     " return x > 5 && y > 5 && x < w - 60 && y < h - 160 && atlas.map.hit(x, y) === i; })")  # fmt: skip
        expect(i >= 0, "no protein can be pointed at")
        x, y = page.run(f"(() => {{ const r = document.getElementById('marks').getBoundingClientRect(), [x, y] = atlas.map.screen({i});"
                        " return [x + r.left, y + r.top]; })()")  # fmt: skip
        page.mouse("Moved", x + 1, y)
        wait("!document.getElementById('tip').hidden")
        expect(page.run("document.querySelector('#tip strong').textContent") == names[i], "hovering shows another protein")
        wait("[...document.querySelectorAll('#tip canvas')].every((c) => c.dataset.loaded === 'true')")
        expect(page.run(LIT % "'#tip canvas'"), "the crops under the pointer are black")
        page.click(x, y)
        wait(f"document.querySelector('.title h2')?.textContent === {json.dumps(names[i])}")
        keys = page.run("atlas.data.schemes.map((s) => s.key)")
        for key in reversed(keys):
            before = page.run(PIXELS)
            page.run(f"document.querySelector('#colour-by [data-key={key}]').click(); atlas.map.draw()")
            expect(page.run("atlas.data.schemes[atlas.state.scheme].key") == key, f"cannot colour by {key}")
            expect(len(keys) < 2 or key == keys[0] or page.run(PIXELS) != before, f"colouring by {key} changes nothing")
    except BrowserError as error:
        wrong.append(str(error))
    wrong += [f"console: {e}" for e in page.errors] + [f"asks another host: {a}" for a in page.asked_elsewhere()]
    return wrong


LIT = """[...document.querySelectorAll(%s)].every((c) =>
  c.getContext("2d").getImageData(0, 0, c.width, c.height).data.some((v, i) => i %% 4 < 3 && v > 60))"""
PIXELS = """(() => { const c = document.getElementById("points"), d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
  let h = 0; for (let i = 0; i < d.length; i++) h = (h * 31 + d[i]) | 0; return h; })()"""


def check_book(page: Page, html: Path) -> dict[str, list[str]]:
    """Return what is wrong with each page of a built book, its atlas included; an empty list where nothing is."""
    found = {p.relative_to(html).as_posix(): check_page(page, p) for p in [html / "index.html", *pages_of(html)]}
    if (html / "atlas.html").is_file() and "data-left-out" not in (html / "atlas.html").read_text(encoding="utf-8")[:200]:
        found["atlas.html"] = check_atlas(page, html / "atlas.html")
    return found


def main(folder: str) -> int:
    """Check a built book and print a report; 1 where anything is wrong."""
    html, executable = Path(folder), find_browser()
    if not (html / "index.html").is_file():
        print(f"{html} holds no book (index.html is missing). Run 'make book' first.", file=sys.stderr)
        return 1
    if executable is None:
        print(f"no browser: none of {', '.join(NAMES)} is on the PATH. Install Chromium, or name it in CHROMIUM.", file=sys.stderr)
        return 1
    with browser(executable) as page:
        found = check_book(page, html)
    for name, wrong in found.items():
        print(f"{'wrong' if wrong else 'right'}  {name}", *wrong, sep="\n         ")
    print(f"{len(found)} pages, {sum(map(bool, found.values()))} with something wrong")
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "_build/html"))
