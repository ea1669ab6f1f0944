"""Interrupts training runs at random, resumes them, and compares the results with an uninterrupted run.

python tools/torture.py --interruptions 100
python tools/torture.py --interruptions 20 --seed 3 --minutes 5 --folder torture --config smoke --set train.steps=200

A run is killed by SIGKILL at random moments, imports included, and at random operations on files of the run and its
cache, which is empty at first. It also runs out of disk space (RLIMIT_FSIZE), or its newest checkpoint gets a flipped
bit or is truncated. After each interruption it is resumed. At the end its checkpoints, metrics.jsonl, TensorBoard
scalars, sample grids, reports and best.json must equal the uninterrupted run's bit for bit, except for times. New runs
start until there were enough interruptions. The exit status is 1 if anything differs. --seed determines all random
choices; the state in which a run is killed also depends on the machine's speed.
"""

import json
import logging
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import click
import compare_runs
import torch
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

from evaluation.reporting.tables import text_table
from evaluation.runtime.command import CheckedCommand
from evaluation.runtime.files import read_arrays
from gan.runs.checkpoint import read_checkpoint
from gan.runs.finding import list_checkpoints
from gan.train import main as gan_train

SETTINGS = (
    *("train.steps=300", "train.sample_every=10", "train.checkpoint_every=10", "train.eval_every=20"),
    *("train.keep_best=fid", "train.keep_every=100", "train.ema_decay=0.9", "eval.metrics=fid,prdc"),
)
LONGEST_LIFE = 6.0  # maximum seconds from start to kill
OPERATIONS = 400  # maximum operations on files of the run and its cache from start to kill
IMPORTS = 5.0  # maximum seconds from the start of an interpreter to its kill
LIMITS = 16_000, 600_000  # range of the maximum file size on a full disk; a run's largest files have about 700 kB
PATIENCE = 300.0  # seconds after which a process is considered hung
WITHOUT_EFFECT = DONE, NO_CHECKPOINT, SPACE = "the run had ended", "no checkpoint yet", "enough disk space"
NO_CACHE = "continued without a cache"
AUDITED = {"open": 0, "os.mkdir": 0, "os.rename": 1, "os.remove": 0}
"""Python's audit events of file operations, each with the index of its argument for the changed path."""


class Life(NamedTuple):
    """Exit status, output and last stage of one gan-train process."""

    status: int
    output: str
    stage: str


class Fault(NamedTuple):
    """Fault to cause in a process.

    seconds: time until it is killed.
    operations: operations on files of its run and cache until it is killed; 0: any number.
    limit: maximum bytes of a file; 0: no limit.
    """

    seconds: float = math.inf
    operations: int = 0
    limit: int = 0


