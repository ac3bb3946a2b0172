"""Wiki markup reads as prose."""

import pytest

from atlas.corpora.wikitext import strip_markup

PAGE = """{{Infobox person|name=Ada}}
[[File:Ada.jpg|thumb|A [[portrait]] of Ada]]
'''Ada Lovelace''' ({{lang-en|Ada}}; 1815{{ndash}}1852) was an [[England|English]] ''mathematician''.<ref name="x">A
footnote</ref> She walked {{convert|5|km|mi}} and wrote {{lang|la|notae}}.<!-- hidden -->
{| class="wikitable"
| cell || other
|}
* first [https://example.org program]
* second &amp; last
== Life ==
=== Early ===
Born in [[London]].<br />Then travelled.
=== Works ===
{{Main|Works}}
== See also ==
* [[Charles Babbage]]
=== Deeper ===
Nothing to read.
== Legacy ==
Remembered.
[[Category:Mathematicians]]
[[fr:Ada Lovelace]]
== References ==
{{reflist}}
"""


def test_page_becomes_prose():
    assert strip_markup(PAGE) == (
        "Ada Lovelace (1815–1852) was an English mathematician. She walked 5 km and wrote notae.\n\n"
        "first program\nsecond & last\n\n"
        "Life\n\nEarly\n\nBorn in London.\nThen travelled.\n\n"
        "Legacy\n\nRemembered."
    )


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("a{{citation needed}} b", "a b"),
        ("[[A (letter)|A]]s and [[B]]s", "As and Bs"),
        ("see [[:Category:Things]]", "see Category:Things"),
        ("x<sub>2</sub> {{frac|1|2}} {{nowrap|5 kg}}", "x2 1/2 5 kg"),
        ("Text. __NOTOC__", "Text."),
        ("from {{convert|5|to|10|km|mi}} away", "from 5 to 10 km away"),
        ("== Empty ==\n\n== Full ==\ntext", "Full\n\ntext"),
        ("", ""),
    ],
)
def test_parts_of_markup(markup, text):
    assert strip_markup(markup) == text
