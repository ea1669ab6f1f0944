"""A table of the paper with ours beside it, as Markdown."""

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from evaluation.tables import markdown_table
from gan.config import Config
from reproducing.measured import Measured
from reproducing.paper import COLUMNS, Line, Table
from reproducing.results import Ours, Spread, over_seeds, verdict

ARROWS = {"higher": "↑", "lower": "↓"}
MISSING = "–"
CONDITIONS = ("data", "extractor", "iterations", "networks", "images", "seeds", "time per run", "device", "protocol")
"""Columns of every table: what numbers depend on besides the model."""
COUNTS = {"num_generated": "generated", "samples": "generated", "num_reference": "real", "num_test": "real"}
COUNTS |= {"num_generated_per_class": "generated", "pairs": "pairs"}
"""Fields of protocols that count images."""


class Seeds(NamedTuple):
    """A line's runs: the configuration they share but for the seed, those that are measured, why others are not."""

    config: Config
    runs: Sequence[Measured]
    reason: str


def table_markdown(table: Table, lines: Sequence[tuple[Line, Seeds]]) -> str:
    """Two rows for each line, the paper's and ours, each with its protocol; then the order of the lines in both."""
    ours = [{name: over_seeds(seeds.runs, COLUMNS[name].key) for name in line.printed} for line, seeds in lines]
    heads = [f"{name} {ARROWS[COLUMNS[name].better]}" for name in table.columns]
    rows = [["model", "", *heads, *CONDITIONS]]
    section = ""
    for (line, seeds), found in zip(lines, ours, strict=True):
        if line.section != section:
            section = line.section
            rows.append([f"**{section}**", *[""] * (len(rows[0]) - 1)])
        printed = [line.printed.get(name, MISSING) for name in table.columns]
        paper = [line.protocol.get(name, table.protocol.get(name, "")) for name in CONDITIONS]
        rows.append([line.model.label, "paper", *printed, *paper])
        rows.append(_our_row(table, seeds, found))
    orders = "\n".join(f"- {order}" for order in _orders(lines, ours))
    return "\n\n".join(filter(None, [markdown_table(rows), table.note, orders]))


def _our_row(table: Table, seeds: Seeds, found: Mapping[str, Ours | None]) -> list[str]:
    if not seeds.runs:
        return ["", f"not run: {seeds.reason}", *[""] * (len(table.columns) + len(CONDITIONS))]
    values = {name: value for name, value in found.items() if value}
    shown = [str(values[name].spread) if name in values else MISSING for name in table.columns]
    return ["", "ours", *shown, *conditions(seeds, list(values.values())).values()]


def conditions(seeds: Seeds, values: Sequence[Ours]) -> dict[str, str]:
    """How some values were obtained, by the names of CONDITIONS."""
    config, train = seeds.config, seeds.config.train
    widths = f"{config.generator.name} {config.generator.channels}/{config.discriminator.channels} channels"
    adam = f"Adam {train.learning_rate:g}, {train.adam_beta1:g}, {train.adam_beta2:g}"
    found = {
        "data": title_of(config),
        "extractor": ", ".join(dict.fromkeys(filter(None, map(_extractor, values)))),
        "iterations": f"{train.steps:,}",
        "networks": f"{widths}, batch {train.batch_size}, {adam}, {train.precision}",
        "images": "; ".join(dict.fromkeys(map(_counts, values))),
        "seeds": str(len(seeds.runs)),
        "time per run": time_of(seeds.runs),
        "device": ", ".join(sorted({run.device for run in seeds.runs})),
        "protocol": ", ".join(f"`{value.protocol}`" for value in values),
    }
    assert tuple(found) == CONDITIONS
    return found


def title_of(config: Config) -> str:
    """What the data are called."""
    data = config.data
    return data.title or (f"{data.name} {data.root}" if data.name == "folder" else data.name)


def _extractor(value: Ours) -> str:
    """What stands between images and numbers; "" where that is the discriminator."""
    if "steps" in value.fields:
        count = value.fields["num_critics"]
        return f"{count} critic{'s' if count > 1 else ''} of {value.fields['steps']:,} updates"
    return value.key.partition("/")[2] or "Inception" if "extractor" in value.fields else ""


def _counts(value: Ours) -> str:
    """Such as "FID of 5,000 generated, 10,000 real"."""
    name = next((name for name, column in COLUMNS.items() if re.fullmatch(column.key, value.key)), "")
    counts = [f"{_total(value.fields[field]):,} {kind}" for field, kind in COUNTS.items() if value.fields.get(field)]
    if value.key.startswith("jacobian/"):  # measured at as many images as there are pairs
        counts = [text.replace("pairs", "images") for text in counts]
    return f"{name} of {', '.join(counts)}" if name else ", ".join(counts)


def _total(count: int | list[int]) -> int:
    """Of images, given as one number or class by class."""
    return sum(count) if isinstance(count, list) else count


def time_of(runs: Sequence[Measured]) -> str:
    """Minutes of training and of evaluation, on average."""
    training, evaluation = (
        Spread.of([getattr(run, name) / 60 for run in runs]).mean for name in ("training_seconds", "evaluation_seconds")
    )
    return f"{training:.1f} min + {evaluation:.1f} min"


def _orders(lines: Sequence[tuple[Line, Seeds]], ours: Sequence[Mapping[str, Ours | None]]) -> list[str]:
    """For each section and column a sentence on how many pairs of lines are in the paper's order."""
    sentences = []
    sections = dict.fromkeys(line.section for line, _ in lines)
    for section in sections:
        members = [(line, found) for (line, _), found in zip(lines, ours, strict=True) if line.section == section]
        for name in dict.fromkeys(name for line, _ in members for name in line.printed):
            sentence = _order(name, [(line, found[name]) for line, found in members if found.get(name)])
            if sentence:
                sentences.append(f"{section}, {sentence}" if section else sentence)
    return sentences


def _order(name: str, members: Sequence[tuple[Line, Any]]) -> str:
    pairs = []
    for one, other in combinations(members, 2):
        smaller, larger = sorted((one, other), key=lambda member: _number(member[0].printed[name]))
        found = verdict(smaller[1].values, larger[1].values)
        pairs.append(f"{smaller[0].model.label} < {larger[0].model.label} {found}")
    same = sum("as in the paper" in pair for pair in pairs)
    return f"{name}: {same} of {len(pairs)} pairs in the paper's order ({'; '.join(pairs)})." if pairs else ""


def _number(printed: str) -> float:
    return float(printed.split()[0])


def table_document(lines: Sequence[tuple[Line, Seeds]]) -> list[dict[str, Any]]:
    """The same for machines: every seed's values, keys, protocols' fields, folders."""
    return [
        {
            "model": line.model.label,
            "section": line.section,
            "config": seeds.config.name,
            "paper": dict(line.printed),
            "runs": [run.folder.name for run in seeds.runs],
            "ours": {
                name: found._asdict() | {"spread": found.spread._asdict()}
                for name, found in ((name, over_seeds(seeds.runs, COLUMNS[name].key)) for name in line.printed)
                if found
            },
        }
        for line, seeds in lines
    ]
