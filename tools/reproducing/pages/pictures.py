"""Pictures of the paper's figures from our runs: histograms, losses over the steps, samples, bars."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from string import ascii_lowercase

from PIL import Image

from evaluation.errors import EvaluationError
from evaluation.reporting.histograms import NAMES, histograms, plot_histograms
from evaluation.reporting.plots import gradients_figure, overlaid_figure, save_figure
from evaluation.reporting.tables import markdown_table
from reproducing.measured import MeasuredRun
from reproducing.pages.bars import Bar, bars_figure
from reproducing.pages.rows import Row, in_sections
from reproducing.paper.content import PaperContent
from reproducing.training import PANELS, training_curves

DRAWN = "Drawn are the means and their intervals; dots are seeds; the axis does not begin at 0."
MEDIANS = "Drawn are medians over the seeds, in bands from the smallest to the largest."
FIRST_SEED = "Drawn is the first seed of each; no curve is shifted, as the paper's of SRN-70 is (by 0.2)."
UNSELECTED = "The first images of the first seed, unselected."

PictureFile = Callable[[str], Path]
"""PNG file of a panel by its letter, or by "" for a single panel."""


def pictures(content: PaperContent, rows: Sequence[Row], file: PictureFile) -> list[str]:
    """Draws the panels of a figure into PNG files; returns paragraphs of Markdown, none for a table."""
    drawers: dict[str, Callable[[PaperContent, Sequence[Row], PictureFile], list[str]]] = {
        "": lambda content, rows, file: [],
        "histograms": _histograms,
        "curves": _curves,
        "training": _training,
        "samples": _samples,
        "bars": _bars,
    }
    return drawers[content.drawn](content, rows, file)


def _letters(count: int) -> Sequence[str]:
    return ascii_lowercase[:count] if count > 1 else ("",)


def _histograms(content: PaperContent, rows: Sequence[Row], file: PictureFile) -> list[str]:
    panels = [(title, kind) for title in content.sections for kind in content.kinds]
    found = []
    for letter, (title, kind) in zip(_letters(len(panels)), panels, strict=True):
        reports = {
            row.label: row.runs[0].report
            for row in in_sections(content, rows).get(title, ())
            if row.label not in content.omitted.get((title, kind), ()) and kind in histograms(row.runs[0].report)
        }
        if reports:
            plot_histograms(reports, kind, file(letter))
            shown = ", ".join(filter(None, [title, NAMES[kind] if len(content.kinds) > 1 else ""]))
            found.append(f"**{shown}**\n\n![{content.title}, {shown}]({file(letter).name})")
    return found


def _curves(content: PaperContent, rows: Sequence[Row], file: PictureFile) -> list[str]:
    (loss,) = content.kinds
    curves = {
        title: {row.label: row.runs[0].curves[loss] for row in members if loss in row.runs[0].curves}
        for title, members in in_sections(content, rows).items()
    }
    curves = {title: found for title, found in curves.items() if found}
    if not curves:
        return []
    order = list(dict.fromkeys(line.model.label for line in content.lines))
    save_figure(overlaid_figure(curves, order=order), file(""))
    return [f"![{content.title}]({file('').name})", FIRST_SEED]


def _training(content: PaperContent, rows: Sequence[Row], file: PictureFile) -> list[str]:
    """A picture for each kind, with a panel for each quantity or layer, and a curve for each model."""
    runs = {row.label: [training_curves(run.folder) for run in row.runs] for row in rows}
    runs = {label: several for label, several in runs.items() if all(several)}
    found = []
    for letter, kind in zip(_letters(len(content.kinds)), content.kinds, strict=True) if runs else ():
        save_figure(gradients_figure(runs, PANELS[kind]), file(letter))
        found.append(f"**{kind}**\n\n![{content.title}, {kind}]({file(letter).name})")
    return [*found, MEDIANS] if found else []


def _samples(content: PaperContent, rows: Sequence[Row], file: PictureFile) -> list[str]:
    titles, grids = [], []
    letters = dict(zip((line.model for line in content.lines), _letters(len(content.lines)), strict=True))
    for row in rows:
        grid = file(letters[row.line.model])
        _grid(row.runs[0], grid)
        titles.append(row.label)
        grids.append(f"![{row.label}]({grid.name})")
    return [markdown_table([titles, grids]), UNSELECTED]


def _grid(run: MeasuredRun, file: Path) -> None:
    """Writes the newest sample grid of a run's training."""
    grids = sorted((run.folder / "samples").glob("step-*.png"))
    if not grids:
        raise EvaluationError(f"{run.folder}: got no sample grid, expected samples/step-*.png")
    Image.open(grids[-1]).save(file)


def _bars(content: PaperContent, rows: Sequence[Row], file: PictureFile) -> list[str]:
    """A picture for each column, with a panel for each section."""
    found = []
    for letter, name in zip(_letters(len(content.columns)), content.columns, strict=True):
        sections = {
            title: [_bar(row, name) for row in members if name in row.ours]
            for title, members in in_sections(content, rows).items()
        }
        sections = {title: bars for title, bars in sections.items() if bars}
        if sections:
            save_figure(bars_figure(sections, axis=name), file(letter))
            found.append(f"![{content.title}: {name}]({file(letter).name})")
    return [*found, DRAWN] if found else []


def _bar(row: Row, column: str) -> Bar:
    value = row.ours[column]
    reach = row.line.model.reach(value.spread)
    return Bar(row.label, value.spread.mean, 0.0 if math.isnan(reach) else reach, value.values)
