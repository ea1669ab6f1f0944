"""gan-eval: metrics of a checkpoint, a run or a folder of generated images."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn

from evaluation import (
    EXTRACTORS,
    METRICS,
    Context,
    EvaluationError,
    Report,
    Sources,
    build_extractors,
    evaluate,
    read_statistics,
)
from evaluation.extractors import Extractor
from evaluation.images.cache import Cache, default_folder
from evaluation.images.generated import match_classes, name_classes, read_generated
from evaluation.metrics.needs import Metric, check_needs
from evaluation.metrics.neural_divergence.unfinished import forget_finished
from evaluation.reporting.compare_folders import compare_folders
from evaluation.reporting.plots import plot_curves
from evaluation.runner import check_metrics
from evaluation.runtime.isolation import isolated
from evaluation.runtime.processes import own_part
from gan.build import checkpoint_config, choose, load_images, load_state
from gan.command import Command, choose_device, describe
from gan.config import Config, load_config
from gan.config.loading import Experiment, differences, override_config
from gan.data import ImageData
from gan.errors import ConfigError, DataError, UserError
from gan.runs.checkpoint import find_checkpoint, read_checkpoint
from gan.runtime.determinism import determinism
from gan.runtime.distributed import ALONE, Processes, own_device, started
from gan.runtime.memory import keep_freed_memory
from gan.sample import (
    choose_checkpoint,
    chosen_generator,
    drawn_batches,
    eval_mode,
    fresh_folder,
    make_sampler,
    standing_statistics,
)
from gan.training.state import TrainState

EXAMPLES = """
Examples:

  gan-eval --metrics fid,is,nd                        the newest checkpoint under ./runs
  gan-eval --metrics fid,is --run runs/mine --inception-weights weights-inception-2015-12-05-6726825d.pth
  gan-eval --metrics fid,is,nd --run runs/shapes --set eval.extractor=classifier --set eval.nd.steps=2000
  gan-eval --metrics fid --checkpoint runs/mine/checkpoints/step-00050000.pt --set eval.num_fid=50000
  gan-eval --compare runs/sn runs/srn70               newest reports side by side: table, plots, page
  gan-eval --metrics fid,is --generated samples/ --config cifar10_srn70 --set eval.num_fid=1000 --set eval.num_is=1000
