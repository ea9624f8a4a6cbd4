"""What HTML shows and hides: its text with markers where it deceives, and where its links lead.

[hidden] ... [/hidden]   text that a reader does not see
[split] word             a word with a comment, an empty or an unknown element inside
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser, LexborNode

MAX_HTML_CHARS: Final = 64 * 1024
"""lexbor is quadratic in the depth of nesting: 0.9 s for 128 KiB of '<div>'."""
_NO_EVENTS: Final = int(LexborDocumentOptions.WO_EVENTS)
_MAX_OPEN: Final = 3_000
_ANY_TAG: Final = re.compile(r"<[^<>]{0,1000}>")
_MAX_NODES: Final = 400
_MAX_LINKS: Final = 200
_MAX_ANCESTORS: Final = 24
_MAX_STYLE_CHARS: Final = 1_024

_INSIDE: Final = re.compile(
    # Only directly after a letter: the lookbehind stands behind the literal, which is searched for.
    # What follows the tag is looked at next: most tags are refused there.
    r"<(?<=\w<)(?=[^<>]{0,220}>(?:\w|<!)|\w{1,20}[^<>]{0,80}></)(?:!--[^<>]{0,200}--(?:><!--[^<>]{0,200}--){0,9}|(\w{1,20})(?:\s[^<>]{0,80})?></\1|"
    r"(?P<plain>/?(?:a|b|i|u|s|em|font|span|small|strong|big|sub|sup|tt|code|wbr|nobr|mark)\b"
    r"[^<>]{0,200})|"
    r"/?(?!(?:p|br|hr|h\d|div|img|t[dhr]|table|tbody|li|[uod]l|d[dt]|center|html|body|head|title|"
    r"style|script|blink|label|input|option|select|form|pre|map|area|address|blockquote|o:p|del|"
    r"ins|strike|abbr|acronym|kbd|var|cite|q|wbr)\b)[a-z]\w{0,30})>(?=\w)",
    re.I,
)
"""A tag or comment between two letters: one that formats is dropped, any other is a seam."""
_SEAM: Final = "\ue000"
_SEAMED: Final = re.compile(rf"\w{{0,32}}(?:{_SEAM}\w{{1,32}})+")
_HIDING: Final = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|mso-hide\s*:\s*all|"
    r"font-size\s*:\s*[01](?:\.\d+)?(?:px|pt|%|em)?\s*(?![\d.%a-z])(?<!1em)|opacity\s*:\s*0(?![.\d])|"
    r"(?<![-\w])(?:max-)?(?:width|height)\s*:\s*0(?:px|pt|%)?\s*(?:;|!|$)|text-indent\s*:\s*-\d{3}",
    re.I,
)
_COLOUR: Final = re.compile(r"(?<![-\w])color\s*:\s*([#\w]{3,20})", re.I)
_LOWER_GROUND: Final = re.compile(r"background(?:-color)?\s{0,9}:\s{0,9}([#\w]{3,20})")
_GROUND: Final = re.compile(_LOWER_GROUND.pattern, re.I)
_BGCOLOR: Final = re.compile(r"bgcolor\s{0,3}=\s{0,3}[\"']?\s{0,3}([#\w]{3,20})")
_NAMED: Final = {"white": 0xFFFFFF, "black": 0, "red": 0xFF0000, "blue": 0xFF, "yellow": 0xFFFF00}
_LINK: Final = re.compile(
    r"<a\s[^<>]{0,300}?href\s{0,3}=\s{0,3}[\"']?\s{0,3}(?:https?|ftp):/{1,3}"
    r"([^\s/?#<>\"']{1,500})[^<>]{0,2000}>"
)
_STYLE: Final = re.compile(r"style\s{0,3}=\s{0,3}[\"']?([^\"'<>]{3,400})")
_ANY_COLOUR: Final = re.compile(
    r"color(?<!bgcolor)(?<!ground-color)\s{0,3}[=:]\s{0,3}[\"']?([#\w]{3,20})"
)
_SHOWN_HOST: Final = re.compile(
    r"\s*(?:https?://)?(?:[^\s/?#@]*@)?((?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,10})(?:[/?#:\s]|$)", re.I
)
_FILE_ENDINGS: Final = frozenset(["html", "htm", "txt", "pdf", "doc", "zip", "gif", "jpg", "exe"])


class Page(NamedTuple):
    """The readable text of an HTML part and what its links and images tell."""

    text: str
    hosts: list[str]
    """The host of each web link, lower-case, at most 200."""
    mismatches: list[str]
    """'shown -> real' for links whose text names another domain than they lead to."""
    images: int


def page(html: str, limit: int = MAX_HTML_CHARS) -> Page:
    """The text and links of an HTML document, of which the first `limit` characters are read.

    Where thousands of elements are left open the tags are merely cut out.
    """
    html = html[:limit]
    if html.count("<") > _MAX_OPEN and html.count("<") - 2 * html.count("</") > _MAX_OPEN:
        return Page(_ANY_TAG.sub(" ", html), [], [], 0)
    lower = html.lower()
    images = lower.count("<img")
    for raw_text in ("style", "script"):
        if f"<{raw_text}" in lower:
            html, lower = _without(html, lower, raw_text)
    tree = LexborHTMLParser(_INSIDE.sub(_joint, html), options=_NO_EVENTS)
    body = tree.body
    if body is None:
        return Page("", [], [], images)
    grounds = _grounds(lower) if "color" in lower else []
    if _may_hide(lower, grounds):
        _mark_hidden(body, grounds)
    hosts, mismatches = _links(lower)
    text = body.text(separator=" ", skip_empty=True)
    if _SEAM in text:
        text = _SEAMED.sub(lambda m: "[split] " + m[0].replace(_SEAM, ""), text)
    return Page(text, hosts, mismatches, images)


def owner(host: str) -> str:
    """The part of a host name that is bought: two labels, three under a short second level."""
    labels = host.rstrip(".").rsplit(".", 3)
    if len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3:
        return ".".join(labels[-3:])
    return ".".join(labels[-2:])


def _joint(found: re.Match[str]) -> str:
    return _SEAM if found["plain"] is None else ""


def _without(html: str, lower: str, tag: str) -> tuple[str, str]:
    """The source and its lower case without the elements of a tag whose content is no text."""
    if len(lower) != len(html):  # few letters have a lower case of another length
        html = lower
    kept: list[slice] = []
    at = 0
    while (start := lower.find(f"<{tag}", at)) >= 0:
        kept.append(slice(at, start))
        end = lower.find(f"</{tag}", start)
        at = lower.find(">", end) + 1 if end >= 0 else 0
        if at <= 0:
            at = len(lower)
    kept.append(slice(at, None))
    return " ".join([html[part] for part in kept]), " ".join([lower[part] for part in kept])


def _links(lower: str) -> tuple[list[str], list[str]]:
    """Hosts and mismatches, read off the lower-case source: a third of the tree's price."""
    hosts: list[str] = []
    mismatches: list[str] = []
    for link in _LINK.finditer(lower):
        host = link[1]
        if "@" in host or ":" in host:  # what stands before @ is a name for show
            host = host.rpartition("@")[2].partition(":")[0]
        host = host.removeprefix("www.").rstrip(".")
        hosts.append(host)
        label = lower[link.end() : link.end() + 400].partition("</a")[0]
        if "." in label:
            shown = _SHOWN_HOST.match(_ANY_TAG.sub("", label) if "<" in label else label)
            name = shown[1].removeprefix("www.") if shown else host
            if owner(name) != owner(host) and name.rpartition(".")[2] not in _FILE_ENDINGS:
                mismatches.append(f"{name} -> {host}")
        if len(hosts) == _MAX_LINKS:
            break
    return hosts, mismatches


