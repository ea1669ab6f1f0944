"""Figures of the paper drawn from our runs: histograms, losses over the steps, samples, bars."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase

from PIL import Image

from evaluation.errors import EvaluationError
from evaluation.reporting.histograms import FAMILIES, NAMES, histograms, line_of, plot_histograms
from evaluation.reporting.plots import overlaid_figure, save_figure
from evaluation.reporting.tables import markdown_table
from reproducing.measured import MeasuredRun, steadiness
from reproducing.pages.bars import Bar, bars_figure
from reproducing.pages.claims import Panels, claims_markdown
from reproducing.pages.conditions import OURS, PAPER, Conditions, describe_data
from reproducing.pages.tables import MISSING, VARYING, ModelRow, conditions_of, head, rows_of
from reproducing.paper.columns import COLUMNS
from reproducing.paper.content import BarFigure, CurveFigure, HistogramFigure, Model, PaperFigure, SampleFigure
from reproducing.results import Ours, Seeds, Spread, of_all, over_seeds

NOT_PRINTED = "not printed"
DRAWN = "Drawn are the means and their intervals; dots are seeds; the axis does not begin at 0."
FIRST_SEED = "Drawn is the first seed of each; no curve is shifted, as the paper's of SRN-70 is (by 0.2)."

PictureFile = Callable[[str], Path]
"""Function that returns the PNG file of a panel by its letter, which is "" for a single panel."""


def figure_markdown(figure: PaperFigure, panels: Panels, file: PictureFile) -> str:
    """Draws the figure's panels into PNG files; returns Markdown with the pictures and their numbers."""
    drawers: dict[type, Callable[..., list[str]]] = {
        HistogramFigure: _histograms,
        CurveFigure: _curves,
        SampleFigure: _samples,
        BarFigure: _bars,
    }
    parts = drawers[type(figure)](figure, panels, file)
    parts += claims_markdown(getattr(figure, "claims", ()), panels)
    if not isinstance(figure, BarFigure):  # a bar chart's table has rows for missing runs
        parts += sorted(
            {
                f"{model.label} ({seeds.config.name}): not run: {seeds.reason}"
                for members in panels.values()
                for model, seeds in members.items()
                if not seeds.runs
            }
        )
    return "\n\n".join(filter(None, parts))


def _one_of(panels: Panels) -> Model:
    """First model of a figure, whose models are either all GANs or all classifiers."""
    return next(model for members in panels.values() for model in members)


def _table(
    names: Sequence[str], rows: Sequence[tuple[Sequence[str], Mapping[str, str]]], paper: Mapping[str, str]
) -> str:
    """Table of conditions equal in all rows, and table of our rows with the varying conditions.

    Args:
        names: names of the columns.
        rows: cells and conditions of our rows.
        paper: conditions of the paper's numbers.
    """
    conditions = Conditions({PAPER: [paper], OURS: [own for _, own in rows if own]})
    table = [[*names, VARYING], *([*cells, conditions.cell(OURS, own)] for cells, own in rows)]
    return f"{conditions.markdown()}\n\n{markdown_table(table)}"


def _histograms(figure: HistogramFigure, panels: Panels, file: PictureFile) -> list[str]:
    """Pictures of the first seeds, and a table of percentiles and scores over all seeds."""
    pictures: list[str] = []
    rows, letters = [], iter(ascii_lowercase)
    patterns = _patterns(figure)
    several = len(panels) * len(figure.kinds) > 1
    for title, members in panels.items():
        files = [file(next(letters) if several else "") for _ in figure.kinds]
        drawn = [_histogram(figure, title, members, *pair) for pair in zip(figure.kinds, files, strict=True)]
        pictures += filter(None, drawn)
        for model, seeds in members.items():
            if seeds.runs:
                found = [over_seeds(seeds.runs, pattern) for pattern in patterns.values()]
                cells = [title, model.label, *(value.spread.text(model.reach) if value else MISSING for value in found)]
                rows.append((cells, conditions_of(model, seeds, [value for value in found if value])))
    if not pictures:
        return []
    table = _table(["panel", "model", *patterns], rows, figure.protocol)
    return [*pictures, table, _one_of(panels).note, figure.note]


