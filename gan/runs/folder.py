"""Run folders: their description, resuming, rolling back, and deletion of superseded files."""

import json
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy
import torch

from gan.config.imported import copies, other_code, used_by
from gan.config.loading import differences, validated
from gan.config.stored import AnyConfig
from gan.errors import CheckpointError, DivergenceError
from gan.runs.best import forget_best_after
from gan.runs.checkpoint import Checkpoint, read_checkpoint, remove_superseded, save_checkpoint, set_damaged_aside
from gan.runs.finding import FOLDER, JSONL, identity_of, list_checkpoints, read_record
from gan.runs.kinds import Kind
from gan.runs.recorded import absolute
from gan.runtime.files import remove_parts, write_atomically

_OF_A_STEP = re.compile(r"reports/(?P<report>\d+)|samples/step-(?P<grid>\d+)\.png")


def write_checkpoint(config: AnyConfig, run: Path, stored: dict[str, Any], state: dict[str, Any]) -> Path:
    """Saves a state with the configuration `stored`; keeps old checkpoints by train.keep_last and train.keep_every."""
    return save_checkpoint(run, stored, state, keep_last=config.train.keep_last, keep_every=config.train.keep_every)


def skip_damaged_checkpoints(run: Path) -> None:
    """Renames damaged checkpoints and prints their new names; see gan.runs.checkpoint.set_damaged_aside."""
    for path in set_damaged_aside(run):
        click.echo(f"damaged checkpoint, renamed to {path}", err=True)


def checkpoint_to_continue(kind: Kind, run: Path, resume: bool) -> Checkpoint | None:
    """Returns the newest checkpoint of a run, or None to start from the beginning; removes half-written files.

    Raises:
        CheckpointError: the folder holds a run although `resume` is False, or a run with other settings.
    """
    config = kind.config
    checkpoints = list_checkpoints(run)
    if not resume:
        if checkpoints or (run / JSONL).exists():
            raise CheckpointError(f"{run}: holds a run already; continue it with --resume or choose another --run")
        return None
    if not checkpoints:
        click.echo(f"{run}: no checkpoint yet, starting from the beginning", err=True)
        _tidy(config, run)
        return None
    checkpoint = read_checkpoint(checkpoints[-1])
    if others := other_code(checkpoint.imports, checkpoint.path):
        raise CheckpointError(f"{others[0]}; a run resumes only with the code that it began with")
    before = validated(type(config), checkpoint.config, str(checkpoint.path))
    changed = differences(config, before)
    if changed:
        _check_only_longer(kind, before, checkpoint, changed)
        checkpoint = _before_the_end(kind, before, run, checkpoints)
    _tidy(config, run)
    return checkpoint


def _check_only_longer(kind: Kind, before: AnyConfig, checkpoint: Checkpoint, changed: list[str]) -> None:
    """Raises CheckpointError unless training to this checkpoint would have been the same with the changed settings.

    Args:
        changed: see `differences`.
    """
    place = f"{checkpoint.path}: trained with other settings (now, then): {'; '.join(changed)}; "
    if [text.partition(":")[0] for text in changed] != [kind.extent]:
        raise CheckpointError(
            f"{place}a run resumes only with its own settings, except {kind.extent}: leave out --config, --with and "
            "--set, or choose another --run"
        )
    reason = kind.other_training(before, checkpoint.state["step"])
    if reason:
        raise CheckpointError(
            f"{place}{reason}, so it would not equal a run that began with this {kind.extent}; leave it as it was, or "
            f"begin a new run{f' with --from {checkpoint.path}' if kind.command == 'gan-train' else ''}"
        )


def _before_the_end(kind: Kind, before: AnyConfig, run: Path, checkpoints: list[Path]) -> Checkpoint:
    """Returns the newest checkpoint at which a longer run would be the same.

    A last step that would not have had a log line, a grid or an evaluation in a longer run is trained again from the
    checkpoint before it, because a line begins new means: its checkpoint and outputs are deleted.

    Raises:
        CheckpointError: there is no checkpoint before it.
    """
    newest = read_checkpoint(checkpoints[-1])
    if kind.goes_on(before, newest.state["step"]):
        return newest
    why = f"{newest.path}: the last step wrote a line, a grid or an evaluation that a longer run does not have there"
    if len(checkpoints) < 2:
        raise CheckpointError(f"{why}, and no earlier checkpoint is kept to continue from; begin a new run")
    earlier = read_checkpoint(checkpoints[-2])
    _delete_outputs_after(run, earlier.state["step"])
    newest.path.unlink()
    click.echo(f"{why}; continuing from {earlier.path.name}", err=True)
    return earlier