def _grounds(lower: str) -> list[int]:
    """The colours that anything on the page may stand on."""
    named = set(_BGCOLOR.findall(lower)) | set(_LOWER_GROUND.findall(lower)) | {"white"}
    return [ground for ground in map(_rgb, list(named)[:50]) if ground is not None]


def _may_hide(lower: str, grounds: list[int]) -> bool:
    """Whether a look at the tree is worth its price: a hiding style, or a colour of the ground."""
    if "style" in lower and any(_styled(style)[0] for style in set(_STYLE.findall(lower))):
        return True
    colours = set(_ANY_COLOUR.findall(lower)) if grounds else ()
    known = [rgb for rgb in map(_rgb, colours) if rgb is not None]
    return any(_near(one, ground) for ground in grounds for one in known[:200])


def _mark_hidden(body: LexborNode, page_grounds: list[int]) -> None:
    hidden: set[int] = set()
    blending: dict[int, bool] = {}
    grounds: dict[int, int | None] = {}
    for node in body.css("[style],font[color]")[:_MAX_NODES]:
        attributes = node.attributes
        hides, colour, _ = _styled(attributes.get("style") or "")
        if not hides:
            if colour is None:
                colour = _rgb(attributes.get("color") or "")
            if colour is None:
                continue
            if colour not in blending:
                blending[colour] = any(_near(colour, ground) for ground in page_grounds)
            if not blending[colour]:
                continue
            ground = _ground(node, grounds)
            if ground is None or not _near(colour, ground):
                continue
        if node.tag == "body" or not node.text(strip=True):
            continue
        if any(up.mem_id in hidden for up in _upward(node)):
            continue
        hidden.add(node.mem_id)
        node.insert_before(" [hidden] ")
        node.insert_after(" [/hidden] ")


def _upward(node: LexborNode) -> Iterator[LexborNode]:
    """A node and its ancestors."""
    up: LexborNode | None = node
    for _ in range(_MAX_ANCESTORS):
        if up is None:
            return
        yield up
        up = up.parent


def _ground(node: LexborNode, known: dict[int, int | None]) -> int | None:
    """The colour that a node stands on; None where that is an image."""
    ground: int | None = _NAMED["white"]
    passed: list[int] = []
    for up in _upward(node):
        key = up.mem_id
        if key in known:
            ground = known[key]
            break
        passed.append(key)
        own = up.attributes
        said = _styled(own["style"] or "")[2] if "style" in own else None
        if said is None and "bgcolor" in own:
            said = _rgb(own["bgcolor"] or "")
        if said is not None or "background" in own:
            ground = said
            break
    known.update(dict.fromkeys(passed, ground))
    return ground


@lru_cache(maxsize=4096)
def _styled(style: str) -> tuple[bool, int | None, int | None]:
    """Whether an inline style hides its element; its colour and background where it names them."""
    style = style[:_MAX_STYLE_CHARS]
    colour, ground = _COLOUR.search(style), _GROUND.search(style)
    return (
        _HIDING.search(style) is not None,
        _rgb(colour[1]) if colour else None,
        _rgb(ground[1]) if ground else None,
    )


def _near(one: int, other: int) -> bool:
    return (
        abs((one >> 16) - (other >> 16)) <= 16
        and abs((one >> 8 & 255) - (other >> 8 & 255)) <= 16
        and abs((one & 255) - (other & 255)) <= 16
    )


@lru_cache(maxsize=1024)
def _rgb(value: str) -> int | None:
    value = value.strip().lower()
    if value in _NAMED:
        return _NAMED[value]
    digits = value.removeprefix("#")
    if len(digits) == 3:
        digits = "".join(digit * 2 for digit in digits)
    try:
        return int(digits, 16) if len(digits) == 6 else None
    except ValueError:
        return None
