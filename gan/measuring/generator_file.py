"""Files with a generator's weights and its scores, for gan-sample; one comes with the package."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.errors import EvaluationError
from evaluation.reporting.document import read_values
from evaluation.reporting.names import extractors_of, ordered, plain_names, real_key
from evaluation.reporting.tables import text_table
from evaluation.runtime.weights_file import read_weights_file, write_weights_file
from gan.build import build_generator, check_memory, check_networks, checkpoint_config
from gan.config import Config, validate
from gan.config.imported import MissingImportError, used_by
from gan.data.shapes import STYLES
from gan.errors import CheckpointError, ConfigError, UserError
from gan.measuring.sampling import generate
from gan.noise import balanced_labels, draw_latents, random_generator
from gan.runs.checkpoint import Checkpoint
from gan.runs.samples import Source, checkpoint_source
from gan.training.state import check_class_names, composed

DEMO = Path(__file__).with_name("demo.safetensors")
REPORTS = "reports"
KIND, FORMAT = "generator", 1
PATHS = (("data", "root"), *(("eval", f"{name}_weights") for name in ("inception", "clip", "classifier")))
"""Settings that are places on one machine, which a file for others leaves out."""
COMPARED = 100  # images
MOST_GREY_LEVELS = 0.5  # mean difference of those images' pixels by rounding the weights


@dataclass(frozen=True)
class Scores:
    """Values of a report, without arrays; see `evaluation.Report`."""

    values: dict[str, float]
    protocol: dict[str, Any]
    arrays: dict[str, np.ndarray]


class GeneratorFile(NamedTuple):
    """Contents of a generator's file. about: the training in one line."""

    source: Source
    scores: Scores
    about: str

    def text(self) -> str:
        """The training, the most important scores beside those of real images, and their extractor."""
        values, names = self.scores.values, plain_names(self.scores.values)
        rows = [["score", "value", "real images"]]
        for key in ordered(values)[0]:
            of_real = values.get(real_key(key))
            rows.append([names[key], f"{values[key]:.3g}", "" if of_real is None else f"{of_real:.3g}"])
        table = [*text_table(rows), f"scores by {', '.join(extractors_of(values))}"] if len(rows) > 1 else []
        return "\n".join([f"step {self.source.step:,}, {self.about}", *table])


class Written(NamedTuple):
    """A file that `write_generator` wrote, and how far images of the rounded weights are off, in grey levels."""

    num_bytes: int
    mean: float
    largest: int


def write_generator(checkpoint: Checkpoint, scores: Scores, *, origin: str, out: Path, half: bool) -> Written:
    """Writes the averaged generator of a checkpoint, or the raw one if none is kept, with its scores.

    Args:
        scores: see `read_scores`.
        origin: where the training images are from and under which terms, one line.
        half: round the weights to float16.

    Raises:
        ConfigError: weights that float16 does not hold.
        OSError: the file cannot be written.
    """
    source = checkpoint_source(checkpoint, torch.device("cpu"), ema=True)
    values, protocol = scores.values, scores.protocol
    state = {name: halved(tensor) if half else tensor for name, tensor in source.generator.state_dict().items()}
    if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
        raise ConfigError(f"{checkpoint.path}: its generator has weights that float16 does not hold")
    header = {
        "config": plain_settings(source.config),
        "imports": used_by(network_settings(source.config)),
        "step": source.step,
        "class_names": list(source.class_names),
        "num_classes": source.num_classes,
        "data_fingerprint": checkpoint.state["data_fingerprint"],
        "origin": origin,
        "title": protocol["title"],
        "values": {key: {"value": value, **protocol["values"][key]} for key, value in values.items()},
    }
    rounded = build_generator(source.config, source.num_classes)
    rounded.load_state_dict(state)
    mean, largest = _differences(source, rounded)
    if mean > MOST_GREY_LEVELS:
        raise ConfigError(
            f"{checkpoint.path}: in float16 pixels change by {mean:.2g} grey levels on average, "
            f"expected at most {MOST_GREY_LEVELS}"
        )
    write_weights_file(out, KIND, FORMAT, header, state)
    return Written(out.stat().st_size, mean, largest)


