"""Log of a run: terminal output, metrics.jsonl, TensorBoard events and sample grids."""

import json
import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from gan.data.pixels import encode_png
from gan.normalization import LayerSpectrum
from gan.runs.finding import JSONL, read_log
from gan.runs.gradients import scalars_of
from gan.runtime.files import write_atomically, writing
from gan.training.gradients import Gradients
from gan.training.health import Alarm
from gan.training.log import Log

COMMON = {
    "learning_rate": "train/learning_rate",
    "images_per_second": "train/images_per_second",
    "data_share": "train/data_share_of_time",
}


class Scalars(NamedTuple):
    """Scalar fields of a log line.

    Attributes:
        tags: TensorBoard tag of each field.
        shown: format of each field that is printed on the terminal.
        charts: beginning of the tags that share a chart among TensorBoard's custom scalars, by the chart's title.
    """

    tags: Mapping[str, str]
    shown: Mapping[str, str]
    charts: Mapping[str, str]


GAN = Scalars(
    {
        "d_loss": "loss/discriminator",
        "g_loss": "loss/generator",
        "real_logit": "logits/real",
        "fake_logit": "logits/fake",
        "attempt": "train/attempt",
        **COMMON,
    },
    {"d_loss": "D {:+.3f}", "g_loss": "G {:+.3f}", "real_logit": "D(x) {:+.3f}", "fake_logit": "D(G(z)) {:+.3f}"},
    {"loss": "loss/", "mean logit": "logits/"},
)
CLASSIFIER = Scalars(
    {
        "loss": "loss/train",
        "test_loss": "loss/test",
        "accuracy": "accuracy/train",
        "test_accuracy": "accuracy/test",
        "epoch": "train/epoch",
        **COMMON,
    },
    {"epoch": "epoch {:.0f}", "loss": "loss {:.4f}", "accuracy": "accuracy {:.4f}", "learning_rate": "rate {:.3g}"},
    {"loss": "loss/", "accuracy": "accuracy/"},
)
WEIGHTS = {
    "spectral norm": "sigma/",
    "spectral norm, normalized weights": "sigma_normalized/",
    "stable rank": "stable_rank/",
    "stable rank, normalized weights": "stable_rank_normalized/",
    "gradient": "gradients/",
    "gradient, normalized weights": "gradients_used/",
    "variance, normalized weights": "variance/",
    "slope": "slopes/",
    "operator norm, normalized weights": "operator_norm/",
}
"""Charts of all layers in TensorBoard, and of the discriminator's slopes."""


