"""Reading a report page without a browser, and a run whose every text is hostile."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from joulefront.search.records.run_folder import Run

from .trials import changed

EVIL = "<img src=x onerror=alert(1)></script><script>alert(2)</script>&lt;b&gt;\"'`${alert(3)}{{7*7}}\u2028"


class Outline(HTMLParser):
    """Tags, links and scripts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.links: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.metas: list[dict[str, str | None]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append((dict(attrs), ""))
        if tag == "meta":
            self.metas.append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            attributes, text = self.scripts[-1]
            self.scripts[-1] = attributes, text + data


def outline_of(path: Path) -> Outline:
    return Outline(path.read_text(encoding="utf-8"))


def data_of(path: Path) -> dict[str, Any]:
    """The data of a page as its script reads them."""
    found = next(text for attributes, text in outline_of(path).scripts if attributes.get("id") == "data")
    return dict(json.loads(found))


def hostile(run: Run) -> Run:
    """The run with a text that would act as markup wherever a run can hold one."""
    trials = tuple(
        changed(
            t,
            params={**t.params, EVIL: EVIL, "family": EVIL},
            reason=t.reason and EVIL,
            components={EVIL: next(iter(t.components.values()))},
        )
        if t.components
        else t
        for t in run.trials
    )
    session = {"command": EVIL, "hardware": {EVIL: EVIL, "cpu_model": EVIL}, "started": EVIL, "versions": {EVIL: EVIL}}
    facts = {**run.facts, "study": {"name": EVIL, "description": EVIL}, "sessions": [session], "origin": {"source": f"./{EVIL}"}}
    facts |= {"intensity": {"grams_per_kwh": 1.0, "zone": EVIL, "source": EVIL, "region": EVIL}, "price_per_kwh": [0.2, EVIL]}
    facts |= {"fingerprint": {"data": {"classes": [EVIL, EVIL], "kind": EVIL, "examples": {"validation": 300, "train": 700}}}}
    bill = replace(
        run.bill, absent={EVIL: EVIL}, components={name: replace(part, source=EVIL) for name, part in run.bill.components.items()}
    )
    return replace(run, name=EVIL, path=Path(f"runs/{EVIL}"), trials=trials, facts=facts, bill=bill)