def read_scores(report: Path | None, checkpoint: Checkpoint) -> Scores:
    """Reads a report of this checkpoint and of the weights that are exported; no scores without a report.

    A report that was written during training names no checkpoint: it has to be of the same step and run.

    Raises:
        ConfigError: a report of another checkpoint or of other weights.
        UserError: no report, or a damaged one.
    """
    config = checkpoint_config(checkpoint)
    if report is None:
        return Scores({}, {"title": config.data.shown, "values": {}}, {})
    try:
        values, protocol = read_values(report)
    except EvaluationError as error:
        raise UserError(str(error)) from None
    subject = protocol["subject"]
    beside = report.resolve().parent == (checkpoint.path.parent.parent / REPORTS).resolve()
    during = checkpoint.sha256 if beside and subject.get("step") == checkpoint.state["step"] else ""
    if subject.get("checkpoint_sha256", during) != checkpoint.sha256:
        raise ConfigError(f"{report}: not of {checkpoint.path}; measure that checkpoint by gan-eval first")
    kept = "ema" if config.train.ema_decay else "raw"
    for entry in protocol["values"].values():
        weights = entry["fields"].get("generation", {}).get("weights", kept)
        if weights != kept:
            raise ConfigError(
                f"{report}: scores of {weights} weights, expected those of {kept} weights; leave --report out for the "
                "newest report of these"
            )
    return Scores(values, protocol, {})


def newest_report(checkpoint: Checkpoint) -> Path | None:
    """Returns the folder of the newest report that `read_scores` accepts for a checkpoint, None without one."""
    files = (checkpoint.path.parent.parent / REPORTS).glob(f"{checkpoint.state['step']:08d}*/report.json")
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        with suppress(UserError):
            read_scores(file.parent, checkpoint)
            return file.parent
    return None


def is_drawn(checkpoint: Checkpoint) -> bool:
    """Whether the images of a checkpoint's training were drawn by this package."""
    return checkpoint_config(checkpoint).data.name in STYLES


def halved(tensor: Tensor) -> Tensor:
    """A tensor in float16 if it has floats, else as it is."""
    return tensor.half() if tensor.is_floating_point() else tensor


def plain_settings(config: Config) -> dict[str, Any]:
    """Settings as plain values, without places on this machine."""
    content = config.model_dump()
    content["data"]["title"] = config.data.shown  # which may be the name of the folder that is left out
    for section, name in PATHS:
        del content[section][name]
    return content


def network_settings(config: Config) -> dict[str, Any]:
    """Returns the settings of both networks, by section."""
    return config.model_dump(include={"generator", "discriminator"})


def _differences(source: Source, rounded: nn.Module) -> tuple[float, int]:
    """Mean and largest difference of the pixels of both generators, in grey levels."""
    latents = draw_latents(COMPARED, source.config.generator.z_dim, random_generator(0, "samples"))
    labels = balanced_labels(COMPARED, source.num_classes) if source.num_classes else None
    one, other = (
        generate(network, latents, labels, batch_size=COMPARED, device="cpu").int()
        for network in (source.generator, rounded)
    )
    return float((one - other).abs().float().mean()), int((one - other).abs().max())


def read_generator(path: Path, device: torch.device | str = "cpu") -> GeneratorFile:
    """Reads a file of `write_generator`; the generator is in eval mode. No code in the file is run.

    Raises:
        CheckpointError: it is missing, damaged, or not such a file.
    """
    again = "install the package again" if path == DEMO else "export the run again by gan-export"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; {again}")
    try:
        header, state = read_weights_file(path, KIND, FORMAT)
        config = validate(header["config"], str(path))
        check_networks(config, header.get("imports"), path)
        check_class_names(header["class_names"], header["num_classes"])
        check_memory(config, header["num_classes"])
        generator = build_generator(config, header["num_classes"])
        generator.load_state_dict(state)
        generator.eval().requires_grad_(False)
        source = Source(
            generator=generator.to(device=device, memory_format=torch.channels_last),  # type: ignore[call-overload]
            config=config,
            num_classes=header["num_classes"],
            class_names=composed(header["class_names"]),
            step=header["step"],
            folder=Path("samples"),
        )
        return GeneratorFile(source, _scores(config.name, header), _about(config, header))
    except MissingImportError:
        raise
    except EvaluationError as error:
        reason = str(error)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
    raise CheckpointError(f"{path}: not a generator of gan-export ({reason}); {again}")


def _scores(name: str, header: dict[str, Any]) -> Scores:
    entries = header["values"]
    protocol = {
        "title": header["title"],
        "subject": {"experiment": name, "step": header["step"]},
        "class_names": header["class_names"],
        "values": entries,
    }
    return Scores({key: entry["value"] for key, entry in entries.items()}, protocol, {})


def _about(config: Config, header: dict[str, Any]) -> str:
    wanted, size, classes = config.discriminator, config.data.image_size, header["num_classes"]
    bound = f", {wanted.bound}" if wanted.bound else ""
    kinds = f", {classes} classes" if classes else ""
    named = config.data.title or config.data.name  # files of earlier versions may have neither title nor folder
    data = f"{named} ({header['origin']}), {size}x{size}{kinds}"
    return f"trained on {data}, with {wanted.normalization}{bound}"


__all__ = [
    "DEMO",
    "GeneratorFile",
    "Scores",
    "Written",
    "is_drawn",
    "network_settings",
    "newest_report",
    "plain_settings",
    "read_generator",
    "read_scores",
    "write_generator",
]