"""


class Evaluation:
    """The real images and the extractor of a configuration, loaded when first needed and kept."""

    def __init__(self, config: Config, device: torch.device | str, processes: Processes = ALONE) -> None:
        self.config, self.device, self.processes = config, device, processes
        self._images: dict[str, ImageData] = {}
        self._extractors: tuple[Extractor, ...] = ()
        self._context: Context | None = None  # of real images, whose features are kept between evaluations
        self._prepared: set[str] = set()

    def images(self, split: str) -> ImageData:
        if split not in self._images:
            with self.processes.one_first():
                self._images[split] = load_images(self.config, split)
        return self._images[split]

    def extractors(self) -> tuple[Extractor, ...]:
        if not self._extractors:
            wanted = self.config.eval
            train, test = None, None
            if "classifier" in wanted.extractor:
                train, test = self.images("train"), self._test_or_none()
            sources = Sources(
                device=self.device,
                weights=Path(wanted.inception_weights) if wanted.inception_weights else None,
                clip_weights=Path(wanted.clip_weights) if wanted.clip_weights else None,
                classifier_weights=Path(wanted.classifier_weights) if wanted.classifier_weights else None,
                images=train.images if train else None,
                labels=train.labels if train else None,
                test_images=test.images if test else None,
                test_labels=test.labels if test else None,
            )
            with self.processes.one_first():
                self._extractors = build_extractors(wanted.extractor, sources)
            for extractor in self._extractors:
                self.processes.check_equal(extractor.fingerprint, f"the fingerprint of extractor {extractor.name}")
        return self._extractors

    def _test_or_none(self) -> ImageData | None:
        """The test split for the classifier's recorded accuracy; a data set without one has no such record."""
        try:
            return self.images("test")
        except DataError:
            return None

    def of_state(
        self, metrics: list[str], state: TrainState, subject: dict[str, Any], unfinished: Path | None = None
    ) -> Report:
        """Metrics of a training state's networks; they are left as found.

        Args:
            unfinished: folder for critics that an interruption may leave unfinished.
        """
        generator = chosen_generator(state, self.config.eval.ema)
        sampler = make_sampler(generator, self.config, state.num_classes, self.device)
        context = self.ready(metrics)
        count = max((context.required(METRICS[name].images.get("generated", "")) for name in metrics), default=0)
        with isolated(), self._modes(state, generator):  # the protocol says fp32, so no TF32 either
            made: dict[str, Any] = {
                "sampler": sampler,
                "critic": state.discriminator,
                "critic_is_conditional": state.num_classes > 0,
                "protocol": self._generation(state, generator),
                "subject": {**subject, "step": state.step},
                "class_names": state.class_names,
                "nd_checkpoints": unfinished,
            }
            if not count:
                return evaluate(metrics, context.of(None, **made))
            part = own_part(count, self.config.eval.batch_size)
            batches, labels = drawn_batches(
                generator,
                self.config,
                state.num_classes,
                self.device,
                count=count,
                seed=self.config.eval.seed,
                part=part,
            )
            return evaluate(metrics, context.of_batches(batches, labels, count=part.stop - part.start, **made))

    @contextmanager
    def _modes(self, state: TrainState, generator: nn.Module) -> Iterator[None]:
        """The discriminator in eval mode, the generator's batch-norm statistics as eval.bn_mode says."""
        with ExitStack() as stack:
            stack.enter_context(eval_mode(state.discriminator, gradients=True))
            if self.config.eval.bn_mode == "standing":
                stack.enter_context(standing_statistics(generator, self.config, state.num_classes, self.device))
            yield

    def _generation(self, state: TrainState, generator: nn.Module) -> dict[str, Any]:
        """How images are made: part of every value's protocol."""
        wanted = self.config.eval
        return {
            "quantizer": wanted.quantizer,
            "bn_mode": wanted.bn_mode,
            "weights": "ema" if generator is state.average else "raw",
            "labels": wanted.labels if state.num_classes else "none",
            "precision": "fp32",
            "truncation": wanted.truncation or "none",
            "seed": wanted.seed,
        }

    def of_folder(self, metrics: list[str], folder: Path) -> Report:
        """Metrics of a folder of generated images, shuffled by eval.seed, its sub-folders the data set's classes."""
        images, labels, class_names, protocol = read_generated(folder, seed=self.config.eval.seed)
        real = self.prepare(metrics)
        needed = any(METRICS[name].labels for name in metrics)
        context = real.of(
            images,
            match_classes(labels, class_names, real.class_names, folder, needed=needed),
            protocol=protocol,
            subject={"generated": str(folder)},
            class_names=real.class_names or name_classes(labels, class_names),
        )
        return evaluate(metrics, context)

    def ready(self, metrics: list[str]) -> Context:
        """As `prepare`, for the images of a generator.

        Raises:
            EvaluationError: also if a metric needs classes that the generator does not know.
        """
        for name in metrics:
            self._check_labels(name)
            for setting in {"num_fid", "num_is", "num_intra"} & set(METRICS[name].images.values()):
                if not self.config.eval.number(setting):
                    raise EvaluationError(
                        f"metric {name}: got eval.{setting}=0, which means all images there are, "
                        "expected a number, since a generator has no end of them"
                    )
        return self.prepare(metrics)

    def _check_labels(self, name: str) -> None:
        """Refuses a metric of images by class whose classes the generator does not know, or leaves to chance."""
        if not METRICS[name].labels:
            return
        if not self.config.conditional:
            raise EvaluationError(
                f"metric {name}: got an unconditional generator, expected images of known classes; "
                "leave the metric out, or train with conditional=true"
            )
        if self.config.eval.labels != "balanced":
            raise EvaluationError(
                f"metric {name}: got eval.labels={self.config.eval.labels}, whose class counts are left to chance, "
                "expected as many images of each class: set eval.labels=balanced"
            )

    def prepare(self, metrics: list[str]) -> Context:
        """Real images, extractors and settings, loaded and checked before any image is generated.

        Raises:
            EvaluationError, DataError: something that one of the metrics needs is missing.
        """
        needs = {name: METRICS[name] for name in metrics}
        if self._context is None or set(metrics) - self._prepared:
            self._context, self._prepared = self._load(needs), set(metrics)
        for name, need in needs.items():
            check_needs(name, need, self._context, real_only=True)
        return self._context

    def _load(self, needs: dict[str, Metric]) -> Context:
        wanted = self.config.eval
        statistics = read_statistics(wanted.reference_statistics) if wanted.reference_statistics else None
        pictured = [need for need in needs.values() if not (need.statistics and statistics)]
        roles = {role for need in pictured for role in need.images}
        split = wanted.split
        reference = self.images(split) if "reference" in roles else None
        critical = any(need.critic for need in needs.values())
        test = self.images("test") if "test" in roles else self._test_or_none() if critical else None
        trained_on = self.images("train") if critical and split != "train" else None
        title = self.config.data.shown
        classes = next((images.classes for images in (reference, test) if images is not None), ())
        return Context(
            reference=reference.images if reference else None,
            reference_labels=reference.labels if reference else None,
            test=test.images if test else None,
            test_labels=test.labels if test else None,
            trained_on=trained_on.images if trained_on else None,
            trained_on_labels=trained_on.labels if trained_on else None,
            statistics=statistics,
            extractor=self.extractors() if any(need.extractor for need in needs.values()) else None,
            settings=wanted,
            device=self.device,
            title=title,
            reference_name=f"{title}, {split}",
            test_name=f"{title}, test",
            class_names=classes if len(classes) > 1 else (),  # data without classes have one, of any name
            cache=Cache(default_folder()) if wanted.cache else None,
        )


