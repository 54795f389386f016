"""The Chromium of the system, driven by Playwright, which downloads none; where either is missing the tests say so and skip."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def chromium() -> str:
    """Path of the browser."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("needs Chromium (apt-get install chromium)")
    return found


@contextmanager
def browser() -> Iterator[Any]:
    """A browser that is closed at the end."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (uv sync --group dev)")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


class Opened:
    """A page in a browser with what it complained about and what it asked of a network."""

    def __init__(self, browser: Any, address: Path | str, *, width: int = 1440, dark: bool = False) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}") or dialog.dismiss())
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address.resolve().as_uri() if isinstance(address, Path) else address)

    def show(self, address: Path | str, *, width: int = 1440) -> Opened:
        """Another page in the place of this one, which takes half of what another window does."""
        self.page.goto("about:blank")  # else another fragment of the same page is not loaded again
        self.complaints.clear()
        self.requests.clear()
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.goto(address.resolve().as_uri() if isinstance(address, Path) else address)
        return self

    def text(self, what: str = "main") -> str:
        """The visible text of an element."""
        return str(self.page.inner_text(what))

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()
