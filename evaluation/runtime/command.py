"""Base class of all commands and tools. Imports no torch."""

from collections.abc import Sequence
from itertools import pairwise

import click


class CheckedCommand(click.Command):
    """Click command that refuses empty arguments: as a path, an empty text would mean the current folder."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the options.

        Raises:
            click.UsageError: an argument is empty.
        """
        _check_not_empty(args, ctx)
        return super().parse_args(ctx, args)


def _check_not_empty(arguments: Sequence[str], context: click.Context) -> None:
    for before, text in pairwise(["", *arguments]):
        empty = text == "" or (text.startswith("--") and text.find("=") == len(text) - 1)
        if empty:
            place = text.removesuffix("=") or (before if before.startswith("-") else "arguments")
            raise click.UsageError(
                f"{place}: got an empty value; a shell variable may be unset. Write . for the current folder, or "
                "leave the option out",
                context,
            )
