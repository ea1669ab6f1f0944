"""Base class of the commands: error messages without tracebacks, help with examples. Imports torch only if needed."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click

from evaluation.runtime.command import CheckedCommand
from evaluation.runtime.terminal import prepare_terminal
from gan.errors import UserError


class Command(CheckedCommand):
    """Click command that prints the message of a user error without a traceback and exits with status 2."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the options; a value without its option is answered with the likely one."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if "unexpected extra argument" in error.message:
                configurable = any("--config" in option.opts for option in self.params)
                advice = "; every value belongs to an option" + (", such as --config NAME" * configurable)
                raise click.UsageError(error.message + advice, ctx) from None
            raise

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Parses the arguments and runs the command."""
        prepare_terminal()
        return super().main(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            with _recorded():
                import_own(ctx.params.get("imports", ()))
                return super().invoke(ctx)
        except Exception as error:
            message = _explanation(error)
            if not message:
                raise
        click.echo(f"{ctx.info_name}: error: {message}", err=True)
        raise SystemExit(2)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the examples without re-wrapping their lines."""
        if self.epilog:
            formatter.write_paragraph()
            for line in self.epilog.strip().splitlines():
                formatter.write_text(line) if line and not line.startswith(" ") else formatter.write(line + "\n")


def import_own(sources: Sequence[str]) -> None:
    """Imports code of --import, see gan.measuring.importing; loads torch only if there is any."""
    if sources:
        from gan.measuring.importing import import_own as execute

        execute(sources)


def _recorded() -> AbstractContextManager[None]:
    """Context manager: records the cause of a failure for torchrun, if torchrun started this process."""
    if "TORCHELASTIC_ERROR_FILE" not in os.environ:
        return nullcontext()
    from gan.runtime.distributed import recorded

    return recorded(_explanation)


def _explanation(error: Exception) -> str:
    """Returns the message for an error caused by the user, the settings or another process; "" for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):  # click ends a command before `| head`
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if isinstance(error, MemoryError | RuntimeError):
        return _explain_runtime(error)
    return ""


def _explain_runtime(error: MemoryError | RuntimeError) -> str:
    from gan.runtime.determinism import explain_nondeterminism
    from gan.runtime.device import is_out_of_memory
    from gan.runtime.distributed import is_connection_lost

    if is_out_of_memory(error):
        return "not enough memory for these settings; try smaller batches, fewer channels or another --device"
    assert isinstance(error, RuntimeError)
    if is_connection_lost(error):
        return "another process of this run has ended, so this one stops too; see the message of the other one"
    return explain_nondeterminism(error)


def describe(registries: Mapping[str, Iterable[str]]) -> str:
    """Returns one line per registry: the setting and the names it accepts."""
    return "\n".join(f"{place}: {', '.join(names)}" for place, names in registries.items())
