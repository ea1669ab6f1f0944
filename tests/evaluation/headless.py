"""HTML pages read by a parser and by a headless browser, which is controlled through a pipe."""

import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MESSAGES = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
PATIENCE = 60  # seconds
HOSTILE = "</code><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;$x^$"


class Visit(NamedTuple):
    """Record of an open page: value of the evaluated expression, requested addresses, console messages."""

    answer: Any
    requests: list[str]
    messages: list[str]


def find_browser() -> str | None:
    """Path of an installed Chromium or Chrome, None without one."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """Browser process that opens pages one after the other."""

    def __init__(self, path: str, profile: Path) -> None:
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser)]  # not 3 and 4
        os.close(to_browser)
        os.close(from_browser)
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
        flags.append("--window-size=1200,900")
        command = [path, *flags, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        # The browser reads commands from descriptor 3 and writes to 4.
        script = f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}'
        self.process = subprocess.Popen(
            ["bash", "-c", script, *command],
            pass_fds=ends,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in ends:
            os.close(end)
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._events: list[dict[str, Any]] = []

    def visit(self, address: str, question: str) -> Visit:
        """Opens a page in a new tab, waits until it is loaded, and evaluates a JavaScript expression in it."""
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable", {}, session)
        self._events.clear()
        self._call("Page.navigate", {"url": address}, session)
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(self._read())
        script = {"expression": question, "returnByValue": True, "awaitPromise": True}
        result = self._call("Runtime.evaluate", script, session)
        assert "exceptionDetails" not in result, result
        self._call("Target.closeTarget", {"targetId": target})
        sent = [event["params"]["request"] for event in self._events if event["method"] == "Network.requestWillBeSent"]
        said = [event["params"] for event in self._events if event["method"] in MESSAGES]
        return Visit(result["result"]["value"], [request["url"] for request in sent], [json.dumps(one) for one in said])

    def close(self) -> None:
        """Ends the browser process."""
        os.close(self._out)
        os.close(self._in)
        self.process.terminate()
        self.process.wait(timeout=20)

    def _call(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        os.write(self._out, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            reply = self._read()
            if reply.get("id") == number:
                assert "error" not in reply, reply
                return reply["result"]
            self._events.append(reply)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._in], [], [], PATIENCE)[0], f"no answer from the browser within {PATIENCE} s"
            more = os.read(self._in, 1 << 16)
            assert more, "the browser has ended"
            self._buffer += more
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)


class Parts(HTMLParser):
    """Tags, addresses, event handlers and text of a parsed page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data if data.strip() else ""  # line breaks between elements
