"""Pages that need nothing but themselves: no scripts, no fonts, no files, images as data: addresses."""

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from evaluation.errors import EvaluationError
from evaluation.reporting import histograms, plots
from evaluation.reporting.tables import class_name, class_table, count_text, interval_text, notes, with_spread
from evaluation.reporting.value import Measured

ARROWS = {"lower": "↓ lower", "higher": "↑ higher", "": ""}
SAMPLE_PIXELS = 2**18  # of a page's sample grid: 256 images of 32x32
SIDE = 64  # pixels to which larger images are reduced on a page

# A page asks nothing of any other place, whatever is in it.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --soft: #5f6670; --line: #e3e5e8; --page: #fff; --card: #f7f8f9;
  --accent: #0072b2; --good: #e4f3ec; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e6e9; --soft: #9aa2ad; --line: #353a41; --page: #16181b;
  --card: #1f2226; --accent: #6cb8e8; --good: #1d3b30; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 40px 24px 80px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 44px 0 4px; }
p { margin: 4px 0 12px; color: var(--soft); max-width: 96ch; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 20px; margin: 14px 0 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 10px 0; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 13px; white-space: nowrap; }
th, td { padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.short { white-space: nowrap; }
td.best { background: var(--good); box-shadow: -8px 0 0 var(--good); font-weight: 600; }
td small { display: block; color: var(--soft); font-weight: 400; }
code, pre { font: 13px/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 12px; margin: 6px 0 14px;
  overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
details { border-bottom: 1px solid var(--line); padding: 6px 0; } summary { cursor: pointer; overflow-wrap: anywhere; }
.note { border-left: 3px solid #e69f00; padding: 6px 14px; margin: 8px 0; background: var(--card); }
img { display: block; max-width: 100%; height: auto; }
img.pixels { image-rendering: pixelated; border-radius: 2px; }
figure { width: fit-content; max-width: 100%; margin: 14px 0; padding: 8px; background: #fff;
  border: 1px solid var(--line); border-radius: 6px; }
.strips { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 14px; align-items: center; }
.strips span { color: var(--soft); font-size: 13px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(480px, 1fr)); gap: 14px; }
.card { display: flex; gap: 6px; background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  padding: 10px; font-size: 12px; color: var(--soft); line-height: 1.3; }
.card > div { width: 64px; overflow-wrap: anywhere; } .card > div:first-child { width: 84px; }
.card img { width: 64px; margin-bottom: 4px; }
.classes { columns: 3 280px; column-gap: 32px; font-variant-numeric: tabular-nums; }
.class { display: grid; grid-template-columns: minmax(0, 1fr) 90px 62px; gap: 8px; align-items: center;
  break-inside: avoid; border-bottom: 1px solid var(--line); padding: 3px 0; }
.class small { display: block; color: var(--soft); }
.class span:last-child { text-align: right; } .class span:first-child { overflow-wrap: anywhere; }
.bar { height: 8px; background: var(--accent); border-radius: 2px; }
.samples { display: grid; grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)); gap: 20px; }
.samples h3 { font-size: 14px; margin: 0 0 6px; overflow-wrap: anywhere; }
@media print { details { display: block; } }
"""


class Markup(str):
    """Text that is HTML already; every other text is escaped on its way into a page."""

    __slots__ = ()


def tag(name: str, /, *content: str, **attributes: str) -> Markup:
    """An element. Content that is no `Markup`, and every attribute, is escaped; `class_` stands for class."""
    written = "".join(f' {key.rstrip("_")}="{escape(str(value))}"' for key, value in attributes.items())
    if name in ("img", "link", "meta"):
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{joined(content)}</{name}>")


def joined(parts: Iterable[str]) -> Markup:
    """Parts one after the other, escaped where they are no `Markup`."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def page(title: str, *sections: str) -> str:
    """A whole document."""
    head = joined(
        [
            tag("meta", charset="utf-8"),
            tag("meta", **{"http-equiv": "Content-Security-Policy", "content": POLICY}),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", title),
            tag("link", rel="icon", href="data:,"),
            tag("style", Markup(STYLE)),
        ]
    )
    body = tag("body", *(Markup(f"\n{joined([section])}") for section in sections), Markup("\n"))
    return f'<!doctype html>\n<html lang="en">\n{tag("head", head)}\n{body}\n</html>\n'