@contextmanager
def one_sentence() -> Iterator[None]:
    """What evaluation refuses becomes an error of this project's commands."""
    try:
        yield
    except EvaluationError as error:
        raise UserError(str(error)) from None


def parse_metrics(text: str) -> list[str]:
    """ "fid, is" -> ["fid", "is"].

    Raises:
        UserError: an unknown name, an empty one, or none.
    """
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    with one_sentence():
        check_metrics(names)
    return names


def check_evaluation(config: Config) -> None:
    """Raises UserError if an evaluation setting names a metric or an extractor that does not exist."""
    names = parse_metrics(config.eval.metrics)
    _check_best(config, names)
    for name in config.eval.extractor.split(","):
        choose(EXTRACTORS, name.strip(), "eval.extractor")


def _check_best(config: Config, names: list[str]) -> None:
    """Refuses a train.keep_best of which no evaluation will have one value that can be better or worse."""
    best, several = config.train.keep_best, "," in config.eval.extractor
    if not best:
        return
    if not config.train.eval_every:
        raise ConfigError(f"train.keep_best: got {best!r}, expected evaluations to choose by: set train.eval_every")
    directed = {name: METRICS[name].directed for name in names}
    choices = {key: name for name, keys in directed.items() for key in (keys if keys is not None else (name,))}
    found = [key for key in choices if best == key or best.startswith(f"{key}/")]
    if not found:
        raise ConfigError(
            f"train.keep_best: got {best!r}, expected one of {', '.join(choices) or 'a metric with a direction'}"
        )
    if several and METRICS[choices[found[0]]].extractor and best == found[0]:
        raise ConfigError(f"train.keep_best: got {best!r} with several extractors, expected the value's whole name")


@click.command(cls=Command, epilog=EXAMPLES)
@click.option("--metrics", help=f"Names separated by commas: {', '.join(METRICS)}. [default: eval.metrics]")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="A checkpoint file.")
@click.option(
    "--run", type=click.Path(path_type=Path), help="A run folder: its newest checkpoint. [default: newest in ./runs]"
)
@click.option("--best", is_flag=True, help="The run's best checkpoint, where train.keep_best kept one, not its newest.")
@click.option("--generated", type=click.Path(path_type=Path), help="A folder of generated images; needs --config.")
@click.option("--config", "config_name", help="With --generated: names the real images and the protocol.")
@click.option("--with", "variants", multiple=True, metavar="NAME", help="Lays a variant over --config (see --list).")
@click.option("--inception-weights", type=click.Path(path_type=Path), help="The Inception weights' file.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the report. [default: reports/<step> in the run]"
)
@click.option(
    "--set", "overrides", multiple=True, metavar="eval.A=B", help="Changes a setting of eval; may be repeated."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--deterministic", is_flag=True, help="The same bits each time, on a GPU too; slower.")
@click.option("--compare", is_flag=True, help="Compare reports of the run folders, or report folders, that follow.")
@click.option("--skip-mixed", is_flag=True, help="With --compare: leave out values of different protocols.")
@click.option("--list", "list_names", is_flag=True, help="Print every metric and extractor.")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN ...]")
def main(
    metrics: str | None,
    checkpoint: Path | None,
    run: Path | None,
    best: bool,
    generated: Path | None,
    config_name: str | None,
    variants: tuple[str, ...],
    inception_weights: Path | None,
    out: Path | None,
    overrides: tuple[str, ...],
    device: str,
    deterministic: bool,
    compare: bool,
    skip_mixed: bool,
    list_names: bool,
    runs: tuple[Path, ...],
) -> None:
    """Measure generated images; every number is stored with its protocol."""
    if list_names:
        click.echo(describe({"--metrics": METRICS, "eval.extractor": EXTRACTORS}))
        return
    if compare or runs:
        compare_runs(runs, out, compare, skip_mixed)
        return
    if inception_weights is not None:
        overrides = (*overrides, f"eval.inception_weights={json.dumps(str(inception_weights))}")
    click.get_current_context().with_resource(determinism(deterministic))
    place = choose_device(own_device(device))
    if place.type == "cpu":
        keep_freed_memory()
    if generated is not None and (run is not None or checkpoint is not None or best):
        raise ConfigError("--generated: does not go with --run, --checkpoint or --best")
    if generated is None and (config_name is not None or variants):
        raise ConfigError("--config and --with go with --generated; a checkpoint holds its own configuration")
    with started(place) as processes:
        if generated is not None:
            report, folder = _evaluate_folder(
                metrics, generated, config_name, variants, overrides, place, processes, out
            )
        else:
            chosen = processes.first(lambda: find_checkpoint(choose_checkpoint(checkpoint, run, best)))
            report, folder = _evaluate_checkpoint(metrics, chosen, overrides, place, processes, out)
    if processes.is_first:
        click.echo(report.table())
        click.echo(f"report: {folder}")


