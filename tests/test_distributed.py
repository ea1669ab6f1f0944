"""Tests that several processes train and evaluate as one does, and of their termination. CPU and gloo only."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import distributed_cases as cases
import pytest
import torch
from click.testing import CliRunner
from commands import done

from gan.errors import ConfigError
from gan.evaluate import main as gan_eval
from gan.runs.checkpoint import read_checkpoint
from gan.runs.finding import list_checkpoints
from gan.runtime.distributed import ALONE, Processes, own_device

ROOT = Path(__file__).resolve().parent.parent
Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sets one thread as torchrun does; the number of threads changes the order of summation."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@contextmanager
def torchrun(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Context with two processes whose outputs share one pipe; both are ended at exit."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    with subprocess.Popen(
        [*launcher, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()  # torchrun ends its processes


def ended(process: subprocess.Popen[str], *, well: bool = True) -> str:
    """Waits for a process and returns its output."""
    output, _ = process.communicate(timeout=240)
    assert (process.returncode == 0) == well, output
    return output


def run_to_the_end(*arguments: object, well: bool = True) -> str:
    with torchrun(*arguments) as process:
        return ended(process, well=well)


def same(one: Any, other: Any, tolerance: float, place: str = "state") -> None:
    """Asserts that numbers in nested containers agree up to tolerance * (1 + size); 0: bit for bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            same(one[key], other[key], tolerance, f"{place}.{key}")
    elif isinstance(one, list | tuple):
        for index, pair in enumerate(zip(one, other, strict=True)):
            same(*pair, tolerance, f"{place}[{index}]")
    elif isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance, msg=lambda text: f"{place}: {text}")
    else:
        assert one == other, place


@pytest.fixture(scope="module")
def alone(small_shapes: Path) -> Results:
    """Results of every case in this process."""
    return {case: cases.run(case, small_shapes, ALONE) for case in cases.CASES}


