"""Folders with both networks of a run as safetensors files and a model card, for use without checkpoints."""

import json
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from evaluation.errors import EvaluationError
from evaluation.reporting.tables import markdown_table
from evaluation.runtime.weights_file import read_weights_file, write_weights_file
from gan.build import (
    Parent,
    build_discriminator,
    check_networks,
    checkpoint_config,
    load_parent,
    load_state,
    placed,
)
from gan.config import Config, validate
from gan.config.imported import MissingImportError, copies, used_by
from gan.config.reading import write_yaml
from gan.errors import CheckpointError, ConfigError
from gan.measuring.checks import check_place
from gan.measuring.generator_file import (
    Scores,
    network_settings,
    plain_settings,
    read_generator,
    read_scores,
    write_generator,
)
from gan.normalization.power_iteration import fp32_precisions
from gan.runs.checkpoint import Checkpoint
from gan.runs.finding import EXPORTED, exported_folder
from gan.training.state import networks_hash

GENERATOR, DISCRIMINATOR, CARD, PROGRAM = EXPORTED, "discriminator.safetensors", "README.md", "generator.pt2"
KIND, FORMAT = "discriminator", 1


class ExportedNetworks(NamedTuple):
    """Networks of an exported folder, in eval mode.

    Attributes:
        generator: the averaged generator if the run kept one. Maps latents (N, z_dim), and labels int64 (N,) if
            conditional, to images (N, C, H, W) in [-1, 1].
        discriminator: normalized, and with its singular vectors. Maps such images, and labels, to logits (N,).
        config: settings of the training.
        class_names: empty if unconditional.
    """

    generator: nn.Module
    discriminator: nn.Module
    config: Config
    class_names: tuple[str, ...]


def export(
    checkpoint: Checkpoint, out: Path, *, origin: str, report: Path | None, half: bool = False, program: bool = False
) -> list[Path]:
    """Writes both networks of a checkpoint and a model card into a folder; returns the files.

    Args:
        origin: where the training images are from and under which terms, one line.
        report: folder of a report of this checkpoint, whose scores are exported, too.
        half: round the generator's weights to float16.
        program: also write the generator as a program of `torch.export`, which needs no code of this package.

    Raises:
        ConfigError: a report of another checkpoint, or a folder that is not empty.
        UserError: a damaged report, or a folder that cannot be written.
    """
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"--out {out}: the folder is not empty: choose a new or an empty one")
    check_place(out, "networks")
    config = checkpoint_config(checkpoint)
    state, scores = load_state(checkpoint, config), read_scores(report, checkpoint)
    write_generator(checkpoint, scores, origin=origin, out=out / GENERATOR, half=half)
    header = {
        "config": plain_settings(config),
        "imports": used_by(network_settings(config)),
        "step": state.step,
        "num_classes": state.num_classes,
        "class_names": list(state.class_names),
        "origin": origin,
    }
    write_weights_file(out / DISCRIMINATOR, KIND, FORMAT, header, state.discriminator.state_dict())
    files = [out / GENERATOR, out / DISCRIMINATOR, out / CARD]
    if program:
        write_program(read_generator(out / GENERATOR).source.generator, config, state.num_classes, out / PROGRAM)
        files.append(out / PROGRAM)
    for name, content in copies(network_settings(config)).items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(content)
        files.append(out / name)
    card = model_card(config, header, _rows(scores), state.parent, half=half, program=program)
    (out / CARD).write_text(card, encoding="utf-8")
    return files


