"""Small charts as SVG that a style sheet colours: no script, no inline style, and a title on what can be pointed at."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from markupsafe import Markup, escape

from atlas.site.numbers import known, short

Points = Sequence[tuple[float, float]]


def bars(
    counts: Sequence[int] | np.ndarray, edges: Sequence[float] | np.ndarray, width: int = 300, height: int = 84
) -> Markup:
    """A histogram; heights are of log(1 + count), for activations have long tails, and each bar says its count."""
    heights = np.log1p(np.asarray(counts, float))
    scale = (height - 2) / (heights.max(initial=0) or 1)
    step = width / max(1, len(counts))
    parts = []
    for index, (count, tall) in enumerate(zip(counts, heights * scale, strict=True)):
        x, wide, tall = round(index * step), round((index + 1) * step) - round(index * step) - 1, round(float(tall), 1)
        title = f"{short(float(edges[index]))} – {short(float(edges[index + 1]))}: {int(count):,}"
        parts.append(f'<path d="M{x} {height}v{-tall}h{wide}v{tall}z"><title>{title}</title></path>')
    return _svg("bars", width, height, parts, "histogram")


def strip(
    value: float | None,
    interval: Sequence[float] | None,
    null: float | None,
    limit: float | None,
    domain: tuple[float, float],
    width: int = 240,
) -> Markup:
    """One number on a line: a dot with its interval, a hollow diamond for the null, a tick for a limit."""
    place = _scale(domain, width, 8)
    parts = [f'<line class="axis" x1="0" x2="{width}" y1="14" y2="14"/>']
    if known(limit):
        parts.append(f'<line class="limit" x1="{place(limit)}" x2="{place(limit)}" y1="3" y2="25"/>')
    if interval is not None and all(map(known, interval)):
        low, high = map(place, interval)
        parts.append(f'<line class="interval" x1="{low}" x2="{high}" y1="14" y2="14"/>')
    if known(null):
        x = place(null)
        parts.append(f'<path class="null" d="M{x} 8l6 6-6 6-6-6z"/>')
    if known(value):
        parts.append(f'<circle class="value" cx="{place(value)}" cy="14" r="4.5"/>')
    return _svg("strip", width, 28, parts, f"value {short(value)}, null {short(null)}, limit {short(limit)}")


def dots(
    rows: Sequence[tuple[float | None, float | None, float | None]],
    domain: tuple[float, float],
    reference: float | None = None,
    logarithmic: bool = False,
    width: int = 150,
) -> list[Markup]:
    """For each (value, low, high) a line of its own on one scale, with the same reference line."""
    place = _scale(domain, width, 5, logarithmic)
    found = []
    for value, low, high in rows:
        parts = [] if reference is None else [f'<path class="limit" d="M{place(reference)} 0v18"/>']
        if known(low) and known(high):
            parts.append(f'<path class="interval" d="M{place(low)} 9H{place(high)}"/>')
        if known(value):
            parts.append(f'<circle cx="{place(value)}" cy="9" r="4"/>')
        # The number stands beside it as text; the axis is the element's background.
        found.append(Markup(f'<svg class="dots" viewBox="0 0 {width} 18" aria-hidden="true">{"".join(parts)}</svg>'))
    return found


def ticks(groups: Mapping[str, Sequence[float]], width: int = 300) -> dict[str, Markup]:
    """Each group's numbers as fine lines on one common scale, and their mean as a strong one."""
    everything = [value for values in groups.values() for value in values if known(value)]
    place = _scale((min(everything, default=0), max(everything, default=1)), width, 3, digits=None)
    found = {}
    for name, values in groups.items():
        own = [value for value in values if known(value)]
        # One path for all: hundreds of elements would be most of a page.
        parts = [f'<path d="{"".join(f"M{x} 3v14" for x in sorted({place(value) for value in own}))}"/>']
        if own:
            middle = place(sum(own) / len(own))
            parts.append(f'<path class="mean" d="M{middle} 0v20"/>')
        found[name] = _svg("ticks", width, 20, parts, f"{name}: {len(own)} answers")
    return found


def lines(
    series: Mapping[str, Points],
    reference: float | None = None,
    zero: bool = False,
    width: int = 260,
    height: int = 110,
    unit: str = "rows",
) -> Markup:
    """Curves; the first is drawn in the accent colour, the others dashed and grey. Extremes of both axes are named.

    `unit` is what the horizontal axis counts.
    """
    xs = [x for points in series.values() for x, y in points if known(y)]
    ys = [y for points in series.values() for x, y in points if known(y)] + ([reference] if known(reference) else [])
    if not xs:
        return Markup("")
    low, high = min([*ys, 0.0] if zero else ys), max(ys)
    high = high if high > low else low + 1
    left = 46
    across, up = _scale((min(xs), max(xs)), width - left - 4, 2), _scale((low, high), height - 22, 4)
    parts = [f'<line class="axis" x1="{left}" x2="{width}" y1="{height - 17}" y2="{height - 17}"/>']
    for value, y in ((high, 9), (low, height - 20)):
        parts.append(f'<text x="{left - 5}" y="{y}" text-anchor="end">{value:.2g}</text>')
    parts.append(f'<text x="{left}" y="{height - 3}">{short(min(xs))}</text>')
    parts.append(f'<text x="{width - 2}" y="{height - 3}" text-anchor="end">{short(max(xs))} {escape(unit)}</text>')
    if known(reference):
        y = round(height - 18 - up(reference), 1)
        parts.append(f'<line class="limit" x1="{left}" x2="{width}" y1="{y}" y2="{y}"/>')
    for number, (name, points) in enumerate(series.items()):
        path = " ".join(f"{left + across(x):.1f},{height - 18 - up(y):.1f}" for x, y in points if known(y))
        parts.append(f'<polyline class="line{number}" points="{path}"><title>{escape(name)}</title></polyline>')
    return _svg("lines", width, height, parts, ", ".join(series))


