"""One HTML page that needs no other file, of which reports are made; every text in it is escaped.

    write(file, page("Report of x", {"Summary": facts({"mails": 605}), "ROC": figure(svg, "...")}))

It has no script, reads on a phone, where wide tables scroll in boxes of their own, and prints.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

_STYLE: Final = Markup("""
:root { --ink: #1a1a1a; --paper: #fff; --faint: #666; --line: #ddd; --tint: #0072b2;
        color-scheme: light dark; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #161616; --faint: #a0a0a0; --line: #3a3a3a; --tint: #56b4e9; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem;
       color: var(--ink); background: var(--paper); overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
a { color: inherit; } nav { color: var(--faint); } nav a { white-space: nowrap; }
.lead { font-size: 1.1rem; } .note, figcaption, small { color: var(--faint); }
.note { margin: .8rem 0 .3rem; } .wide { overflow-x: auto; margin-bottom: .8rem; overflow-wrap: normal; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .2rem .9rem .2rem 0;
         border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; white-space: nowrap; } tbody th { font-weight: normal; min-width: 4.5rem; }
td, small { white-space: nowrap; } small { font-size: .85rem; }
.facts th, .lost { color: var(--faint); }
.facts td { white-space: normal; overflow-wrap: anywhere; }
td.share { padding-left: .6rem; text-align: right;
  background: color-mix(in srgb, var(--tint) calc(var(--share) * 45%), transparent); }
tr:has(+ .under) > * { border-bottom: none; }
.mail { display: block; max-width: min(44rem, 88vw); white-space: normal; overflow-wrap: anywhere;
        color: var(--faint); }
.id { display: block; min-width: 9rem; max-width: 24rem; overflow-wrap: anywhere; white-space: normal; }
.plots { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; min-width: 0; } figcaption { font-size: .9rem; }
figure > svg { display: block; max-width: 100%; height: auto; background: #fff; }
pre { overflow-x: auto; border: 1px solid var(--line); padding: .6rem; font-size: .85rem; }
@media print {
  body { max-width: none; font-size: 10pt; padding: 0; } nav { display: none; }
  h2, .note, thead { break-after: avoid; } .plots { grid-template-columns: 1fr 1fr; } figure, tr { break-inside: avoid; }
  .wide { overflow: visible; } th, td, thead th { padding-right: .5rem; white-space: normal; } .id { min-width: 0; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
}
""")  # noqa: E501
NONE: Final = "-"
"""Stands for a figure that there is not."""


def page(title: str, sections: Mapping[str, Markup]) -> Markup:
    """The whole page: its sections by their titles, and links to them."""
    links = Markup(" · ").join(
        Markup('<a href="#s{}">{}</a>').format(at, name) for at, name in enumerate(sections, 1)
    )
    bodies = Markup("").join(
        Markup('<section><h2 id="s{}">{}</h2>{}</section>\n').format(at, name, body)
        for at, (name, body) in enumerate(sections.items(), 1)
    )
    return Markup(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{0}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,"><style>{1}</style></head>\n'
        '<body><h1>{0}</h1><nav aria-label="Sections">{2}</nav>\n<main>{3}</main></body></html>\n'
    ).format(title, _STYLE, links, bodies)


def table(
    heads: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    caption: str = "",
    *,
    lost: Container[int] = (),
    under: Sequence[Markup] = (),
    kind: str = "",
) -> Markup:
    """A table in a box that scrolls; the first cell of a row names it, `lost` rows are faint.

    `under` is empty, or has what stands below each row, as wide as the screen and no wider.
    """
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(name) for name in heads)
    lines = Markup("").join(
        Markup("<tr{}>{}</tr>{}").format(
            Markup(' class="lost"') if at in lost else "",
            _cells(row),
            Markup('<tr class="under"><td colspan="{}">{}</td></tr>').format(len(row), under[at])
            if under
            else "",
        )
        for at, row in enumerate(rows)
    )
    return Markup(
        '{}<div class="wide" tabindex="0" role="region" aria-label="{}"><table class="{}">'
        "{}<tbody>{}</tbody></table></div>"
    ).format(
        text(caption, "note") if caption else "",  # outside, or it would scroll with the table
        caption or ", ".join(map(str, heads)) or "facts",
        kind,
        Markup("<thead><tr>{}</tr></thead>").format(head) if heads else "",
        lines,
    )


def _cells(row: Sequence[Any]) -> Markup:
    first, *others = row
    cells = [Markup('<th scope="row">{}</th>').format(first)]
    for cell in others:
        # What `share` gives is a cell already.
        whole = isinstance(cell, Markup) and cell.startswith("<td")
        cells.append(cell if whole else Markup("<td>{}</td>").format(cell))
    return Markup("").join(cells)


def share(text: str, of_row: float) -> Markup:
    """A cell, the deeper in colour the larger its share of the row is, 0 to 1."""
    return Markup('<td class="share" style="--share:{:.3f}">{}</td>').format(of_row, text)


def facts(rows: Mapping[str, Any]) -> Markup:
    """A table of names and what they stand for."""
    return table((), rows.items(), kind="facts")


def text(words: str, kind: str = "") -> Markup:
    """A paragraph; `lead` is larger, a `note` is faint."""
    return Markup('<p class="{}">{}</p>').format(kind, words)


def below(words: str, small: str) -> Markup:
    """Text, and what is less important on a second line."""
    return Markup("{}<br><small>{}</small>").format(words, small)


def isolated(words: str, kind: str) -> Markup:
    """Text of others, whose writing direction must not turn what stands around it."""
    return Markup('<bdi class="{}">{}</bdi>').format(kind, words)


def verbatim(words: str, title: str) -> Markup:
    """Text as a file has it, below a title of its own."""
    return Markup('<h3>{0}</h3><pre tabindex="0" aria-label="{0}">{1}</pre>').format(title, words)


def figure(svg: Markup, caption: str = "") -> Markup:
    """A drawing, as `training.drawing` gives it."""
    below = Markup("<figcaption>{}</figcaption>").format(caption) if caption else ""
    return Markup("<figure>{}{}</figure>").format(svg, below)


def side_by_side(*figures: Markup) -> Markup:
    """Two in a row where there is room."""
    return Markup('<div class="plots">{}</div>').format(Markup("").join(figures))


def write(file: Path, html: str) -> Path:
    """Put a page in its place as a whole; returns the file."""
    scratch = file.with_name(f".{file.name}.new")
    scratch.write_text(html, "utf-8", "backslashreplace")  # a text may hold half of a surrogate
    return scratch.replace(file)