def _histogram(figure: HistogramFigure, title: str, members: Mapping[Model, Seeds], kind: str, file: Path) -> str:
    """Draws one kind of histogram for a panel's models; returns its Markdown, "" if no run has it."""
    omitted = figure.omitted.get((title, kind), ())
    reports = {
        model.label: seeds.runs[0].report
        for model, seeds in members.items()
        if seeds.runs and model.label not in omitted and kind in histograms(seeds.runs[0].report)
    }
    if not reports:
        return ""
    plot_histograms(reports, kind, file)
    shown = f", {NAMES[kind]}" if len(figure.kinds) > 1 else ""
    return f"![{figure.title}, {title}{shown}]({file.name})"


def _patterns(figure: HistogramFigure) -> dict[str, str]:
    """Keys of the values in a figure's table, by column name."""
    patterns = {_line_name(figure, kind): line_of(kind) for kind in figure.kinds}
    scores = {name: column.key for name, column in COLUMNS.items() if column.metric in figure.metrics}
    return patterns | {name: key for name, key in scores.items() if key not in patterns.values()}


def _line_name(figure: HistogramFigure, kind: str) -> str:
    """Column name for the percentile marked in a histogram."""
    name = FAMILIES[kind.partition("/")[0]].line_name
    return f"{NAMES[kind]}, {name}" if len(figure.kinds) > 1 else name


def _curves(figure: CurveFigure, panels: Panels, file: PictureFile) -> list[str]:
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
    rows = [
        ([title, model.label, str(Spread.of(of_all(seeds.runs, steadiness)))], conditions_of(model, seeds, []))
        for title, members in panels.items()
        for model, seeds in members.items()
        if seeds.runs
    ]
    names = ("", "model", "spread around a line, last half")
    return [f"![{figure.title}]({file('').name})", FIRST_SEED, _table(names, rows, figure.protocol)]


def _samples(figure: SampleFigure, panels: Panels, file: PictureFile) -> list[str]:
    titles, pictures = [], []
    for members in panels.values():
        for letter, (model, seeds) in zip(ascii_lowercase, members.items(), strict=False):
            if seeds.runs:
                grid = file(letter if len(members) > 1 else "")
                _grid(seeds.runs[0], grid)
                steps = seeds.config.train.steps
                titles.append(f"{model.label}, {describe_data(seeds.config)}, {steps:,} iterations")
                pictures.append(f"![{model.label}]({grid.name})")
    if not titles:
        return []
    return [
        markdown_table([titles, pictures]),
        f"The first images of the first seed, unselected. {figure.paper}",
    ]


def _grid(run: MeasuredRun, file: Path) -> None:
    """Writes the newest sample grid of a run's training."""
    grids = sorted((run.folder / "samples").glob("step-*.png"))
    if not grids:
        raise EvaluationError(f"{run.folder}: got no sample grid, expected samples/step-*.png")
    Image.open(grids[-1]).save(file)


def _bars(figure: BarFigure, panels: Panels, file: PictureFile) -> list[str]:
    """One picture per column with one panel per section, and a table with one row per line."""
    rows = rows_of([(line, panels[line.section][line.model]) for line in figure.lines], figure.columns)
    pictures = []
    for letter, name in zip(ascii_lowercase, figure.columns, strict=False):
        sections: dict[str, list[Bar]] = {}
        for row in rows:
            if name in row.ours:
                sections.setdefault(row.line.section, []).append(_bar(row, row.ours[name]))
        if sections:
            picture = file(letter if len(figure.columns) > 1 else "")
            save_figure(bars_figure(sections, axis=name), picture)
            pictures.append(f"![{figure.title}: {name}]({picture.name})")
    names = ["panel", "model", *(cell for name in figure.columns for cell in ("paper", head(name)))]
    cells = [(_bar_cells(figure, row), row.conditions) for row in rows]
    notes = [DRAWN] if pictures else []
    return [*pictures, *notes, _table(names, cells, figure.protocol), _one_of(panels).note, figure.note]


def _bar(row: ModelRow, value: Ours) -> Bar:
    reach = row.line.model.reach(value.spread)
    return Bar(row.line.model.label, value.spread.mean, 0.0 if math.isnan(reach) else reach, value.values)


def _bar_cells(figure: BarFigure, row: ModelRow) -> list[str]:
    cells = [row.line.section, row.line.model.label]
    for name in figure.columns:
        ours = row.text(name) if row.seeds.runs else f"not run: {row.seeds.reason}"
        cells += [row.line.printed.get(name, NOT_PRINTED), ours]
    return cells