class Torture:
    """Interrupts runs and collects errors.

    Args:
        arguments: arguments of gan-train, without --run.
        folder: folder for the runs, their caches and the processes' output.
    """

    def __init__(self, arguments: list[str], folder: Path, seed: int) -> None:
        self.arguments, self.folder = arguments, folder
        self.random = random.Random(seed)
        self.faults: dict[str, Callable[[Path], str]] = {
            "killed at a random time": self._kill_at_a_moment,
            "killed at a file operation": self._kill_at_an_operation,
            "killed in a new interpreter": self._kill_a_new_interpreter,
            "disk full": self._fill_disk,
            "bit flipped in a checkpoint": self._flip_bit,
            "checkpoint truncated": self._cut,
        }
        self.found: Counter[tuple[str, str]] = Counter()
        self.wrong: list[str] = []
        self._context = get_context("forkserver")  # new processes start with these imports done and without other state
        self._context.set_forkserver_preload(["gan.train"])

    @property
    def interruptions(self) -> int:
        """Number of interruptions that had an effect."""
        return sum(times for (_, found), times in self.found.items() if found not in WITHOUT_EFFECT)

    def interrupt(self, run: Path) -> None:
        """Causes one fault, drawn at random by weight."""
        (name,) = self.random.choices(list(self.faults), weights=[6, 6, 1, 3, 1, 1])
        self.found[name, self.faults[name](run)] += 1

    def live(self, run: Path, fault: Fault, *options: str) -> Life:
        """Starts or resumes a run in a new process and waits for its end."""
        log = self.folder / "output.txt"
        arguments = [*self.arguments, "--run", str(run), "--resume", *options]
        process = self._context.Process(target=_live, args=(arguments, run, log, fault))
        process.start()
        process.join(min(fault.seconds, PATIENCE))
        if process.is_alive() and fault.seconds > PATIENCE:
            self.wrong.append(f"{' '.join(arguments)}: still running after {PATIENCE:.0f} seconds")
        process.kill()
        process.join()
        return self._ended(run, process.pid, process.exitcode or 0, log)

    def _ended(self, run: Path, process: int | None, status: int, log: Path) -> Life:
        output = log.read_text(errors="replace")
        if "Traceback" in output:
            self.wrong.append(f"{run}: {output}")
        return Life(status, output, _stage(run, output, process))

    def _kill_at_a_moment(self, run: Path) -> str:
        return self._killed(self.live(run, Fault(seconds=self.random.uniform(0, LONGEST_LIFE))))

    def _kill_at_an_operation(self, run: Path) -> str:
        return self._killed(self.live(run, Fault(operations=self.random.randint(1, OPERATIONS))))

    def _kill_a_new_interpreter(self, run: Path) -> str:
        """Kills a process that may still be importing; the other processes start with all imports done."""
        log = self.folder / "output.txt"
        command = [sys.executable, "-m", "gan.train", *self.arguments, "--run", str(run), "--resume"]
        environment = os.environ | {"XDG_CACHE_HOME": str(cache_of(run)), "OMP_NUM_THREADS": "1"}
        with log.open("wb") as file, subprocess.Popen(command, env=environment, stdout=file, stderr=file) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(self.random.uniform(0, IMPORTS))
            process.kill()
        return self._killed(self._ended(run, process.pid, process.returncode, log))

    def _killed(self, life: Life) -> str:
        if life.status not in (0, -signal.SIGKILL):
            self.wrong.append(f"status {life.status} of a process to be killed: {life.output}")
        return life.stage if life.status else DONE

    def _fill_disk(self, run: Path) -> str:
        limit = round(math.exp(self.random.uniform(*map(math.log, LIMITS))))
        life = self.live(run, Fault(limit=limit))
        if life.status not in (0, 2) or (life.status == 2) != ("gan-train: error:" in life.output):
            self.wrong.append(f"status {life.status} on a full disk: {life.output}")
        for path in list_checkpoints(run):
            read_checkpoint(path)
        if life.status:
            return "stopped with an error message"
        return NO_CACHE if "cache: " in life.output else SPACE

    def _flip_bit(self, run: Path) -> str:
        def flip(content: bytearray) -> bytearray:
            content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
            return content

        return self._damage(run, flip)

    def _cut(self, run: Path) -> str:
        return self._damage(run, lambda content: content[: self.random.randrange(len(content))])

    def _damage(self, run: Path, change: Callable[[bytearray], bytearray]) -> str:
        """Damages the newest checkpoint: --resume must refuse it; --skip-damaged must use the previous one."""
        checkpoints = list_checkpoints(run)
        if not checkpoints:
            return NO_CHECKPOINT
        checkpoints[-1].write_bytes(change(bytearray(checkpoints[-1].read_bytes())))
        refused = self.live(run, Fault())
        if refused.status != 2 or "--skip-damaged" not in refused.output:
            self.wrong.append(f"status {refused.status} with a damaged checkpoint: {refused.output}")
        skipped = self.live(run, Fault(), "--skip-damaged", "--max-minutes", "0.0001")
        if skipped.status or "damaged checkpoint, renamed" not in skipped.output:
            self.wrong.append(f"status {skipped.status} of --skip-damaged: {skipped.output}")
        return "detected and skipped"


def cache_of(run: Path) -> Path:
    """Cache folder of a run, next to its folder: $XDG_CACHE_HOME of its processes."""
    return run.with_name(f"{run.name}-cache")


def _live(arguments: list[str], run: Path, log: Path, fault: Fault) -> None:
    """Target of a new process: calls gan-train with a fault and one thread."""
    with log.open("wb") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    os.environ["XDG_CACHE_HOME"] = str(cache_of(run))
    sys.argv = ["gan-train", *arguments]
    torch.set_num_threads(1)
    if fault.limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.limit, fault.limit))
    if fault.operations:
        sys.addaudithook(_killer(run, fault.operations))
    gan_train(arguments, prog_name="gan-train")


def _killer(run: Path, operations: int) -> Callable[[str, tuple[Any, ...]], None]:
    """Audit hook that kills its process just before operation number `operations` on files of the run or its cache."""
    left = operations
    places = f"{run}{os.sep}", f"{cache_of(run)}{os.sep}"

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in AUDITED and str(arguments[AUDITED[event]]).startswith(places):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    return count


def _stage(run: Path, output: str, process: int | None) -> str:
    """Stage at which a process ended, derived from its last output and partly written files."""
    if any(cache_of(run).rglob(f"*.{process}.part*")):
        return "in a cache write"
    if " at step " not in output:
        return "during start-up"
    if any(run.rglob("*.part*")):
        return "during a write"
    last = output.splitlines()[-1]
    return "after a checkpoint, in an evaluation" if last.startswith(("saved", "best")) else "during training"