@pytest.fixture(scope="module")
def two(alone: Results, small_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    """Results of every case in two processes, by rank."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "data").symlink_to(small_shapes)
    for case, result in alone.items():
        torch.save(result["half"], folder / f"{case}-half.pt")
    run_to_the_end(ROOT / "tests" / "distributed_cases.py", folder)
    return [{name: torch.load(folder / f"{name}-{rank}.pt") for name in [*cases.CASES, "answers"]} for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("case", cases.CASES)
def test_losses_and_gradients_are_one_processs(alone: Results, two: list[Results], case: str) -> None:
    """Equal far below 1e-6 in float64, and up to rounding in float32.

    A float32 gradient is compared relative to its network's, because biases before a batch norm have gradients of
    rounding errors only. Measured: 5e-7 to 9e-7 in discriminators, 2.2e-6 to 3.1e-6 in generators. This is the effect
    of summation order: reversing an unconditional batch in one process changes the generator's gradient by 2.6e-6 to
    3.2e-6.
    """
    same(two[0][case]["float64"], alone[case]["float64"], 1e-10)
    if case == "sn-few-images":
        return  # in float32 its penalty, of squared logits, differs by 4e-4
    ours, theirs = two[0][case]["float32"], alone[case]["float32"]
    torch.testing.assert_close(ours["scalars"], theirs["scalars"], rtol=1e-6, atol=1e-6)
    for network in ("generator.", "discriminator."):
        one, other = (
            torch.cat([value.flatten() for name, value in found["gradients"].items() if name.startswith(network)])
            for found in (ours, theirs)
        )
        assert float((one - other).norm() / other.norm()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("case", cases.CASES)
def test_the_state_after_twenty_steps_is_one_processs(alone: Results, two: list[Results], case: str) -> None:
    """Compares parameters, singular vectors, running statistics, Adam's moments, average and log totals.

    In float64, because Adam turns gradients that are rounding errors into full steps: in float32 the biases before a
    batch norm, which have no effect, differ by 1e-3 after twenty steps, and running means with them.
    """
    same(two[0][case]["end"], alone[case]["end"], 1e-6)
    same(two[1][case], two[0][case], 0)


@pytest.mark.slow
@pytest.mark.parametrize("case", cases.IN_FLOAT32)
def test_the_float32_networks_after_twenty_steps_are_nearly_one_processs(
    alone: Results, two: list[Results], case: str
) -> None:
    """Discriminators agree to 1e-5 and generators to 2e-4, apart from tensors that only rounding changes.

    Those differ by 3e-3 to 7e-3, see the previous test. Measured otherwise: 2e-8 to 4.3e-7 in discriminators with
    normalization or orthogonal regularization, 7.9e-5 in wgan_gp's, 2.1e-5 to 7.5e-5 in generators, most in the linear
    layer, because Adam's steps of small gradients depend on rounding too.
    """
    ours, theirs = two[0][case]["end in float32"], alone[case]["end in float32"]
    for network in ("discriminator", "generator", "average"):
        tight = network == "discriminator" and not case.startswith("wgan_gp")
        same(determined(ours[network]), determined(theirs[network]), 1e-5 if tight else 2e-4, network)


def determined(network: dict[str, Any]) -> dict[str, Any]:
    """Tensors without the generator's biases right before a batch norm and without running means, which follow them."""
    moved_by_rounding = re.compile(r"blocks\.\d+\.(conv\d|shortcut)\.bias|.*running_mean")
    normalized = any(name.endswith("running_mean") for name in network)
    return {name: value for name, value in network.items() if not (normalized and moved_by_rounding.fullmatch(name))}


@pytest.mark.slow
@pytest.mark.parametrize("case", cases.CASES)
def test_another_number_of_processes_goes_on(alone: Results, two: list[Results], case: str, small_shapes: Path) -> None:
    """Resumes half-way from one process with two, and from two with one."""
    same(two[0][case]["resumed"], alone[case]["end"], 1e-6)
    same(cases.resume(case, small_shapes, ALONE, two[0][case]["half"]), alone[case]["end"], 1e-6)


@pytest.mark.slow
def test_batch_norm_is_over_the_whole_batch(two: list[Results]) -> None:
    """Outputs, gradients and running statistics equal torch's over all eight images."""
    for name, expected in cases.batch_norms(ALONE).items():
        parts = [rank["answers"]["norms"][name] for rank in two]
        for key in ("output", "gradient"):
            torch.testing.assert_close(torch.cat([part[key] for part in parts]), expected[key])
        for ours, theirs, whole in zip(*(part["gradients"] for part in parts), expected["gradients"], strict=True):
            torch.testing.assert_close(ours + theirs, whole)
        for part in parts:
            same(part["buffers"], expected["buffers"], 1e-12)


@pytest.mark.slow
def test_processes_share_average_and_answer_alike(two: list[Results]) -> None:
    first, second = (rank["answers"] for rank in two)
    assert (first["share"], second["share"]) == ([0, 1, 2], [3, 4, 5])
    for found in (first, second):
        assert found["mean"] == 0.5
        assert found["first"] == found["evaluated"] == 0
        assert found["refused"] == "UserError: no"
        assert found["not evaluated"] == "EvaluationError: no"
        assert found["stop"] == ["", "signal 15"], "the second process alone had the reason"
    assert first["other files"] == ""
    assert "the data is b, in process 0 it is a" in second["other files"]


@pytest.mark.slow
def test_evaluation_deals_out_whole_batches_and_gathers_all_rows(two: list[Results]) -> None:
    first, second = (rank["answers"] for rank in two)
    assert (first["own"], second["own"]) == ([0, 0, 4, 8], [3, 4, 5, 12])
    for found in (first, second):
        assert [rows.tolist() for rows in found["gathered"]] == [list(range(count)) for count in cases.COUNTS]
        assert found["of one"].tolist() == [1, 1]
        assert found["images"].is_contiguous(memory_format=torch.channels_last), "as one process makes them"
        assert found["of none"] is None


@pytest.mark.slow
def test_every_process_begins_with_the_firsts_state(two: list[Results]) -> None:
    ours, theirs = (rank["answers"]["equalized"] for rank in two)
    same(ours, theirs, 0)
    assert not any(bool((value == 7).all()) for value in ours["discriminator"].values())


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_stops_all(two: list[Results]) -> None:
    sentences = [rank["answers"]["diverged"] for rank in two]
    assert "step 1: d_loss" in sentences[0]
    assert sentences[0] == sentences[1]


@pytest.mark.slow
def test_the_fast_step_gives_way_by_name(two: list[Results]) -> None:
    assert two[0]["answers"]["step"] == "plain step: 2 processes exchange gradients during an iteration"


SMALL = ("--config=smoke", "--device=cpu", "--set=train.steps=40", "--set=train.checkpoint_every=2")


@pytest.fixture(scope="module")
def uninterrupted(small_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an uninterrupted run of two processes, evaluated at its end."""
    run = tmp_path_factory.mktemp("uninterrupted")
    settings = ["--set=train.eval_every=40", "--set=eval.metrics=fid,nd", f"--set=data.root={small_shapes}"]
    output = run_to_the_end("-m", "gan.train", *SMALL, *settings, "--run-folder", run)
    assert output.count("done: 40 steps") == 1, "one tells"
    assert "2 processes" in output
    return run


@pytest.mark.slow
def test_an_evaluation_while_training_is_one_processs(uninterrupted: Path, small_shapes: Path, tmp_path: Path) -> None:
    """Values and hashes are equal, although images are split and only the first process trains critics."""
    arguments = ["--metrics=fid,nd", f"--run={uninterrupted}", "--device=cpu", "--out"]
    done(CliRunner().invoke(gan_eval, [*arguments, str(tmp_path / "one")]))
    during, after = (
        json.loads((folder / "report.json").read_text())
        for folder in (uninterrupted / "reports" / "00000040", tmp_path / "one")
    )
    assert during["values"] == after["values"]
    assert len(during["values"]) > 2


@pytest.mark.slow
def test_gan_eval_in_two_processes_is_gan_eval_in_one(uninterrupted: Path, tmp_path: Path) -> None:
    """200 images in batches of 24 make nine batches, split into four and five, the last one smaller."""
    checkpoint = list_checkpoints(uninterrupted)[-1]
    arguments = ["--metrics=fid,prdc", "--set=eval.batch_size=24", "--device=cpu", f"--checkpoint={checkpoint}"]
    done(CliRunner().invoke(gan_eval, [*arguments, f"--out={tmp_path / 'one'}"]))
    output = run_to_the_end("-m", "gan.evaluate", *arguments, f"--out={tmp_path / 'two'}")
    assert output.count("report: ") == 1, "one tells"
    ours, theirs = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("two", "one"))
    assert ours["values"] == theirs["values"]


@pytest.mark.slow
def test_a_run_that_is_stopped_and_killed_resumes_by_itself(
    uninterrupted: Path, small_shapes: Path, tmp_path: Path
) -> None:
    """The second of two processes gets SIGTERM, then another one SIGKILL; torchrun restarts all with --resume.

    After SIGTERM all stop at one step, which is saved. After SIGKILL the remaining processes print a one-line error,
    although torchrun sends them SIGTERM. The final state equals the uninterrupted run's bit for bit. Both signals are
    sent some thirty steps before the end, so that the run is not over before they arrive on a busy machine.
    """
    launch = ["--max-restarts=3", "--monitor-interval=0.1", "-m", "gan.train", *SMALL, "--resume"]
    with torchrun(*launch, f"--set=data.root={small_shapes}", "--run-folder", tmp_path) as process:
        first, output = when_told(process, r"saved .*step-00000002")
        os.kill(first[1], signal.SIGTERM)
        output += when_told(process, r"continuing at step")[1]
        second, more = when_told(process, r"saved ")
        os.kill(second[1], signal.SIGKILL)
        output += more + ended(process)
    stopped = re.search(r"stopped at step (\d+) \(signal 15\)", output)
    assert stopped is not None, output
    assert f"continuing at step {stopped[1]} of 40" in output
    assert "failed (exitcode: -9) local_rank: 1" in output
    assert "gan-train: error: another process of this run has ended" in output, output
    assert not (set(first) & set(second))
    assert "Traceback" not in output
    assert output.count("done: 40 steps") == 1
    ours, theirs = (read_checkpoint(run).state for run in (tmp_path, uninterrupted))
    same(ours, theirs, 0)


def test_what_a_person_can_mend_is_torchruns_reason(small_shapes: Path, tmp_path: Path) -> None:
    settings = [f"--set=data.root={small_shapes}", "--set=train.batch_size=3"]
    output = run_to_the_end("-m", "gan.train", *SMALL, *settings, "--run-folder", tmp_path / "run", well=False)
    assert "gan-train: error: train.batch_size: got 3, which 2 processes cannot share equally" in output
    root_cause = output.partition("Root Cause")[2]
    assert "ConfigError: train.batch_size: got 3" in root_cause
    assert "Traceback" not in root_cause
    assert str(ROOT / "gan") not in output, "no line of a traceback of ours"
    assert not (tmp_path / "run").exists()


def when_told(process: subprocess.Popen[str], pattern: str) -> tuple[list[int], str]:
    """Waits for a line that matches a pattern; returns the process ids by rank, and the output so far."""
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if re.match(pattern, line):
            return workers(process.pid), read
    raise AssertionError(read)


def workers(launcher: int) -> list[int]:
    """Ids of a process's children, by RANK in their environment."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    environments = {int(child): Path(f"/proc/{child}/environ").read_text().split("\0") for child in children}
    ranks = {
        int(text.removeprefix("RANK=")): child
        for child, environment in environments.items()
        for text in environment
        if text.startswith("RANK=")
    }
    return [ranks[rank] for rank in sorted(ranks)]


def test_a_batch_without_equal_shares_names_the_divisors() -> None:
    Processes(count=4).check_batch(12)
    with pytest.raises(ConfigError, match=r"got 12, which 5 processes .* start 1, 2, 3, 4, 6, 12 processes"):
        Processes(count=5).check_batch(12)


def test_each_process_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_device("cuda:1") == "cuda:1"
    for name, value in {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [own_device(name) for name in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    with pytest.raises(ConfigError, match="one GPU for 4 processes"):
        own_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="2 processes on a machine with 1 GPUs; start --nproc-per-node 1"):
        own_device("auto")
