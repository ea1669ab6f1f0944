"""What the commands share: errors as one sentence, a device by name, the registries as a list."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
import torch

from gan.errors import ConfigError, UserError
from gan.normalization import LayerSpectrum
from gan.runtime.determinism import explain_nondeterminism
from gan.runtime.distributed import is_connection_lost, recorded


class Command(click.Command):
    """A command whose users never see a traceback for what they can mend: one sentence, exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with recorded(_explanation):
                return super().invoke(ctx)
        except Exception as error:
            message = _explanation(error)
            if not message:
                raise
        click.echo(f"{ctx.info_name}: error: {message}", err=True)
        raise SystemExit(2)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples as they are written, not refilled."""
        if self.epilog:
            formatter.write_paragraph()
            for line in self.epilog.strip().splitlines():
                formatter.write_text(line) if line and not line.startswith(" ") else formatter.write(line + "\n")


def read_seeds(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    """A callback: "0,1,2" -> (0, 1, 2); none given, none there."""
    try:
        seeds = tuple(int(seed) for seed in value.split(",")) if value is not None else ()
    except ValueError:
        raise click.BadParameter(f"got {value!r}, expected whole numbers such as 0,1,2") from None
    if len(set(seeds)) < len(seeds) or any(seed < 0 for seed in seeds):
        raise click.BadParameter(f"got {value!r}, expected each seed once, none negative")
    return seeds


def _explanation(error: Exception) -> str:
    """One sentence for what a person, settings or other processes can cause; "" of a mistake in the program."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if _is_out_of_memory(error):
        return "not enough memory for these settings; smaller batches, fewer channels or another --device help"
    if not isinstance(error, RuntimeError):
        return ""
    if is_connection_lost(error):
        return "another process of this run has ended, and this one with it; the other one says why"
    return explain_nondeterminism(error)


def _is_out_of_memory(error: Exception) -> bool:
    """torch has a class for a GPU's memory; on a CPU only the text of a RuntimeError tells."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def choose_device(name: str) -> torch.device:
    """ "auto" is the first CUDA device where there is one, else the CPU.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
            raise RuntimeError("no such device")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"--device {name}: cannot be used here ({reason}); expected auto, cpu, cuda or cuda:N"
        ) from None
    return device


def describe(registries: Mapping[str, Iterable[str]]) -> str:
    """One line per registry: where its names are written, and the names."""
    return "\n".join(f"{place}: {', '.join(names)}" for place, names in registries.items())


def normalization_summary(network: str, normalization: str, c: float, layers: Sequence[LayerSpectrum]) -> str:
    """What a normalization does to the weights of a network, called by this word."""
    bounded = [layer for layer in layers if layer.target_rank is not None]
    if not bounded:
        return f"{network} weights: {normalization}"
    active = sum(layer.active for layer in bounded)
    text = f"{network} weights: srn, c = {c:g}, active on {active} of {len(bounded)} layers now"
    spectral = [layer.name for layer in layers if layer.target_rank is None]
    if spectral:
        text += f"; spectral normalization only, because c * min(rows, columns) <= 1: {', '.join(spectral)}"
    return text
