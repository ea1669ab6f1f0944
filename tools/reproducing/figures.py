"""Figures of the paper from our runs: histograms, losses over the steps, samples."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from evaluation.errors import EvaluationError
from evaluation.histograms import plot_histograms
from evaluation.plots import overlaid_figure, save_figure
from evaluation.tables import markdown_table
from reproducing.measured import Measured, steadiness
from reproducing.paper import COLUMNS, Claim, Curves, Figure, Histograms, Model, Samples
from reproducing.results import Spread, claim_rows, of_all, over_seeds
from reproducing.tables import CONDITIONS, MISSING, Seeds, conditions, title_of

Panels = Mapping[str, Mapping[Model, Seeds]]


def figure_markdown(figure: Figure, panels: Panels, file: Callable[[str], Path]) -> str:
    """Draws the figure's panels into PNG files; returns them and their numbers as Markdown.

    Args:
        file: the PNG file of a panel, by a letter, or "" of the only one.
    """
    drawers: dict[type, Callable[..., list[str]]] = {Histograms: _histograms, Curves: _curves, Samples: _samples}
    parts = drawers[type(figure)](figure, panels, file)
    claims = getattr(figure, "claims", ())
    if claims:
        parts.append(markdown_table(_claims(claims, panels)))
    reasons = {
        f"{model.label} ({seeds.config.name}): not run: {seeds.reason}"
        for members in panels.values()
        for model, seeds in members.items()
        if not seeds.runs
    }
    return "\n\n".join([*parts, *sorted(reasons)])


def _claims(claims: Sequence[Claim], panels: Panels) -> list[list[str]]:
    """Each panel with the claims of which it has both models: other panels' models may have the same labels."""
    rows: list[list[str]] = []
    for title, members in panels.items():
        runs: dict[str, Sequence[Measured]] = {model.label: seeds.runs for model, seeds in members.items()}
        head, *found = claim_rows([claim for claim in claims if {claim.smaller, claim.larger} <= runs.keys()], runs)
        rows = rows or [["panel", *head]]
        rows += [[title, *row] for row in found]
    return rows


def _histograms(figure: Histograms, panels: Panels, file: Callable[[str], Path]) -> list[str]:
    parts = []
    for letter, (title, members) in zip("abcdefg", panels.items(), strict=False):
        drawn = {model.label: seeds.runs[0].report for model, seeds in members.items() if seeds.runs}
        if drawn:
            drawing = file(letter if len(panels) > 1 else "")
            plot_histograms(drawn, figure.kind, drawing)
            parts += [f"![{figure.title}, {title}]({drawing.name})", _percentiles(figure, title, members)]
    return parts


def _percentiles(figure: Histograms, title: str, members: Mapping[Model, Seeds]) -> str:
    """A table of what the figure shows of the first seed, over all seeds, each row with its protocol."""
    patterns = {"95th percentile": rf"{figure.kind}/p95"}
    patterns |= {name: COLUMNS[name].key for name in COLUMNS if COLUMNS[name].metric in figure.metrics}
    paper = [*("" for _ in patterns), *(figure.protocol.get(name, "") for name in CONDITIONS)]
    rows = [[title, *patterns, *CONDITIONS], ["paper", *paper]]
    for model, seeds in members.items():
        if seeds.runs:
            found = {name: over_seeds(seeds.runs, pattern) for name, pattern in patterns.items()}
            shown = [str(value.spread) if value else MISSING for value in found.values()]
            values = [value for value in found.values() if value]
            rows.append([model.label, *shown, *conditions(seeds, values).values()])
    return markdown_table(rows)


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
    rows = [["", "model", "spread around a line, last half", *CONDITIONS]]
    rows.append(["", "paper", "", *(figure.protocol.get(name, "") for name in CONDITIONS)])
    for title, members in panels.items():
        for model, seeds in members.items():
            if seeds.runs:
                spread = str(Spread.of(of_all(seeds.runs, steadiness)))
                rows.append([title, model.label, spread, *conditions(seeds, []).values()])
    picture = f"![{figure.title}]({file('').name})"
    return [
        picture,
        "Drawn is the first seed of each; no curve is shifted, as the paper's of SRN-70 is (by 0.2).",
        markdown_table(rows),
    ]


def _samples(figure: Samples, panels: Panels, file: Callable[[str], Path]) -> list[str]:
    rows, parts = [], []
    for members in panels.values():
        for letter, (model, seeds) in zip("abcdefg", members.items(), strict=False):
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
