"""Writes docs/results/quickstart: the samples and scores of several runs of one configuration that differ in the seed.

\b
Example: three seeds, about five minutes each
    for seed in 0 1 2; do
      RUN=runs/quickstart-$seed bash tools/quickstart.sh quickstart --set train.seed=$seed
    done
    python tools/quickstart_page.py runs/quickstart-0 runs/quickstart-1 runs/quickstart-2 --out docs/results/quickstart

Pictures are those of the script, samples/final.png of each run, as they are.
"""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor

from evaluation import Context, EvaluationError, Sources, build_extractor, evaluate
from evaluation.reporting.document import read_values
from evaluation.reporting.tables import markdown_table
from gan.build import checkpoint_config, load_images
from gan.command import Command
from gan.config import Config, load_config
from gan.config.loading import differences, training_settings
from gan.data.pixels import image_grid, save_png
from gan.errors import ConfigError, UserError
from gan.measuring.generator_file import newest_report
from gan.runs.checkpoint import read_checkpoint
from gan.runs.finding import JSONL, read_record

IN_A_ROW = 8
COLUMNS = {"gan_test": "GAN-test ↑", "fid": "FID ↓", "is": "IS ↑", "precision": "precision ↑", "recall": "recall ↑"}
REAL = {"gan_test_real": "GAN-test of the real test images", "fid_floor": "FID between two sets of real images"}


class SeedRun(NamedTuple):
    """A finished run. record: its run.json. values, entries: of its newest report, by metric without the extractor."""

    folder: Path
    report: Path
    config: Config
    record: dict[str, Any]
    extractor: str
    values: dict[str, float]
    entries: dict[str, dict[str, Any]]

    @property
    def seed(self) -> int:
        return self.config.train.seed

    @property
    def picture(self) -> Path:
        return self.folder / "samples" / "final.png"

    def minutes(self) -> float:
        """Minutes of training by its log, without saving and sampling."""
        lines = [json.loads(line) for line in (self.folder / JSONL).read_text().splitlines()]
        logged = [(line["step"], line.get("images_per_second", 0)) for line in lines if "layers" in line]
        images = self.config.train.batch_size * self.config.train.d_steps
        return sum((step - before) * images / rate for (before, _), (step, rate) in pairwise(logged)) / 60


def read_run(folder: Path) -> SeedRun:
    """Reads a run that tools/quickstart.sh has finished.

    Raises:
        UserError: it has no report, no picture, or no checkpoint.
    """
    checkpoint = read_checkpoint(folder)
    report = newest_report(checkpoint)
    if report is None:
        raise ConfigError(f"{folder}: no report of {checkpoint.path.name}; measure it by gan-eval first")
    try:
        values, protocol = read_values(report)
    except EvaluationError as error:
        raise UserError(str(error)) from None
    names = {key: key.split("/")[0] for key in values}
    found = SeedRun(
        folder=folder,
        report=report,
        config=checkpoint_config(checkpoint),
        record=read_record(folder),
        extractor=next((key.split("/")[1] for key in values if "/" in key), "inception"),
        values={names[key]: value for key, value in values.items()},
        entries={names[key]: entry for key, entry in protocol["values"].items()},
    )
    if not found.picture.is_file():
        raise ConfigError(f"{folder}: no samples/final.png; finish the run by RUN={folder} bash tools/quickstart.sh")
    return found


def check_comparable(runs: list[SeedRun]) -> None:
    """Raises ConfigError if runs differ in more than the seed, or in the protocol of a value."""
    first = runs[0]
    for other in runs[1:]:
        changed = [text for text in differences(other.config, first.config) if not text.startswith("train.seed:")]
        if changed:
            raise ConfigError(f"{other.folder} and {first.folder} differ in more than the seed: {'; '.join(changed)}")
        for name in (name for name in COLUMNS if name in first.values):
            if name not in other.values or other.entries[name]["hash"] != first.entries[name]["hash"]:
                raise ConfigError(f"{other.folder} and {first.folder}: {name} was measured by different protocols")
    if len({run.seed for run in runs}) < len(runs):
        raise ConfigError("got the same seed twice, expected runs of different seeds")


def real_images(config: Config) -> Tensor:
    """A grid of test images, eight of each class in a row, uint8 (3, H, W)."""
    data = load_images(config, "test")
    rows = [(data.labels == label).nonzero()[:IN_A_ROW, 0] for label in range(data.num_classes)]
    return image_grid(data.images[torch.cat(rows)], IN_A_ROW)


def real_scores(run: SeedRun) -> dict[str, float]:
    """Inception Score, precision and recall of real test images in place of the generated ones of a report.

    They are of as many images as in the report, or of all test images if these are fewer. Empty if the report's
    extractor cannot be built here.
    """
    metrics = [metric for metric, key in (("is", "is"), ("prdc", "precision")) if key in run.values]
    if not metrics:
        return {}
    train, test = (load_images(run.config, split) for split in ("train", "test"))
    extractor = build_extractor(_kind(run), Sources(images=train.images, labels=train.labels))
    if extractor.name != run.extractor:
        return {}
    counts = {"num_is": ("is", "num_generated"), "num_fid": ("precision", "num_generated")}
    wanted = {
        name: run.entries[metric]["fields"][field] for name, (metric, field) in counts.items() if metric in run.values
    }
    drawn = torch.randperm(len(test.images), generator=torch.Generator().manual_seed(0))  # files may be sorted by class
    settings = {name: min(count, len(drawn)) for name, count in wanted.items()}
    context = Context(
        generated=test.images[drawn],
        reference=train.images,
        extractor=extractor,
        settings=run.config.eval.model_copy(update=settings),
    )
    values = evaluate(metrics, context).values
    return {key.split("/")[0]: value for key, value in values.items() if key.split("/")[0] in COLUMNS}