def compare_runs(runs: tuple[Path, ...], out: Path | None, asked: bool, skip_mixed: bool) -> None:
    """What --compare does; `asked` tells whether it was given, or folders alone."""
    if not asked:
        raise ConfigError(f"{runs[0]}: run folders are named by --run, or follow --compare")
    folder = out or fresh_folder(Path("reports") / "comparison")
    with one_sentence():
        comparison = compare_folders(runs, folder, skip_mixed=skip_mixed)
    click.echo(comparison.table())
    click.echo(f"comparison: {folder}")


def _evaluate_folder(
    metrics: str | None,
    generated: Path,
    config_name: str | None,
    variants: tuple[str, ...],
    overrides: tuple[str, ...],
    device: torch.device,
    processes: Processes,
    out: Path | None,
) -> tuple[Report, Path]:
    if config_name is None:
        raise ConfigError(
            "--generated: add --config, which names the real images; or use python -m evaluation with --reference"
        )
    config = load_config(config_name, overrides, variants)
    names = parse_metrics(metrics or config.eval.metrics)
    check_evaluation(config)
    with one_sentence():
        report = Evaluation(config, device, processes).of_folder(names, generated)
    return report, processes.first(lambda: _save(report, out or fresh_folder(Path("reports") / generated.name)))


def _evaluate_checkpoint(
    metrics: str | None,
    path: Path,
    overrides: tuple[str, ...],
    device: torch.device,
    processes: Processes,
    out: Path | None,
) -> tuple[Report, Path]:
    if processes.is_first:
        click.echo(f"checkpoint: {path}")
    read = processes.first(lambda: read_checkpoint(path))
    trained = checkpoint_config(read)
    config = override_config(trained, overrides, str(path))
    refuse_changes(config, trained, path)
    names = parse_metrics(metrics or config.eval.metrics)
    check_evaluation(config)
    state = load_state(read, config, device)
    report = evaluate_state(names, Evaluation(config, device, processes), state, path)
    home = path.parent.parent

    def save() -> Path:
        log = home / "metrics.jsonl"
        folder = _save(
            report, out or fresh_folder(home / "reports" / f"{state.step:08d}"), log if log.is_file() else None
        )
        forget_finished(_unfinished_folder(path))
        with contextlib.suppress(EvaluationError):  # a checkpoint copied out of its run, or a run without a logged step
            plot_curves(log, folder / "curves.png")
        return folder

    return report, processes.first(save)


def refuse_changes(config: Experiment, trained: Experiment, path: Path) -> None:
    """Raises ConfigError if --set changes what a checkpoint was trained with."""
    changed = differences(config, trained)
    if changed:
        raise ConfigError(
            f"--set: these were fixed when {path} was trained: {'; '.join(changed)}; change eval.* or data.root"
        )


def _save(report: Report, folder: Path, training_log: Path | None = None) -> Path:
    with one_sentence():
        report.save(folder, training_log=training_log)
    return folder


def _unfinished_folder(checkpoint: Path) -> Path:
    """Where critics of a run's checkpoint are kept until their report is written."""
    return checkpoint.parent.parent / "unfinished"


def evaluate_state(names: list[str], evaluation: Evaluation, state: TrainState, checkpoint: Path | None) -> Report:
    """Metrics of a state, with the checkpoint it came from on record; critics are resumed where one is given."""
    subject: dict[str, Any] = {"experiment": evaluation.config.name, "identity": evaluation.config.identity()}
    if checkpoint is not None:
        digest = evaluation.processes.first(lambda: hashlib.sha256(checkpoint.read_bytes()).hexdigest())
        subject |= {"checkpoint": str(checkpoint), "checkpoint_sha256": digest}
    unfinished = None if checkpoint is None else _unfinished_folder(checkpoint)
    with one_sentence():
        return evaluation.of_state(names, state, subject, unfinished)


if __name__ == "__main__":
    main(prog_name="gan-eval")