def section(title: str, lead: str, *content: str) -> Markup:
    """A heading, a sentence or two, and content."""
    return tag("section", tag("h2", title), tag("p", lead) if lead else "", *content)


def table(header: Sequence[str], rows: Iterable[Sequence[Markup]]) -> Markup:
    """A table of `td` elements."""
    head = tag("thead", tag("tr", *(tag("th", name) for name in header)))
    return tag("div", tag("table", head, tag("tbody", *(tag("tr", *row) for row in rows))), class_="wide")


def definitions(items: dict[str, Any]) -> Markup:
    """Names and what they stand for; what is None is left out."""
    pairs = ((tag("dt", str(name)), tag("dd", _plain(item))) for name, item in items.items() if item is not None)
    return tag("dl", *(part for pair in pairs for part in pair))


def figure(drawn: Figure, description: str) -> Markup:
    """A drawing that stays sharp at any size. As an image it cannot reach the page, whatever its texts hold."""
    return tag("figure", _image(plots.svg(drawn), "image/svg+xml", description))


def samples_of(arrays: dict[str, np.ndarray], class_names: Sequence[str] = (), *, columns: int = 8) -> Markup:
    """Rows of samples; with labels a row for each class, with its name. As many rows as a page can bear."""
    images = _small(arrays["samples"])
    labels = arrays.get("sample_labels")
    if labels is None:
        rows = [("", images[start : start + columns]) for start in range(0, len(images), columns)]
    else:
        rows = [(class_name(int(label), class_names), images[labels == label]) for label in np.unique(labels)]
    most = max(SAMPLE_PIXELS // (columns * images.shape[2] * images.shape[3]), 1)
    strips = ((tag("span", name), _strip(list(row), f"samples {name}".strip())) for name, row in rows[:most])
    return tag("div", *(part for pair in strips for part in pair), class_="strips")


def report_page(report: Measured, *, training_log: str | Path | None = None) -> str:
    """A report as one page.

    Args:
        training_log: metrics.jsonl of the run; a page whose log holds no curves says so.
    """
    protocol = report.protocol
    return page(
        _heading(report),
        _header(report),
        _values(report),
        *(tag("p", note, class_="note") for note in notes(report)),
        _samples(report),
        _neighbours(report),
        _classes(report),
        *(_per_class(report, name) for name in report.arrays if name.endswith("/per_class")),
        *(_histograms(report, family) for family in histograms.families(report)),
        _layers(report),
        _training(training_log),
        *(_critics(report, name) for name in report.arrays if name.endswith("/losses")),
        _protocols(report),
        section("Machine", "", tag("details", tag("summary", "where and when"), _json(protocol["machine"]))),
    )


def _header(report: Measured) -> Markup:
    return tag("header", tag("h1", _heading(report)), definitions(report.protocol["subject"]))


def _heading(report: Measured) -> str:
    """Such as "CIFAR-10, srn70, step 4000", of what is known: pages of many runs lie beside each other."""
    subject = report.protocol["subject"]
    parts = [report.protocol["title"] or Measured, subject.get("experiment")]
    parts += [f"step {subject['step']}"] if subject.get("step") is not None else []
    return ", ".join(str(part) for part in parts if part)


def _values(report: Measured) -> Markup:
    rows = [_value_row(report, number, key) for number, key in enumerate(report.values)]
    lead = (
        "Mean ± standard deviation over splits, subsets or critics. Two values may be compared when their protocol "
        "hashes are equal, and not otherwise."
    )
    return section("Values", lead, table(["metric", "value", "95 % interval", "images", "better", "protocol"], rows))


def _value_row(report: Measured, number: int, key: str) -> list[Markup]:
    entry = report.protocol["values"][key]
    floor = _floor(report, key)
    obtained = entry["record"].get("interval")
    return [
        tag("td", tag("code", key)),
        tag("td", with_spread(report.values[key], entry["std"]), tag("small", floor) if floor else ""),
        tag("td", interval_text(entry["interval"]), tag("small", str(obtained)) if obtained else ""),
        tag("td", count_text(entry)),
        tag("td", ARROWS.get(entry["better"], entry["better"]), class_="short"),
        tag("td", tag("a", tag("code", entry["hash"][:8]), href=f"#protocol-{number}")),
    ]


def _floor(report: Measured, key: str) -> str:
    """What two samples of the real images give at the same counts, where it was measured."""
    name, slash, extractor = key.partition("/")
    floor = report.values.get(f"{name}_floor{slash}{extractor}")
    return "" if floor is None else f"real against real: {floor:.4g}"


def _samples(report: Measured) -> str:
    if "samples" not in report.arrays:
        return ""
    lead = "The first of the measured images, unselected, as they were measured. samples.png beside this page has all."
    return section("Samples", lead, samples_of(report.arrays, report.protocol["class_names"]))


def _neighbours(report: Measured) -> str:
    arrays, how = report.arrays, report.protocol["neighbours"]
    if "neighbours" not in arrays:
        return ""
    ratio = how.get("median_ratio")
    lead = (
        f"Left the first samples, right of each the nearest of {how['num_reference']:,} reference images"
        f"{' (' + how['reference'] + ')' if how['reference'] else ''}, with Euclidean distances by {how['features']}. "
        "The ratio is the distance to the nearest over that image's own distance to its nearest other reference image: "
        "1 or more for new images, near 0 for copies." + ("" if ratio is None else f" Median ratio: {ratio:.3g}.")
    )
    cards = (_card(report, row) for row in range(len(arrays["neighbours"])))
    return section("Nearest reference images", lead, tag("div", *cards, class_="cards"))


def _card(report: Measured, row: int) -> Markup:
    arrays = report.arrays
    labels, ratios = arrays.get("neighbour_labels"), arrays.get("neighbour_ratios")
    name = "" if labels is None else class_name(int(labels[row]), report.protocol["class_names"])
    ratio = "" if ratios is None or not np.isfinite(ratios[row]) else f"ratio {ratios[row]:.3g}"
    captions = (tag("div", text) for text in (name, ratio) if text)
    sample = tag("div", _picture(arrays["neighbour_samples"][row], f"sample {name}".strip()), *captions)
    found = zip(arrays["neighbours"][row], arrays["neighbour_distances"][row], strict=True)
    nearest = (tag("div", _picture(image, "reference image"), f"{distance:.4g}") for image, distance in found)
    return tag("div", sample, *nearest, class_="card")


def _classes(report: Measured) -> str:
    header, *rows = class_table(report) or [[]]
    if not rows:
        return ""
    cells = ([tag("td", row[0]), *(tag("td", cell, class_="short") for cell in row[1:])] for row in rows)
    return section("Classes", "classes.csv beside this page has the same table.", table(header, cells))


def _per_class(report: Measured, name: str) -> Markup:
    values = report.arrays[name]
    key = name.removesuffix("/per_class")
    labels = report.arrays.get(f"{key}/classes", np.arange(len(values)))
    finite = values[np.isfinite(values)]
    largest = max(float(finite.max(initial=0)), 1e-12)
    counts = _class_counts(report, key, len(values))
    rows = (
        tag(
            "div",
            tag("span", class_name(label, report.protocol["class_names"]), tag("small", count) if count else ""),
            tag("div", tag("div", class_="bar", style=f"width: {100 * max(_finite(value), 0) / largest:.1f}%")),
            tag("span", f"{value:.4g}"),
            class_="class",
        )
        for label, value, count in zip(labels.tolist(), values.tolist(), counts, strict=True)
    )
    lead = f"{len(values)} classes"
    if len(finite):
        lead += f", from {finite.min():.4g} to {finite.max():.4g}, mean {finite.mean():.4g}"
    return section(f"{key}, class by class", f"{lead}.", tag("div", *rows, class_="classes"))


def _class_counts(report: Measured, key: str, num_classes: int) -> list[str]:
    """ "500 generated, 5,000 reference" or "100 images" of each class; nothing where a report does not tell."""
    classes = report.protocol["values"].get(key, {}).get("record", {}).get("classes", [])
    kinds = ("generated", "reference", "images")
    counts = [", ".join(f"{entry[kind]:,} {kind}" for kind in kinds if kind in entry) for entry in classes]
    return counts or [""] * num_classes


def _histograms(report: Measured, family: str) -> Markup:
    drawn, known = histograms.kinds_figure(report, family), histograms.FAMILIES[family]
    lead = f"Density over pairs or points; the dashed lines are {known.line_name}s."
    return section(known.title, lead, figure(drawn, known.title))


def _layers(report: Measured) -> str:
    curves = plots.layer_curves(report.arrays)
    if not curves:
        return ""
    drawn = plots.layers_figure({report.protocol["title"]: curves})
    details = tag("details", tag("summary", "layer by layer"), _layer_table(report, curves))
    lead = "Of the weights as they are used, from exact singular values."
    return section("Layers", lead, figure(drawn, "Layers"), details)


def _layer_table(report: Measured, curves: plots.Curves) -> Markup:
    records = (entry["record"] for entry in report.protocol["values"].values())
    names: list[str] = next((record["layers"] for record in records if "layers" in record), [])
    rows = [
        [tag("td", str(number)), tag("td", name), *(tag("td", f"{value:.6g}") for value in values)]
        for number, name, *values in zip(count(1), names, *(values for _, values in curves.values()), strict=False)
    ]
    return table(["layer", "name", *curves], rows)


def _training(training_log: str | Path | None) -> str:
    if training_log is None:
        return ""
    try:
        curves = plots.read_curves(training_log)
    except EvaluationError:
        return section("Training", "The run has logged no losses.")
    return section("Training", "", figure(plots.curves_figure(curves), "what the log says of the training"))


def _critics(report: Measured, name: str) -> Markup:
    label = name.removesuffix("/losses")
    drawn = plots.critics_figure(report, name)
    return section("Critics", "Training losses of the critics of Neural Divergence.", figure(drawn, f"{label} losses"))


def _protocols(report: Measured) -> Markup:
    blocks = []
    for number, key in enumerate(report.values):
        entry = report.protocol["values"][key]
        inside = [tag("p", "What decides the value, and is hashed:"), _json(entry["fields"])]
        if entry["record"]:
            inside += [tag("p", "Worth knowing besides:"), _json(entry["record"])]
        content = tag("div", *inside, id=f"protocol-{number}")  # a link to what is inside opens the details
        blocks.append(tag("details", tag("summary", tag("code", f"{key}  {entry['hash']}")), content))
    return section("Protocols", "", *blocks)


def _json(item: Any) -> Markup:
    return tag("pre", json.dumps(item, indent=2, ensure_ascii=False))


def _plain(item: Any) -> str:
    return item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)


def _finite(value: float) -> float:
    return value if np.isfinite(value) else 0.0


def _small(images: np.ndarray) -> np.ndarray:
    """Images (N, 3, H, W) reduced by a whole number, averaging, where they are larger than a page can bear."""
    factor = -(-max(images.shape[2:]) // SIDE)
    if factor == 1:
        return images
    height, width = (size // factor * factor for size in images.shape[2:])
    blocks = images[:, :, :height, :width].reshape(len(images), 3, height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean(axis=(3, 5)).round().astype(np.uint8))


def _picture(image: np.ndarray, description: str) -> Markup:
    return _image(plots.png(list(_small(image[None]))), "image/png", description, class_="pixels")


def _strip(images: Sequence[np.ndarray], description: str) -> Markup:
    width = sum(image.shape[2] + plots.GAP for image in images) - plots.GAP
    enlarged = max(SIDE // images[0].shape[2], 1)
    return _image(plots.png(images), "image/png", description, class_="pixels", width=str(width * enlarged))


def _image(content: bytes, kind: str, description: str, **attributes: str) -> Markup:
    source = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return tag("img", src=source, alt=description, **attributes)
