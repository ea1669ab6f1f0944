"""Benchmarks. Variants run in turn in one process, so that a busy machine slows all of them equally.

python tools/benchmark.py train --size full --threads 2
python tools/benchmark.py normalize --layout contiguous --json normalize.json
python tools/benchmark.py all --threads 2 --json benchmark.json

Other implementations are compared if they are installed: pip install --no-deps torch-mimicry pytorch-fid
"""

import json
from pathlib import Path
from typing import Any

import click
from benchmarks.classifiers import measure_classify
from benchmarks.data import measure_data
from benchmarks.evaluation import measure_evaluate
from benchmarks.launches import measure_launches
from benchmarks.normalization import measure_normalize
from benchmarks.scale import measure_scale
from benchmarks.training import TECHNIQUES, measure_train

from evaluation.runtime.command import CheckedCommand

COMMANDS = (
    *(measure_train, measure_normalize, measure_evaluate, measure_data, measure_scale, measure_classify),
    measure_launches,
)
UNCOMPILED = ",".join(name for name in TECHNIQUES if name != "compiled")
ALL: dict[str, tuple[click.Command, dict[str, Any]]] = {
    "train, full": (measure_train, {"size": "full", "repeats": 3, "memory": False}),
    "train, quarter": (measure_train, {"size": "quarter", "repeats": 7, "techniques": UNCOMPILED}),
    "normalizations": (measure_train, {"size": "quarter", "normalizations": "none,sn,srn", "peer": False}),
    "normalize": (measure_normalize, {}),
    "normalize, contiguous": (measure_normalize, {"layout": "contiguous"}),
    "evaluate": (measure_evaluate, {"nd": True, "images": 32}),
    "data": (measure_data, {}),
    "scale": (measure_scale, {}),
    "classify": (measure_classify, {}),
}
"""Benchmarks that `all` runs, in under ten minutes on two idle cores."""


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Benchmark parts of this project."""


for command in COMMANDS:
    main.add_command(command)


@main.command("all", cls=CheckedCommand)
@click.option("--threads", type=click.IntRange(1), default=1, help="Number of torch's threads on the CPU.")
@click.option("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
@click.option("--only", multiple=True, type=click.Choice(list(ALL)), help="Run this benchmark alone; may be repeated.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the results here.")
def measure_all(threads: int, device: str, only: tuple[str, ...], json_path: Path | None) -> None:
    """Run the benchmarks of docs/performance.md one after the other."""
    records = {}
    for name in only or ALL:
        command, settings = ALL[name]
        click.echo(f"\n## {name}\n")
        arguments = [part for key, value in settings.items() for part in _as_arguments(command, key, value)]
        arguments += ["--threads", str(threads), "--device", device]
        records[name] = command.main(arguments, standalone_mode=False)
        if json_path is not None:
            json_path.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


def _as_arguments(command: click.Command, key: str, value: Any) -> list[str]:
    """Command-line arguments that set one keyword of a command's function."""
    (option,) = (parameter for parameter in command.params if parameter.name == key)
    if isinstance(value, bool):
        return [(option.opts if value else option.secondary_opts)[0]]
    return [option.opts[0], str(value)]


if __name__ == "__main__":
    main()