def _tidy(config: AnyConfig, run: Path) -> None:
    """Removes half-written files and superseded checkpoints that a killed process left."""
    remove_parts(run, run / FOLDER, run / "samples")
    remove_superseded(run, keep_last=config.train.keep_last, keep_every=config.train.keep_every)


def checkpoint_to_retry(config: AnyConfig, run: Path, error: DivergenceError) -> Checkpoint:
    """Rolls back to the last good checkpoint, records the retry in it, deletes newer outputs; returns the checkpoint.

    Newer checkpoints are deleted before the retry is recorded, so a run that is killed in between diverges at the same
    step and rolls back again.

    Raises:
        DivergenceError: train.retries is used up, or no good checkpoint is left.
    """
    paths = list_checkpoints(run)
    read = (read_checkpoint(path) for path in reversed(paths))
    good = next((checkpoint for checkpoint in read if checkpoint.state["step"] <= error.since), None)
    retries = read_checkpoint(paths[-1]).state.get("retries", []) if paths else []
    if good is None or len(retries) >= config.train.retries:
        raise DivergenceError(f"{error}; {_advice(good, len(retries), config)}", since=error.since) from None
    _delete_outputs_after(run, good.state["step"])
    for newer in reversed(paths[paths.index(good.path) + 1 :]):
        newer.unlink()
    good.state["retries"] = [*retries, {"from": good.state["step"], "reason": str(error)}]
    write_checkpoint(config, run, good.config, good.state)
    number = f"retry {len(retries) + 1} of {config.train.retries}"
    click.echo(f"{error}; {number}, from {good.path} with a new seed", err=True)
    return good


def _delete_outputs_after(run: Path, step: int) -> None:
    """Deletes samples/step-<step>.png, best checkpoints, and reports written during training, of later steps.

    Reports of gan-eval are kept, although their checkpoints are gone. The best checkpoint as of this step is restored.
    """
    for path in (*run.glob("reports/*"), *run.glob("samples/*")):
        match = _OF_A_STEP.fullmatch(path.relative_to(run).as_posix())
        if match and int(match["report"] or match["grid"]) > step and not _of_a_checkpoint(path):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    forget_best_after(run, step)


def _of_a_checkpoint(report: Path) -> bool:
    """Returns whether a folder holds a report by gan-eval, which names the checkpoint that it measured."""
    try:
        return bool(json.loads((report / "report.json").read_text(encoding="utf-8"))["subject"].get("checkpoint"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _advice(good: Checkpoint | None, retries: int, config: AnyConfig) -> str:
    """Returns advice for a run that diverged and stopped: its last good checkpoint, and changes that may help."""
    saved = f"the last good checkpoint is {good.path}" if good else "no good checkpoint is left"
    tried = f" after {retries} of {config.train.retries} retries" if config.train.retries else ""
    keep = "" if good else "a higher train.keep_last, "
    return f"the run has stopped{tried}; {saved}; {keep}a lower train.learning_rate or another normalization may help"


def earlier_commands(config: AnyConfig, run: Path, checkpoint: Checkpoint | None) -> list[str]:
    """Returns the command lines that have trained a run so far.

    Args:
        checkpoint: checkpoint to continue; without one, a run with another configuration has none.
    """
    same = checkpoint is not None or identity_of(run) == config.identity()
    found = read_record(run).get("commands") if same else None
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []  # users may edit it


def describe_run(
    config: AnyConfig,
    run: Path,
    *,
    fingerprints: Mapping[str, str],
    device: torch.device,
    processes: int,
    step: str,
    parent: Mapping[str, Any],
    commands: list[str],
) -> None:
    """Writes config.yaml, run.json and copies of imported files, which describe how to repeat a run.

    Args:
        fingerprints: fingerprints of the images by split.
        processes: number of processes.
        step: how an iteration is executed.
        parent: see `TrainState`.
        commands: command lines, newest last.
    """
    write_atomically(run / "config.yaml", config.to_yaml().encode())
    for name, content in copies(config.model_dump()).items():
        (run / name).parent.mkdir(exist_ok=True)
        write_atomically(run / name, content)
    record = {
        "kind": config.kind,
        "identity": config.identity(),
        "commands": commands,
        "imports": used_by(config.model_dump()),
        "data": {"root": absolute(config.data.root), "fingerprints": dict(fingerprints)},
        **({"parent": dict(parent)} if parent else {}),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "processes": processes,
        "threads": torch.get_num_threads(),
        "step": step,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    write_atomically(run / "run.json", json.dumps(record, indent=1).encode())


def processor() -> str:
    """Returns the name of the processor on Linux, elsewhere its architecture."""
    try:
        names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def _git(*arguments: str) -> str:
    """Returns the output of git for the checkout that contains this file; "" outside a checkout."""
    checkout = Path(__file__).resolve().parent.parent.parent
    if not (checkout / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
