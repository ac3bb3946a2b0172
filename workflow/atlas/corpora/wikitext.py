"""Wiki markup becomes prose: what a reader of the page would read as sentences, and no more."""

import re

import mwparserfromhell
from mwparserfromhell import nodes, wikicode

# Tags whose content is no running text: footnotes, tables, pictures, formulas and program text.
_DROPPED_TAGS = {
    *("ref", "references", "table", "tr", "td", "th", "gallery", "imagemap", "timeline", "math", "chem"),
    *("score", "source", "syntaxhighlight", "pre", "templatedata", "templatestyles", "style", "script", "del", "s"),
}
_LINE_TAGS = {"br", "hr", "li", "dt", "dd", "p", "div", "blockquote", "poem", "ul", "ol"}
# Sections that list things instead of telling them.
_DROPPED_SECTIONS = {
    *("references", "external links", "further reading", "see also", "notes", "bibliography", "sources", "citations"),
    *("footnotes", "notes and references", "references and notes", "works cited", "cited sources", "literature"),
    *("discography", "filmography", "publications", "selected bibliography", "gallery", "explanatory notes"),
}
# Templates that stand for words of a sentence, with the argument that holds them; all others are dropped.
_WORDS = {
    **dict.fromkeys(("nowrap", "small", "smaller", "quote", "abbr", "nihongo", "angbr", "vanchor", "nobold"), "1"),
    **dict.fromkeys(("as of", "'", "sic", "keypress", "chem", "ct", "val", "num", "blockquote", "cquote"), "1"),
    **dict.fromkeys(("lang", "transl", "transliteration", "pipe"), "last"),
}
_SYMBOLS = {"nbsp": " ", "·": " · ", "ndash": "–", "mdash": "—", "snd": " – ", "spaced ndash": " – ", "'s": "'s"}
_NAMESPACE = re.compile(r"\s*(file|image|media|category|wikt|commons|[a-z]{2,3}(-[a-z]+)?)\s*:", re.IGNORECASE)
_TIDY = (
    (re.compile(r"__[A-Z]+__"), ""),
    (re.compile(r"^[ \t]*(\{\||\|).*$", re.MULTILINE), ""),  # rows of tables that are malformed, hence not recognised
    (re.compile(r"</?(ref|blockquote)\b[^<>]*>|'{2,}"), ""),  # likewise unclosed footnotes and emphasis
    (re.compile(r"[ \t\u00a0]+"), " "),
    (re.compile(r"([(\[])[\s,;:]+"), r"\1"),  # what a dropped template leaves behind an opening bracket
    (re.compile(r"[ \t,;]+([)\]])"), r"\1"),
    (re.compile(r"\(\)|\[\]"), ""),
    (re.compile(r" +([,.;:!?])(?=\s|$)"), r"\1"),
    (re.compile(r" {2,}"), " "),
    (re.compile(r" *\n *"), "\n"),
    (re.compile(r"^[*#:;]+ *", re.MULTILINE), ""),
    (re.compile(r"\n{3,}"), "\n\n"),
)


def strip_markup(markup: str) -> str:
    """Plain text of a page: footnotes, tables, pictures, categories, formulas and lists of references are left out."""
    text = _sections(mwparserfromhell.parse(markup))
    for pattern, replacement in _TIDY:
        text = pattern.sub(replacement, text)
    return _without_empty_sections(text.strip())


_HEADING = "\x01"  # marks heading lines until empty sections are dropped; no such character is in a page


def _sections(page: wikicode.Wikicode) -> str:
    """Text of a page without the sections that are lists; a heading ends the sections of its level and below."""
    parts: list[str] = []
    dropped_level = None
    for node in page.nodes:
        if isinstance(node, nodes.Heading):
            if dropped_level is not None and node.level > dropped_level:
                continue
            title = _render(node.title).strip()
            dropped_level = node.level if title.lower() in _DROPPED_SECTIONS else None
            if dropped_level is None:
                parts.append(f"\n\n{_HEADING}{node.level}{title}\n")
        elif dropped_level is None:
            parts.append(_render_node(node))
    return "".join(parts)


def _without_empty_sections(text: str) -> str:
    """Drop headings under which nothing is left, and the marks of the others."""
    kept: list[str] = []
    for line in reversed(text.split("\n")):
        if line.startswith(_HEADING):
            below = next((other for other in reversed(kept) if other.strip()), None)
            empty = below is None or (below.startswith(_HEADING) and below[1] <= line[1])
            if empty:
                continue
        kept.append(line)
    lines = [line[2:] if line.startswith(_HEADING) else line for line in reversed(kept)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _render(code: wikicode.Wikicode | None) -> str:
    return "" if code is None else "".join(_render_node(node) for node in code.nodes)


def _render_node(node: nodes.Node) -> str:
    if isinstance(node, nodes.Text):
        return str(node)
    if isinstance(node, nodes.Wikilink):
        return _render_link(node)
    if isinstance(node, nodes.Tag):
        return _render_tag(node)
    if isinstance(node, nodes.Template):
        return _render_template(node)
    if isinstance(node, nodes.ExternalLink):
        return _render(node.title)
    if isinstance(node, nodes.HTMLEntity):
        return node.normalize()
    if isinstance(node, nodes.Heading):
        return f"\n\n{_render(node.title).strip()}\n"
    return ""  # comments and arguments


def _render_link(link: nodes.Wikilink) -> str:
    title = str(link.title)
    if _NAMESPACE.match(title):
        return ""
    return _render(link.text) if link.text is not None else title.lstrip(":")


def _render_tag(tag: nodes.Tag) -> str:
    name = str(tag.tag).strip().lower()
    if name in _DROPPED_TAGS:
        return ""
    content = _render(tag.contents)
    if name not in _LINE_TAGS or tag.wiki_markup:
        return content
    return f"\n{content}\n" if content else "\n"


def _render_template(template: nodes.Template) -> str:
    name = str(template.name).strip().lower()
    if name in _SYMBOLS:
        return _SYMBOLS[name]
    values = [_render(param.value).strip() for param in template.params if not param.showkey]
    if name in ("convert", "cvt"):
        return " ".join(values[: 4 if len(values) > 3 and values[1] in ("to", "-", "–", "by", "x", "and") else 2])
    if name == "frac":
        return "/".join(values)
    if name not in _WORDS or not values:
        return ""
    return values[-1] if _WORDS[name] == "last" else values[0]