def load_exported(folder: str | Path, device: torch.device | str = "cpu") -> ExportedNetworks:
    """Loads both networks of a folder written by gan-export. Nothing in it is run or unpickled.

    Networks of a user's own need `gan.measuring.importing.import_own` first.

    Raises:
        ConfigError: a network's own code is not imported.
        CheckpointError: a file is missing, damaged, or not such a file.
    """
    source = read_generator(Path(folder) / GENERATOR, device).source
    path = Path(folder) / DISCRIMINATOR
    try:
        header, state = read_weights_file(path, KIND, FORMAT)
        config = validate(header["config"], str(path))
        check_networks(config, header.get("imports"), path)
        discriminator = build_discriminator(config, header["num_classes"])
        discriminator.load_state_dict(state)
    except MissingImportError:
        raise
    except (EvaluationError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: not a file of gan-export ({reason}); export the run again") from None
    discriminator = placed(discriminator, device).eval().requires_grad_(False)
    return ExportedNetworks(source.generator, discriminator, config, source.class_names)


def begin_from(path: Path) -> Parent:
    """Loads the networks to begin a new run with: of a checkpoint, a run folder, or a folder of gan-export.

    Raises:
        CheckpointError: a file is missing, damaged, or holds a generator only.
        ConfigError: a network's own code is not imported.
    """
    folder = exported_folder(path)
    if folder is None:
        return load_parent(path)
    if (folder / GENERATOR).is_file() and not (folder / DISCRIMINATOR).is_file():
        raise CheckpointError(
            f"{path}: holds a generator only, and --from needs its discriminator, too: give a folder of gan-export, a "
            "run or a checkpoint"
        )
    source, found = read_generator(folder / GENERATOR).source, load_exported(folder)
    networks = found.generator, found.discriminator, None
    return Parent(folder, found.config, *networks, source.num_classes, source.step, networks_hash(*networks))


def write_program(generator: nn.Module, config: Config, num_classes: int, out: Path) -> None:
    """Writes a generator as a program of `torch.export` for any number of images."""
    latents = torch.zeros(2, config.generator.z_dim)
    arguments = (latents, torch.zeros(2, dtype=torch.int64)) if num_classes else (latents,)
    count = torch.export.Dim("N", min=1)
    with warnings.catch_warnings(), _one_precision():
        warnings.simplefilter("ignore")  # of torch, about its own internals
        program = torch.export.export(generator, arguments, dynamic_shapes=({0: count},) * len(arguments))
        torch.export.save(program, out)


def _one_precision() -> AbstractContextManager[None]:
    """Returns a context manager: cuDNN's precisions are torch's default: torch.export fails where they differ."""
    cudnn = torch.backends.cudnn
    return fp32_precisions((cudnn.conv, "tf32"), (cudnn.rnn, "tf32"))  # type: ignore[attr-defined]


def _rows(scores: Scores) -> list[list[str]]:
    """Returns rows of name, value and fields of the protocol."""
    entries = scores.protocol["values"]
    return [[key, f"{value:.4g}", _shown(entries[key].get("fields", {}))] for key, value in scores.values.items()]


def _shown(fields: Mapping[str, Any]) -> str:
    """Returns the fields of a protocol in one line, with the first 12 digits of hashes."""
    flat = {name: value for name, value in fields.items() if name != "generation"} | fields.get("generation", {})
    hashes = {name for name, value in flat.items() if isinstance(value, str) and len(value) == 64}
    return ", ".join(f"{name} {value[:12] if name in hashes else value}" for name, value in flat.items())


def _code(config: Config) -> str:
    """Returns how to import the code that the networks need besides this package; "" if there is none."""
    settings = network_settings(config)
    if not (used := used_by(settings)):
        return ""
    files = [f"FOLDER/{name}" for name in copies(settings)]
    names = files + [record["source"] for record in used if not record["source"].endswith(".py")]
    return f"""
The networks need code that is not part of this package. Read it, then import it before they are loaded:

```python
from gan.measuring.importing import import_own
import_own({json.dumps(names)})
```

Commands have the option {" ".join(f"`--import {name}`" for name in names)}.
"""


def model_card(
    config: Config,
    header: Mapping[str, Any],
    scores: list[list[str]],
    parent: Mapping[str, Any],
    *,
    half: bool,
    program: bool,
) -> str:
    """Returns the model card: use, data, settings and scores."""
    labels = ", torch.arange(16) % " + str(header["num_classes"]) if header["num_classes"] else ""
    average = f"averaged with decay {config.train.ema_decay}" if config.train.ema_decay else "not averaged"
    average += ", rounded to half precision" * half
    begun = f"Began with the networks of {parent['name']} at step {parent['step']}.\n" if parent else ""
    settings = write_yaml(dict(header["config"]))
    saved = f"\n`torch.export.load('{PROGRAM}').module()` is the generator without this package.\n" if program else ""
    code = _code(config)
    table = markdown_table([["score", "value", "protocol"], *scores]) if scores else "None was measured."
    return f"""# {config.name}

A GAN trained for {header["step"]:,} steps on {config.data.described}.

```python
import torch
from gan.measuring.exported import load_exported
generator, discriminator, config, class_names = load_exported("FOLDER")  # this folder
images = generator(torch.randn(16, config.generator.z_dim){labels})  # in [-1, 1]
```
{saved}{code}
The generator is {average}. The discriminator has its weight normalization, {config.discriminator.normalization}, with
the singular vectors of training; `gan.normalization.bake` makes its weights plain.

## Data

{header["origin"]}

Classes: {", ".join(header["class_names"]) or "none"}

## Scores

{table}

## Settings

Identity {config.identity()}.
{begun}
```yaml
{settings}```
"""


__all__ = ["ExportedNetworks", "begin_from", "export", "load_exported", "model_card", "write_program"]