def constellation(
    points: Iterable[tuple[int, float, float, str, str | None]],
    random: tuple[Sequence[float], Sequence[float]],
    dense: float,
    copies: float,
) -> Markup:
    """A dictionary at a look: every latent (number, density, largest cosine, outcome, link) by density and redundancy.

    `random` are densities and largest cosines of a random dictionary; the box holds the middle 90 % of each. Densities
    are on a logarithmic scale from 10⁻⁵; silent latents stand at its left end. Limits: above `dense` a latent is
    noise, above `copies` a copy. The scales are the same for all dictionaries, so that pages can be compared.
    """
    width, height, left = 620, 300, 46
    across, up = _scale((1e-5, 1.0), width - left - 14, 8, True), _scale((0.0, 1.0), height - 40, 6)

    def at(density: float, cosine: float) -> tuple[float, float]:
        return round(left + across(max(density, 1e-5)), 1), round(height - 30 - up(cosine), 1)

    bottom, (x, y) = height - 30, at(dense, copies)
    parts = [_line("axis", left, width - 6, bottom, bottom), _line("axis", left, left, 6, bottom)]
    parts += [_line("limit", x, x, 6, bottom), _line("limit", left, width - 6, y, y)]
    for power in range(-5, 1):
        name = {-5: "silent", 0: "always"}.get(power, f"10{_power(power)}")
        parts.append(f'<text x="{at(10.0**power, 0)[0]}" y="{height - 14}" text-anchor="middle">{name}</text>')
    for value in (0, 0.5, 1):
        parts.append(f'<text x="{left - 6}" y="{at(1, value)[1] + 4}" text-anchor="end">{value:g}</text>')
    parts.append(f'<text x="{(width + left) // 2}" y="{height - 1}" text-anchor="middle">share of tokens</text>')
    parts.append(f'<text x="{x + 4}" y="16">dense</text><text x="{left + 6}" y="{y - 4}">copies</text>')
    for latent, density, cosine, outcome, link in points:
        (cx, cy), title = at(density, cosine), f"<title>{latent}</title>"
        dot = f'<circle class="o-{escape(outcome)}" r="3.2" cx="{cx}" cy="{cy}">{title}</circle>'
        parts.append(f'<a href="{escape(link)}" tabindex="-1">{dot}</a>' if link else dot)
    if len(random[0]):
        (x1, y1), (x2, y2) = (at(*(float(np.quantile(column, q)) for column in random)) for q in (0.05, 0.95))
        x2, y1 = max(x2, x1 + 4), max(y1, y2 + 4)
        parts.append(f'<rect class="random" x="{x1}" y="{y2}" width="{x2 - x1:.1f}" height="{y1 - y2:.1f}"/>')
        parts.append(f'<path class="lead" d="M{x1} {y2}L{x1 - 40:.1f} {y2 - 40:.1f}"/>')
        parts.append(f'<text x="{x1 - 42:.1f}" y="{y2 - 42:.1f}" text-anchor="end">random dictionary</text>')
    return _svg("map", width, height, parts, "latents by density and largest decoder cosine")


def shares(parts: Mapping[str, float], width: int = 300) -> Markup:
    """A bar cut in proportion; each part has its name as class and title."""
    total, begin, found = sum(parts.values()) or 1, 0.0, []
    for name, value in parts.items():
        wide = width * value / total
        place = f'x="{begin:.1f}" y="0" width="{max(0, wide - 1):.1f}" height="12"'
        title = f"<title>{escape(name)}: {short(value)}</title>"
        found.append(f'<rect class="o-{escape(name)}" {place}>{title}</rect>')
        begin += wide
    return _svg("shares", width, 12, found, ", ".join(f"{name} {short(value)}" for name, value in parts.items()))


def _line(kind: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1}" x2="{x2}" y1="{y1}" y2="{y2}"/>'


def _power(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _scale(domain: tuple[float, float], width: float, margin: float, logarithmic: bool = False, digits: int | None = 1):
    """From values to places between `margin` and `width` − `margin`; values beyond the domain stand at its ends."""
    low, high = (math.log10(end) for end in domain) if logarithmic else domain

    def place(value: float) -> float:
        given = math.log10(max(value, 1e-12)) if logarithmic else float(value)
        share = (given - low) / (high - low) if high > low else 0.5
        return round(margin + min(1.0, max(0.0, share)) * (width - 2 * margin), digits)

    return place


def _svg(kind: str, width: int, height: int, parts: Iterable[str], name: str) -> Markup:
    begin = f'<svg class="{kind}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
    return Markup(f'{begin} aria-label="{escape(name)}">{"".join(parts)}</svg>')  # names are escaped, the rest is ours
