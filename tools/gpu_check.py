"""Validates and measures everything on a GPU, each step in a process of its own with a time limit.

\b
    python tools/gpu_check.py --only validate                    is the result right? 200 s at most
    python tools/gpu_check.py --only measure                     is it fast enough? 330 s at most
    python tools/gpu_check.py --only measure,training --images cifar10-jpeg.tar.xz --minutes 9.5
    python tools/gpu_check.py --cpu-rehearsal                    every step at tiny size, without a GPU

gpu_check.json in the folder --out is rewritten after every step; the tables at the end are in gpu_check.md. No file is
larger than 16 MiB. Nothing is downloaded; docs/performance.md says what to carry to a machine without a network.

Exit status: 0 if all steps were done and no goal was missed, 1 otherwise, 2 for wrong options or without a GPU.
"""

import sys
from pathlib import Path

import click
from checking.conditions import Conditions
from checking.goals import succeeded, table
from checking.plan import STEPS, chosen_steps
from checking.running import run_steps

from evaluation.runtime.command import CheckedCommand

REHEARSAL_SECONDS = 600.0
"""Time limit of each step of a rehearsal, which may run on a busy machine."""
LISTED = "\n".join(f"  {name:<15} {step.group:<9} {step.seconds:>4.0f} s  {step.shows}" for name, step in STEPS.items())


@click.command(cls=CheckedCommand, help=__doc__, epilog=f"\b\nSteps, their groups and time limits:\n{LISTED}")
@click.option("--only", default="", metavar="STEP,...", help="Steps or groups. [default: validate and measure]")
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="Deadline of all steps. [default: 9.5; a rehearsal's: 60]",
)
@click.option("--images", default="", help="Images of the step training: a folder of classes, an archive, or packed.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("gpu_check"), show_default=True, help="Results.")
@click.option("--small", is_flag=True, help="Tiny sizes on the GPU: shows that the steps work, measures nothing.")
@click.option("--cpu-rehearsal", is_flag=True, help="Every step at tiny size on the CPU.")
def main(only: str, minutes: float | None, images: str, out: Path, small: bool, cpu_rehearsal: bool) -> None:
    """Run the steps and print the tables."""
    try:
        names = chosen_steps(
            [name.strip() for name in only.split(",") if name.strip()], images=bool(images) or cpu_rehearsal
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if images and not Path(images).exists():
        raise click.UsageError(f"--images: {images} does not exist; expected a folder, an archive or a packed data set")
    if not cpu_rehearsal and (missing := missing_gpu()):
        click.echo(missing, err=True)
        sys.exit(2)
    out.mkdir(parents=True, exist_ok=True)
    device, limits = ("cpu", dict.fromkeys(STEPS, REHEARSAL_SECONDS)) if cpu_rehearsal else ("cuda", {})
    given = str(Path(images).resolve()) if images else ""
    conditions = Conditions(device, small or cpu_rehearsal, 0.0, out.resolve(), given)
    results = run_steps(names, conditions, minutes or (60 if cpu_rehearsal else 9.5), click.echo, limits)
    click.echo("\n" + table(results))
    (out / "gpu_check.md").write_text(table(results), encoding="utf-8")
    sys.exit(0 if succeeded(results) else 1)


def missing_gpu() -> str:
    """Returns one sentence if torch finds no GPU, otherwise ""."""
    import torch

    if torch.cuda.is_available():
        return ""
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    return (
        f"gpu_check: torch {torch.__version__}, {built}, finds no GPU here: run it on a machine with one, or add "
        "--cpu-rehearsal to run every step at tiny size on the CPU"
    )


if __name__ == "__main__":
    main()