def page(runs: list[SeedRun]) -> str:
    """The page in Markdown."""
    first = runs[0]
    name, seeds = first.config.name, [str(run.seed) for run in runs]
    folders = [f"runs/{name}-{seed}" for seed in seeds]
    return f"""# {name}: {"seeds" if len(seeds) > 1 else "seed"} {", ".join(seeds)}

{_conditions(first)}

{markdown_table(_rows(runs))}

Samples as the script writes them, in the order of the seeds, a class in each row, then real test images:

{" ".join(f"![samples of seed {seed}](seed-{seed}.png)" for seed in seeds)} ![real images](real.png)

[The report of seed {first.seed}](report.html) opens without a network; [its numbers](report.json) and \
[the configuration](config.yaml). Made by:

```
for seed in {" ".join(seeds)}; do
  RUN=runs/{name}-$seed bash tools/quickstart.sh {_options(first.config)}{_evaluation(first)}
done
python tools/quickstart_page.py {" ".join(folders)} --out docs/results/{name}
```
"""


def _options(config: Config) -> str:
    """Configuration, variants and settings that repeat a run with another seed; a name is CONFIG-VARIANT-..."""
    base, *variants = config.name.split("-")
    installed = dict(training_settings(load_config(base, variants=variants)))
    chosen = {place: value for place, value in training_settings(config) if value != installed.get(place)}
    automatic = ("train.seed", "train.precision")  # the script chooses the precision
    changes = [f"--set {place}={json.dumps(value)}" for place, value in chosen.items() if place not in automatic]
    return " ".join([base, *(f"--with {variant}" for variant in variants), "--set train.seed=$seed", *changes])


def _evaluation(run: SeedRun) -> str:
    """Command of an evaluation by another extractor than the configured one, on a line of its own."""
    kind = _kind(run)
    metrics = ",".join(dict.fromkeys("prdc" if name in ("precision", "recall") else name for name in COLUMNS))
    chosen = f"--metrics {metrics} --set eval.extractor={kind}"
    return "" if kind == run.config.eval.extractor else f"\n  gan-eval --run runs/{run.config.name}-$seed {chosen}"


def _kind(run: SeedRun) -> str:
    """Name of the report's extractor in settings."""
    return "resnet" if run.extractor.startswith("resnet") else run.extractor.partition("-")[0]


def _conditions(run: SeedRun) -> str:
    """Conditions of all rows: training, machine, numbers of images, extractor, and scores of real images."""
    data, train = run.config.data.shown, run.config.train
    made = f"{data[0].upper()}{data[1:]}, {train.steps:,} steps in {train.precision}"
    device, threads = (run.record.get(name, "unknown") for name in ("device", "threads"))
    fid, other = (run.entries.get(name, {"fields": {}})["fields"] for name in ("fid", "is"))
    against = (
        f"{fid.get('num_generated', 0):,} generated images against {fid.get('num_reference', 0):,} training images"
    )
    further = f", IS and GAN-test of {other['num_generated']:,}" if "num_generated" in other else ""
    real = [f"{text}: {run.values[key]:.4g}." for key, text in REAL.items() if key in run.values]
    scores = ", ".join(f"{COLUMNS[name].split()[0]} {value:.4g}" for name, value in real_scores(run).items())
    real += [f"Real test images in place of generated ones, as many or all there are: {scores}."] if scores else []
    sentences = [
        f"{made} on {device}, torch threads: {threads}.",
        f"FID, precision and recall are of {against}{further}, by extractor {run.extractor}.",
        *real,
        "Minutes are those of training alone, on the clock.",
    ]
    return " ".join(sentences)


def _rows(runs: list[SeedRun]) -> list[list[str]]:
    names = [name for name in COLUMNS if name in runs[0].values]
    kind = runs[0].extractor.partition("-")[0]  # no score by another extractor than Inception is plain FID or IS
    heads = [COLUMNS[name] if kind == "inception" else COLUMNS[name].replace(" ", f" ({kind}) ", 1) for name in names]
    rows = [["seed", *heads, "minutes"]]
    columns = [[run.values[name] for run in runs] for name in names] + [[run.minutes() for run in runs]]
    for index, run in enumerate(runs):
        rows.append([str(run.seed), *(f"{column[index]:.4g}" for column in columns[:-1]), f"{columns[-1][index]:.1f}"])
    if len(runs) > 1:
        spread = [f"{fmean(column):.4g} ± {stdev(column):.2g}" for column in columns]
        rows.append(["mean ± deviation", *spread])
    return rows


@click.command(cls=Command, help=__doc__, context_settings={"max_content_width": 120})
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN ...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the page.")
def main(runs: tuple[Path, ...], out: Path) -> None:
    """Write the page of several finished runs."""
    found = [read_run(folder) for folder in runs]
    check_comparable(found)
    out.mkdir(parents=True, exist_ok=True)
    for run in found:
        shutil.copyfile(run.picture, out / f"seed-{run.seed}.png")
    for file in (found[0].report / "report.html", found[0].report / "report.json", found[0].folder / "config.yaml"):
        shutil.copyfile(file, out / file.name)
    save_png(real_images(found[0].config), out / "real.png")
    (out / "README.md").write_text(page(found))
    click.echo(f"{out / 'README.md'}: seeds {', '.join(str(run.seed) for run in found)}")


if __name__ == "__main__":
    main()