def compare(whole: Path, other: Path) -> list[str]:
    """Differences between two runs except for times, one line each."""
    names = [{str(path.relative_to(run)) for path in _lasting_files(run)} for run in (whole, other)]
    found = [f"{name}: only in one of the runs" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        places = compare_runs.compare(_content(whole / name), _content(other / name))
        found += [f"{name}: differs in {place or 'its bytes'}" for place in places]
    if _scalars(whole) != _scalars(other):
        found.append("TensorBoard: scalars differ")
    return found


def _lasting_files(run: Path) -> Iterator[Path]:
    """Files that must be equal: all but HTML pages, damaged files, and event files and records of single processes."""
    for path in run.rglob("*"):
        passing = path.name.startswith("events.") or path.name in (".lock", "run.json", "report.html")
        if path.is_file() and not passing and path.suffix != ".damaged":
            yield path


def _content(file: Path) -> Any:
    """Content of a file without times."""
    if file.suffix == ".pt":
        return read_checkpoint(file)._asdict() | {"path": None, "sha256": ""}
    if file.suffix == ".npz":
        return read_arrays(file)
    if file.name == "metrics.jsonl":
        return compare_runs.log_of(file.parent)
    if file.name == "report.json":
        report = json.loads(file.read_text())
        return report | {"machine": {**report["machine"], "seconds": None, "time": None}}
    return file.read_bytes()


def _scalars(run: Path) -> dict[str, set[tuple[int, float]]]:
    """Scalars of a run in TensorBoard, as sets, because a repeated evaluation is logged twice."""
    events = EventAccumulator(str(run), size_guidance={SCALARS: 0}).Reload()
    timed = {*compare_runs.CLOCK, "data_share_of_time"}
    tags = [tag for tag in events.Tags()[SCALARS] if tag.rpartition("/")[2] not in timed]
    return {tag: {(event.step, event.value) for event in events.Scalars(tag)} for tag in tags}


@click.command(cls=CheckedCommand, context_settings={"show_default": True})
@click.option("--config", default="smoke", help="File, or name of an installed configuration.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Changes a setting; may be repeated.")
@click.option("--interruptions", type=click.IntRange(1), default=100, help="Number of interruptions.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=60.0, help="Time limit.")
@click.option("--seed", type=int, default=0, help="Seed of all faults.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the runs in this folder. [default: temporary]")
def main(
    config: str, overrides: tuple[str, ...], interruptions: int, minutes: float, seed: int, folder: Path | None
) -> None:
    """Interrupt training at random, resume it, and compare the result with an uninterrupted run."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # tensorboard logs every restart
    # Killed processes leave shared resources, about which the resource tracker warns.
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning:multiprocessing.resource_tracker"
    arguments = ["--config", config, "--device", "cpu"]
    arguments += [word for setting in (*SETTINGS, *overrides) for word in ("--set", setting)]
    with tempfile.TemporaryDirectory(prefix="torture-") if folder is None else nullcontext(folder) as place:
        Path(place).mkdir(parents=True, exist_ok=True)
        torture = Torture(arguments, Path(place).resolve(), seed)
        runs, seconds = _torture_runs(torture, interruptions, minutes)
    _report(torture, runs, seconds)
    if torture.wrong:
        raise SystemExit(1)


def _torture_runs(torture: Torture, interruptions: int, minutes: float) -> tuple[int, float]:
    """Interrupts runs until there were enough interruptions or time is up; returns the number of runs and seconds."""
    start = time.monotonic()
    whole, run, runs = torture.folder / "whole", torture.folder / "tortured", 0
    _begin_anew(whole)
    undisturbed = torture.live(whole, Fault())
    if undisturbed.status:
        raise click.ClickException(undisturbed.output)
    while torture.interruptions < interruptions and time.monotonic() - start < 60 * minutes:
        _begin_anew(run)
        while not _done(whole, run) and torture.interruptions < interruptions:
            torture.interrupt(run)
            if time.monotonic() - start >= 60 * minutes:
                break
        last = torture.live(run, Fault())
        if last.status:
            torture.wrong.append(f"status {last.status} of the last resumption: {last.output}")
        torture.wrong += [f"run {runs + 1}: {difference}" for difference in compare(whole, run)]
        runs += 1
        click.echo(f"run {runs}: {torture.interruptions} interruptions, {len(torture.wrong)} differences", err=True)
    return runs, time.monotonic() - start


def _begin_anew(run: Path) -> None:
    """Deletes a run and its cache."""
    for folder in (run, cache_of(run)):
        shutil.rmtree(folder, ignore_errors=True)


def _done(whole: Path, run: Path) -> bool:
    """Whether a run has its last checkpoint."""
    checkpoints = list_checkpoints(run)
    return bool(checkpoints) and checkpoints[-1].name == list_checkpoints(whole)[-1].name


def _report(torture: Torture, runs: int, seconds: float) -> None:
    rows = [("interruption", "moment or outcome", "times")]
    rows += [(name, found, str(times)) for (name, found), times in sorted(torture.found.items())]
    click.echo("\n".join(text_table(rows)))
    for line in torture.wrong:
        click.echo(line)
    click.echo(
        f"{torture.interruptions} interruptions of {runs} runs in {seconds / 60:.1f} minutes; "
        f"{len(torture.wrong)} differences from the uninterrupted run"
    )


if __name__ == "__main__":
    main()
