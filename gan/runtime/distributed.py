"""Several processes that train one model; no other module uses ranks.

Every process draws the random numbers of the whole batch and takes its rows. Losses are means over equal shares,
gradients are averaged by DistributedDataParallel, batch norms see the whole batch. After every step all processes hold
the same state, which is one process's up to rounding; the first of them writes.
"""

import copy
import json
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.errors import get_error_handler
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from gan.errors import ConfigError, UserError

T = TypeVar("T")

PATIENCE = timedelta(days=1)
"""Timeout of collectives: the first process alone trains critics of Neural Divergence, for hours. A dead process is
noticed at once, by its closed connection and by torchrun."""


@dataclass(frozen=True)
class Processes:
    """This process among all of a run; by default the only one.

    rank: 0 is the first, the one that writes. local_rank: among those on the same machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def check_batch(self, batch_size: int) -> None:
        """Raises ConfigError if a batch has no equal shares; names the numbers of processes that it has them for."""
        if batch_size % self.count:
            divisors = ", ".join(str(count) for count in range(1, batch_size + 1) if batch_size % count == 0)
            raise ConfigError(
                f"train.batch_size: got {batch_size}, of which {self.count} processes have no equal shares; "
                f"start {divisors} processes, or choose a multiple of {self.count}"
            )

    def check_equal(self, value: str, what: str) -> None:
        """Raises ConfigError where `value` differs from the first process's; `what` names it."""
        expected = self.first(lambda: value)
        if value != expected:
            raise ConfigError(
                f"process {self.rank} of {self.count}: {what} is {value[:16]}, in process 0 it is {expected[:16]}; "
                "every process must see the same files and get the same arguments"
            )

    def share(self, values: Tensor) -> Tensor:
        """This process's rows of a whole batch (B, ...), (B / count, ...)."""
        assert len(values) % self.count == 0, "see check_batch"
        return values.chunk(self.count)[self.rank]

    def mean(self, values: Tensor) -> Tensor:
        """Mean of the values over the processes."""
        if self.count == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.count

    @torch.no_grad()
    def equalize_(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites every process's tensors with those of the first."""
        if self.count == 1:
            return
        for tensor in tensors:
            # A collective takes memory as it lies; channels last is another order than that of a contiguous copy.
            first = tensor.detach().contiguous()
            dist.broadcast(first, src=0)
            tensor.copy_(first)

    def first(self, compute: Callable[[], T]) -> T:
        """Computes in the first process and returns the result in all of them, by pickle; the others wait.

        Raises:
            UserError, OSError: in all of them, if `compute` raised it in the first.
        """
        if self.count == 1:
            return compute()
        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = compute()
            except (UserError, OSError) as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        result: T = outcome[0]
        return result

    @contextmanager
    def one_first(self) -> Iterator[None]:
        """Lets one process of each machine run the body first: it downloads, and the others find the files."""
        if self.count > 1 and self.local_rank:
            dist.barrier()
        try:
            yield
        finally:
            if self.count > 1 and not self.local_rank:
                dist.barrier()

    def agreed(self, stop: Callable[[int], str]) -> Callable[[int], str]:
        """Returns a `stop` with the same answer in all processes: the first reason of any of them.

        It reduces one number per step, in the CPU's memory, without waiting for a GPU.
        """
        if self.count == 1:
            return stop

        def reason(step: int) -> str:
            own = stop(step)
            any_has_one = torch.tensor(int(bool(own)))
            dist.all_reduce(any_has_one, dist.ReduceOp.MAX)
            if not any_has_one:
                return ""
            reasons = [""] * self.count
            dist.all_gather_object(reasons, own)
            return next(filter(None, reasons))

        return reason

    def synchronized(self, network: nn.Module) -> nn.Module:
        """The network with batch norms over the whole batch: a twin that shares all its tensors.

        The network itself stays as it is, for sampling, evaluation and checkpoints; so does one without batch norm.
        """
        if self.count == 1 or not any(isinstance(module, _BatchNorm) for module in network.modules()):
            return network
        tensors = [*network.parameters(), *network.buffers()]
        twin = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
        on_gpu = any(tensor.is_cuda for tensor in tensors)
        for module in twin.modules():
            if isinstance(module, _BatchNorm):
                module.__class__ = _over_the_whole_batch(type(module), on_gpu)
        return twin

    def averaging(self, network: nn.Module) -> nn.Module:
        """The network for forward passes whose backward pass averages its parameters' gradients over the processes."""
        if self.count == 1:
            return network
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the setting's new name is unknown to torch < 2.15
            return DistributedDataParallel(network, broadcast_buffers=False)


ALONE = Processes()


class _Gathered(torch.autograd.Function):
    """Values of all processes, (count, ...); every loss depends on all values, so gradients are summed."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        values = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(values, own)
        return torch.stack(values)

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> Tensor:
        total = gradients.clone()
        dist.all_reduce(total)
        return total[dist.get_rank()]


class _GlobalBatchNorm(_BatchNorm):
    """Batch normalization over equal shares in several processes: nn.SyncBatchNorm does not support CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        own = torch.stack(torch.var_mean(wide, (0, 2, 3), correction=0))
        variances, means = _Gathered.apply(own).unbind(1)  # (count, C)
        mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)
        self._track(mean, variance, len(means) * x.numel() // x.shape[1])
        scale = torch.rsqrt(variance + self.eps)
        normalized = (wide - mean[:, None, None]) * (scale if self.weight is None else scale * self.weight)[
            :, None, None
        ]
        return (normalized if self.bias is None else normalized + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Running statistics; of the variance the unbiased one, as torch does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        rate = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(variance * (count / (count - 1)), rate)


def _over_the_whole_batch(kind: type[_BatchNorm], on_gpu: bool) -> type[_BatchNorm]:
    """A class like `kind`, nn.BatchNorm2d or a child of it, whose super().forward sees the whole batch."""
    normalization = nn.SyncBatchNorm if on_gpu else _GlobalBatchNorm
    return type(f"Global{kind.__name__}", (kind, normalization), {"process_group": None})


def num_processes() -> int:
    """Number of processes of this run, as torchrun sets it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def own_device(name: str) -> str:
    """Device of this process for --device: with several processes, each takes the GPU of its local rank.

    Raises:
        ConfigError: one GPU for all processes, or fewer GPUs than processes on this machine.
    """
    if num_processes() == 1:
        return name
    if name.startswith("cuda:"):
        raise ConfigError(f"--device {name}: one GPU for {num_processes()} processes; with cuda each has its own")
    if name == "cpu" or not torch.cuda.is_available():
        return name
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if here > gpus:
        raise ConfigError(
            f"--device {name}: {here} processes on a machine with {gpus} GPUs; "
            f"start --nproc-per-node {gpus}, or train on the CPU with --device cpu"
        )
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


@contextmanager
def started(device: torch.device) -> Iterator[Processes]:
    """The processes of this run, connected: by NCCL for tensors on GPUs, by gloo for those in the CPU's memory."""
    if num_processes() == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    warnings.filterwarnings("ignore", message="Grad strides do not match")  # of 1x1 kernels, the same in any layout
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, rank, count = next(iter(dist.rendezvous("env://")))
    dist.init_process_group(backend, store=_fresh(store, rank, count), rank=rank, world_size=count, timeout=PATIENCE)
    yield Processes(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
    dist.barrier()  # not after an error, which the others may never hear of
    dist.destroy_process_group()


def _fresh(store: dist.Store, rank: int, count: int) -> dist.Store:
    """A part of a store that only these processes have written to.

    A run that torchrun restarts may get its old store, with addresses of processes that ended. The first process
    chooses a new part; each other one asks for it under a new name.
    """
    name = uuid.uuid4().hex
    if rank:
        store.set(f"asks/{rank}", name)
        part = dist.PrefixStore(store.get(f"answer/{name}").decode(), store)
        part.add("met", 1)
        return part
    part = dist.PrefixStore(name, store)
    while part.add("met", 0) < count - 1:
        for question in (f"asks/{other}" for other in range(1, count)):
            if store.check([question]):
                store.set(f"answer/{store.get(question).decode()}", name)
        time.sleep(0.02)
    return part


@contextmanager
def recorded(explain: Callable[[Exception], str]) -> Iterator[None]:
    """Writes errors in the body into the file that torchrun gives each process, to be shown as the cause.

    Args:
        explain: one sentence for an error, which is shown alone; "" for one that is shown with its traceback.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file is None:
        yield
        return
    handler = get_error_handler()
    handler.initialize()
    try:
        yield
    except Exception as error:
        sentence = explain(error)
        if sentence:
            _record(Path(file), f"{type(error).__name__}: {sentence}")
        else:
            handler.record_exception(error)
        raise


def _record(file: Path, text: str) -> None:
    """Writes what `ErrorHandler.record_exception` does, without "py_callstack", so that torchrun shows the message."""
    extra = {"timestamp": str(int(time.time()))}
    file.write_text(json.dumps({"message": {"message": text, "extraInfo": extra}}), encoding="utf-8")


def is_connection_lost(error: BaseException) -> bool:
    """Whether a collective failed because another process of the run ended; gloo has several messages for it."""
    known = isinstance(error, dist.DistNetworkError | dist.DistBackendError)
    return known or any(words in str(error) for words in ("gloo/transport", "closed by peer", "reset by peer"))


__all__ = ["ALONE", "Processes", "is_connection_lost", "num_processes", "own_device", "recorded", "started"]