class Logger(Log):
    """Writes the log into the run folder and to the terminal.

    At the start, lines of metrics.jsonl and TensorBoard events after `first_step` are dropped, because a resumed run
    repeats the steps after its last checkpoint.

    TensorBoard events are flushed before metrics.jsonl records that an evaluation is finished and, by `before_saving`,
    before a checkpoint is written, so a resumed run repeats all steps whose events are missing. Write errors raise
    CheckpointError.

    Args:
        run: the folder.
        steps: total steps of the run, for the estimate of the time left.
        images_per_step: real images per step.
        first_step: completed steps at the start.
        scalars: scalar fields of a line.
    """

    def __init__(self, run: Path, *, steps: int, images_per_step: int, first_step: int, scalars: Scalars = GAN) -> None:
        self.run, self.steps, self.images_per_step, self.scalars = run, steps, images_per_step, scalars
        self._jsonl = run / JSONL
        with writing(run):
            _drop_later_lines(run, first_step)
            self.board = SummaryWriter(str(run), purge_step=first_step + 1 if first_step else 0)
        self._tags: set[str] = set()
        self._charts: list[str] = []
        self._bar: tqdm[Any] | None = None
        self._interactive = sys.stderr.isatty()
        self._paused = 0.0
        self._window_start, self._window_step, self._window_data = time.perf_counter(), first_step, 0.0

    def start(self, step: int) -> None:
        """Starts the clock and the progress bar; call it right before the first training step."""
        self._window_start = time.perf_counter()
        self._paused = 0.0
        if self._interactive:
            self._bar = tqdm(total=self.steps, initial=step, unit="step", dynamic_ncols=True, smoothing=0.05)

    def say(self, text: str) -> None:
        """Prints one line."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            with suppress(OSError):  # a terminal or pipe that is gone does not end a run
                print(text, file=sys.stderr, flush=True)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Context whose time does not count as training."""
        start = time.perf_counter()
        yield
        self._paused += time.perf_counter() - start

    def advance(self, step: int) -> None:
        """Moves the progress bar to a step."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def line(
        self, step: int, scalars: dict[str, float], layers: Sequence[LayerSpectrum], data_seconds: float = 0.0
    ) -> None:
        """Logs a line of scalars, and the spectra of the weights.

        Args:
            data_seconds: seconds spent on loading real images since the start; their share of the time is logged.
        """
        now = time.perf_counter()
        seconds = max(now - self._window_start - self._paused, 1e-9)
        rate = (step - self._window_step) / seconds
        share = (data_seconds - self._window_data) / seconds
        self._window_start, self._window_step, self._window_data, self._paused = now, step, data_seconds, 0.0
        scalars = scalars | {"images_per_second": rate * self.images_per_step, "data_share": share}
        self._add_scalars(step, {self.scalars.tags[name]: value for name, value in scalars.items()})
        self.layers(step, layers)
        self._append({"step": step, **scalars, "layers": [layer.record() for layer in layers]})
        shown = "  ".join(form.format(scalars[name]) for name, form in self.scalars.shown.items())
        shown += f"  {scalars['images_per_second']:.0f} images/s"
        if self._bar is not None:
            self._bar.set_postfix_str(shown)
        else:
            self.say(f"step {step}/{self.steps}  {shown}  {_clock((self.steps - step) / rate)} left")

    def layers(self, step: int, layers: Sequence[LayerSpectrum]) -> None:
        """Logs spectral norm and stable rank of each layer's raw and normalized weight, and the effect of SRN."""
        scalars: dict[str, float | None] = {}
        for layer in layers:
            name, bounded = layer.name, layer.target_rank is not None
            scalars |= {
                f"sigma/{name}": layer.sigma,
                f"stable_rank/{name}": layer.stable_rank,
                f"sigma_normalized/{name}": layer.normalized_sigma,
                f"stable_rank_normalized/{name}": layer.normalized_stable_rank,
                f"operator_norm/{name}": layer.operator_norm,
                f"srn/active/{name}": float(layer.active) if bounded else None,
                f"srn/target_rank/{name}": layer.target_rank,
                f"srn/gamma/{name}": layer.gamma,
            }
        active = [layer.active for layer in layers if layer.target_rank is not None]
        if active:
            scalars["srn/active_fraction_of_bounded_layers"] = sum(active) / len(active)
        self._add_scalars(step, scalars)
        self._add_charts()
        if step == 0:
            self._append({"step": 0, "layers": [layer.record() for layer in layers]})

    def _add_scalars(self, step: int, scalars: Mapping[str, float | None]) -> None:
        """Adds the scalars that are not None to TensorBoard."""
        with writing(self.run):
            for name, value in scalars.items():
                if value is not None:
                    self.board.add_scalar(name, value, step)
                    self._tags.add(name)

    def _add_charts(self) -> None:
        """Adds charts that several scalars share to TensorBoard; those of layers only for tags that exist."""
        weights = {title: start for title, start in WEIGHTS.items() if any(tag.startswith(start) for tag in self._tags)}
        if [*weights] == self._charts:
            return
        with writing(self.run):
            self.board.add_custom_scalars({"training": _lines(self.scalars.charts), "weights": _lines(weights)})
        self._charts = [*weights]

    def gradients(self, step: int, gradients: Gradients) -> None:
        """Logs the discriminator's gradients."""
        record = gradients.record()
        self._add_scalars(step, scalars_of(record))
        self._append({"step": step, "gradients": record})

    def alarm(self, step: int, alarm: Alarm) -> None:
        """Logs that an alarm begins or ends."""
        record = {"alarm": alarm.name, "begins": alarm.begins, "text": alarm.text}
        self._append({"step": step, **record})
        event = f"begins: {alarm.text} (absent until step {alarm.since})" if alarm.begins else "ends"
        self.say(f"step {step}  alarm {alarm.name} {event}")

    def alarms(self, step: int, active: Mapping[str, bool]) -> None:
        """Adds the states of the alarms, 0 or 1, to TensorBoard."""
        self._add_scalars(step, {f"train/alarms/{name}": float(on) for name, on in active.items()})

    def grid(self, step: int, image: Tensor) -> None:
        """Saves a sample grid, uint8 (C, H, W), in samples/ and TensorBoard."""
        with writing(self.run):
            (self.run / "samples").mkdir(exist_ok=True)
        write_atomically(self.run / "samples" / f"step-{step:08d}.png", encode_png(image))
        with writing(self.run):
            self.board.add_image("samples", image, step)

    def metrics(self, step: int, values: dict[str, float], distributions: Mapping[str, np.ndarray]) -> None:
        """Logs an evaluation: values, and samples of distributions such as empirical Lipschitz constants."""
        tags = self.scalars.tags
        self._add_scalars(step, {tags.get(name, f"metrics/{name}"): value for name, value in values.items()})
        with writing(self.run):
            for name, samples in distributions.items():
                self.board.add_histogram(f"metrics/{name}", samples, step)
            self.board.flush()
        defined = {name: value for name, value in values.items() if math.isfinite(value)}  # JSON has no NaN
        self._append({"step": step, "metrics": defined})
        self.say(f"step {step}  " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def evaluated(self, step: int) -> bool:
        """Returns whether the evaluation at a step has been finished."""
        return evaluated(self.run, step)

    def before_saving(self) -> None:
        """Flushes TensorBoard events; call it before a checkpoint is written."""
        with writing(self.run):
            self.board.flush()

    def saved(self, path: Path) -> None:
        """Prints the file of a saved checkpoint, unless a progress bar is shown."""
        if not self._interactive:
            self.say(f"saved {path}")

    def close(self) -> None:
        """Closes the progress bar and the TensorBoard writer."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        with suppress(OSError):  # was already raised when the event was added
            self.board.close()

    def _append(self, record: dict[str, Any]) -> None:
        with writing(self._jsonl), self._jsonl.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def open_log(run: Path, *, writes: bool, steps: int, images_per_step: int, first_step: int, scalars: Scalars) -> Log:
    """Opens the log of a run; without `writes`, a log that writes nothing, for all processes but the first."""
    if not writes:
        return Log()
    return Logger(run, steps=steps, images_per_step=images_per_step, first_step=first_step, scalars=scalars)


def evaluated(run: Path, step: int) -> bool:
    """Returns whether the evaluation at a step is finished; its line in metrics.jsonl is written last."""
    return any("metrics" in record and record["step"] == step for record in read_log(run))


@contextmanager
def quiet_writer() -> Iterator[None]:
    """Suppresses tracebacks of write errors in TensorBoard's thread; adding the next event raises these errors."""

    def report(arguments: threading.ExceptHookArgs) -> None:
        if not isinstance(arguments.exc_value, OSError):
            before(arguments)

    before, threading.excepthook = threading.excepthook, report
    try:
        yield
    finally:
        threading.excepthook = before


def _lines(charts: Mapping[str, str]) -> dict[str, list[Any]]:
    """Charts of several curves each, as SummaryWriter.add_custom_scalars expects them."""
    return {title: ["Multiline", [beginning]] for title, beginning in charts.items()}


def _drop_later_lines(run: Path, step: int) -> None:
    """Drops the lines of later steps; all lines at step 0, which a run logs again."""
    kept = [json.dumps(record) + "\n" for record in read_log(run) if 0 < step >= record["step"]]
    write_atomically(run / JSONL, "".join(kept).encode())


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
