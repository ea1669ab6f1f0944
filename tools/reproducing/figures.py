"""Figures of the paper from our runs: histograms, losses over the steps, samples, bars."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from string import ascii_lowercase

from PIL import Image

from evaluation.errors import EvaluationError
from evaluation.reporting.histograms import FAMILIES, NAMES, histograms, line_of, plot_histograms
from evaluation.reporting.plots import overlaid_figure, save_figure
from evaluation.reporting.tables import markdown_table
from reproducing.bars import Bar, bars_figure
from reproducing.catalogue import COLUMNS
from reproducing.claims import Panels, claims_markdown
from reproducing.conditions import title_of
from reproducing.content import AnyModel, Bars, Curves, Figure, Histograms, Samples
from reproducing.kinds import Kind, kind_of
from reproducing.measured import Measured, steadiness
from reproducing.results import Seeds, Spread, of_all, over_seeds
from reproducing.tables import MISSING, conditions, head

NOT_PRINTED = "not printed"
DRAWN = "Drawn are the means and their intervals; dots are seeds; the axis does not begin at 0."


def figure_markdown(figure: Figure, panels: Panels, file: Callable[[str], Path]) -> str:
    """Draws the figure's panels into PNG files; returns them and their numbers as Markdown.

    Args:
        file: the PNG file of a panel, by a letter, or "" of the only one.
    """
    drawers: dict[type, Callable[..., list[str]]] = {
        Histograms: _histograms,
        Curves: _curves,
        Samples: _samples,
        Bars: _bars,
    }
    parts = drawers[type(figure)](figure, panels, file)
    parts += claims_markdown(getattr(figure, "claims", ()), panels)
    if not isinstance(figure, Bars):  # whose lines say it themselves
        parts += sorted(
            {
                f"{model.label} ({seeds.config.name}): not run: {seeds.reason}"
                for members in panels.values()
                for model, seeds in members.items()
                if not seeds.runs
            }
        )
    return "\n\n".join(parts)


def _kind(panels: Panels) -> Kind:
    """All models of a figure are of one."""
    return kind_of(next(model for members in panels.values() for model in members))


def _histograms(figure: Histograms, panels: Panels, file: Callable[[str], Path]) -> list[str]:
    parts, letters = [], iter(ascii_lowercase)
    for title, members in panels.items():
        drawn = False
        for kind in figure.kinds:
            letter = next(letters) if len(panels) * len(figure.kinds) > 1 else ""
            reports = {
                model.label: seeds.runs[0].report
                for model, seeds in members.items()
                if seeds.runs and model.label not in figure.omitted.get((title, kind), ())
            }
            reports = {label: report for label, report in reports.items() if kind in histograms(report)}
            if reports:
                plot_histograms(reports, kind, file(letter))
                what = f", {NAMES[kind]}" if len(figure.kinds) > 1 else ""
                parts.append(f"![{figure.title}, {title}{what}]({file(letter).name})")
                drawn = True
        if drawn:
            parts.append(_percentiles(figure, title, members))
    return [*parts, *filter(None, [_kind(panels).NOTE, figure.note])] if parts else []


def _percentiles(figure: Histograms, title: str, members: Mapping[AnyModel, Seeds]) -> str:
    """A table of what the figure shows of the first seed, over all seeds, each row with its protocol."""
    several = len(figure.kinds) > 1
    patterns = {
        f"{NAMES[kind]}, {_line_name(kind)}" if several else _line_name(kind): line_of(kind) for kind in figure.kinds
    }
    patterns |= {
        name: column.key
        for name, column in COLUMNS.items()
        if column.metric in figure.metrics and not set(patterns.values()) & {column.key}
    }
    kind = _kind({title: members})
    paper = [*("" for _ in patterns), *(figure.protocol.get(name, "") for name in kind.CONDITIONS)]
    rows = [[title, *patterns, *kind.CONDITIONS], ["paper", *paper]]
    for model, seeds in members.items():
        if seeds.runs:
            found = {name: over_seeds(seeds.runs, pattern) for name, pattern in patterns.items()}
            shown = [value.spread.text(kind.REACH) if value else MISSING for value in found.values()]
            values = [value for value in found.values() if value]
            rows.append([model.label, *shown, *conditions(model, seeds, values)])
    return markdown_table(rows)


def _line_name(kind: str) -> str:
    return FAMILIES[kind.partition("/")[0]].line_name


def _curves(figure: Curves, panels: Panels, file: Callable[[str], Path]) -> list[str]:
    curves = {
        title: {
            model.label: seeds.runs[0].curves[figure.key]
            for model, seeds in members.items()
            if seeds.runs and figure.key in seeds.runs[0].curves
        }
        for title, members in panels.items()
    }
    curves = {title: found for title, found in curves.items() if found}
    if not curves:
        return []
    order = list(dict.fromkeys(model.label for members in panels.values() for model in members))
    save_figure(overlaid_figure(curves, order=order), file(""))
    names = _kind(panels).CONDITIONS
    rows = [["", "model", "spread around a line, last half", *names]]
    rows.append(["", "paper", "", *(figure.protocol.get(name, "") for name in names)])
    for title, members in panels.items():
        for model, seeds in members.items():
            if seeds.runs:
                spread = str(Spread.of(of_all(seeds.runs, steadiness)))
                rows.append([title, model.label, spread, *conditions(model, seeds, [])])
    picture = f"![{figure.title}]({file('').name})"
    return [
        picture,
        "Drawn is the first seed of each; no curve is shifted, as the paper's of SRN-70 is (by 0.2).",
        markdown_table(rows),
    ]


def _samples(figure: Samples, panels: Panels, file: Callable[[str], Path]) -> list[str]:
    rows, parts = [], []
    for members in panels.values():
        for letter, (model, seeds) in zip(ascii_lowercase, members.items(), strict=False):
            if seeds.runs:
                grid = file(letter if len(members) > 1 else "")
                _grid(seeds.runs[0], grid)
                rows.append(f"{model.label}, {title_of(seeds.config)}, {seeds.config.train.steps:,} iterations")
                parts.append(f"![{model.label}]({grid.name})")
    if not rows:
        return []
    return [
        markdown_table([rows, parts]),
        f"The first images of the first seed, unselected. {figure.paper}",
    ]


def _grid(run: Measured, file: Path) -> None:
    """The newest sample grid that training left."""
    grids = sorted((run.folder / "samples").glob("step-*.png"))
    if not grids:
        raise EvaluationError(f"{run.folder}: got no sample grid, expected samples/step-*.png")
    Image.open(grids[-1]).save(file)


def _bars(figure: Bars, panels: Panels, file: Callable[[str], Path]) -> list[str]:
    """A picture for each column, with a panel for each section; a table with a row for each line."""
    kind, pictures = _kind(panels), []
    drawn: dict[str, dict[str, list[Bar]]] = {name: {} for name in figure.columns}
    rows = [["panel", "model", *(cell for name in figure.columns for cell in ("paper", head(name))), *kind.CONDITIONS]]
    rows.append(
        ["", "paper", *[""] * 2 * len(figure.columns), *(figure.protocol.get(name, "") for name in kind.CONDITIONS)]
    )
    for line in figure.lines:
        seeds = panels[line.section][line.model]
        found = {name: over_seeds(seeds.runs, COLUMNS[name].key) for name in figure.columns}
        cells = []
        for name, value in found.items():
            missing = MISSING if seeds.runs else f"not run: {seeds.reason}"
            cells += [line.printed.get(name, NOT_PRINTED), value.spread.text(kind.REACH) if value else missing]
            if value:
                reach = kind.REACH(value.spread)
                bar = Bar(line.model.label, value.spread.mean, 0.0 if math.isnan(reach) else reach, value.values)
                drawn[name].setdefault(line.section, []).append(bar)
        values = [value for value in found.values() if value]
        own = conditions(line.model, seeds, values) if seeds.runs else [""] * len(kind.CONDITIONS)
        rows.append([line.section, line.model.label, *cells, *own])
    for letter, (name, sections) in zip(ascii_lowercase, drawn.items(), strict=False):
        if sections:
            picture = file(letter if len(figure.columns) > 1 else "")
            save_figure(bars_figure(sections, axis=name), picture)
            pictures.append(f"![{figure.title}: {name}]({picture.name})")
    notes = [DRAWN] if pictures else []
    return [*pictures, *notes, markdown_table(rows), *filter(None, [kind.NOTE, figure.note])]
