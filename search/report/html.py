"""The HTML elements of the report; every text that comes from a run is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

#: The page may fetch nothing, so that it looks the same in ten years and without a network.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)  # fmt: skip

STYLE = """
:root { --ink: #1b2a33; --muted: #5f6f79; --line: #e1e8ec; --strong: #0b6e69; --knee: #d9480f; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f7f8; color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 28px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 0 0 6px; } h3 { font-size: 15px; margin: 14px 0 2px; }
section { background: white; border: 1px solid var(--line); border-radius: 10px; padding: 20px 24px; margin-top: 18px; }
p { margin: 6px 0; } .muted { color: var(--muted); } .small { font-size: 13px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; margin-top: 20px; }
.tile { background: white; border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }
.tile b { display: block; font-size: 20px; white-space: nowrap; line-height: 1.25; } .tile span { color: var(--muted); font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; min-width: 55%; font-size: 13.5px; font-variant-numeric: tabular-nums; margin-top: 8px; }
th, td { text-align: left; border-bottom: 1px solid var(--line); padding: 5px 14px 5px 0; vertical-align: top; }
th { color: var(--muted); font-weight: 600; border-bottom-color: #c5d0d6; white-space: nowrap; }
.right { text-align: right; white-space: nowrap; }
.badge { border-radius: 9px; padding: 1px 8px; font-size: 12px; color: white; background: var(--muted); white-space: nowrap; }
.measured { background: var(--strong); } .estimated { background: #b7791f; }
.mixed { background: #3f7cac; } .absent { background: #9aa7ae; }
.two { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(400px, 100%), 1fr)); gap: 8px 24px; }
.two > div { min-width: 0; overflow: hidden; } summary { cursor: pointer; color: var(--strong); }
pre { background: #f4f7f8; border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; white-space: pre-wrap; font-size: 12px; }
@media print { body { background: white; } section, .tile { break-inside: avoid; } }
"""


def section(title: str, *content: str) -> str:
    """A titled block; an empty string when all its content is empty."""
    inner = "\n".join(part for part in content if part)
    return f"<section><h2>{escape(title)}</h2>\n{inner}</section>\n" if inner else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def badge(quality: str) -> str:
    """A coloured word: measured, estimated, mixed or absent."""
    kind = quality if quality in ("measured", "estimated", "mixed", "absent") else ""
    return f'<span class="badge {kind}">{escape(quality)}</span>'


def tile(value: str, label: str) -> str:
    """A number and its label."""
    return f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), markup: Sequence[int] = ()) -> str:
    """A table; ``right`` numbers the columns that are aligned to the right, ``markup`` those whose cells are HTML already."""

    def cells(row: Sequence[str], tag: str) -> str:
        shown = []
        for place, text in enumerate(row):
            kind = ' class="right"' if place in right else ""
            shown.append(f"<{tag}{kind}>{text if tag == 'td' and place in markup else escape(text)}</{tag}>")
        return "<tr>" + "".join(shown) + "</tr>"

    body = "\n".join(cells(row, "td") for row in rows)
    return f'<div class="scroll"><table><thead>{cells(head, "th")}</thead><tbody>{body}</tbody></table></div>'


def page(title: str, body: str) -> str:
    """A whole document around a body."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{escape(title)}</title><style>{STYLE}</style></head>\n'
        f"<body><main>\n{body}</main></body></html>\n"
    )
