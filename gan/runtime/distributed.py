"""Trains one model in several processes; no other module uses ranks.

Every process draws the random numbers of the whole batch and uses its share of the rows. Losses are means over equal
shares, DistributedDataParallel averages gradients, and batch norms use statistics of the whole batch. After every step
all processes have the same state, equal up to rounding to that of a single process. Only the first process writes.
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
"""Timeout of collectives. It is long because the others wait for hours while the first process trains critics of Neural
Divergence; a process that ends is detected at once, by its closed connection and by torchrun."""


@dataclass(frozen=True)
class Processes:
    """This process and the number of processes of a run; by default a single one.

    Attributes:
        rank: rank of this process; 0 is the first, which writes the files.
        count: number of processes.
        local_rank: rank among the processes on the same machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes the files."""
        return self.rank == 0

    def check_batch(self, batch_size: int) -> None:
        """Raises ConfigError if a batch cannot be divided equally; the message lists numbers of processes that can."""
        if batch_size % self.count:
            divisors = ", ".join(str(count) for count in range(1, batch_size + 1) if batch_size % count == 0)
            raise ConfigError(
                f"train.batch_size: got {batch_size}, which {self.count} processes cannot share equally; "
                f"start {divisors} processes, or choose a multiple of {self.count}"
            )

    def check_equal(self, value: str, what: str) -> None:
        """Raises ConfigError if `value` differs from that of the first process; the message calls it `what`."""
        expected = self.first(lambda: value)
        if value != expected:
            raise ConfigError(
                f"process {self.rank} of {self.count}: {what} is {value[:16]}, in process 0 it is {expected[:16]}; "
                "every process must see the same files and get the same arguments"
            )

    def share(self, values: Tensor) -> Tensor:
        """Returns this process's rows, (B / count, ...), of a whole batch (B, ...)."""
        assert len(values) % self.count == 0, "see check_batch"
        return values.chunk(self.count)[self.rank]

    def joined(self, values: Tensor) -> Tensor:
        """Returns the rows of all processes, a whole batch (B, ...): the inverse of `share`."""
        if self.count == 1:
            return values
        parts = [torch.empty_like(values) for _ in range(self.count)]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    def mean(self, values: Tensor) -> Tensor:
        """Returns the mean of the values over the processes."""
        if self.count == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.count

    @torch.no_grad()
    def equalize_(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites the tensors of every process with those of the first."""
        if self.count == 1:
            return
        for tensor in tensors:
            # Collectives send memory in its physical order, which differs between channels-last and contiguous tensors.
            first = tensor.detach().contiguous()
            dist.broadcast(first, src=0)
            tensor.copy_(first)

    def first(self, compute: Callable[[], T]) -> T:
        """Computes in the first process and returns the result, sent by pickle, in all processes; the others wait.

        Raises:
            UserError, OSError: in all processes, if `compute` raised it in the first.
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
        """Context manager: one process per machine runs the body first, for example to download files for all."""
        if self.count > 1 and self.local_rank:
            dist.barrier()
        try:
            yield
        finally:
            if self.count > 1 and not self.local_rank:
                dist.barrier()

    def agreed(self, stop: Callable[[int], str]) -> Callable[[int], str]:
        """Returns a `stop` that returns the same reason in all processes: that of the first process that has one.

        It reduces one number per step on the CPU, without waiting for a GPU.
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
        """Returns a copy of a network, with shared tensors, whose batch norms use statistics of the whole batch.

        The network itself is unchanged, for sampling, evaluation and checkpoints. A network without batch norm is
        returned as it is.
        """
        if self.count == 1 or not any(isinstance(module, _BatchNorm) for module in network.modules()):
            return network
        tensors = [*network.parameters(), *network.buffers()]
        twin = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
        for module in twin.modules():
            if isinstance(module, _BatchNorm):
                module.__class__ = _over_the_whole_batch(type(module))
        return twin

    def averaging(self, network: nn.Module) -> nn.Module:
        """Returns the network wrapped so that backward passes average its gradients over the processes."""
        if self.count == 1:
            return network
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the setting's new name is unknown to torch < 2.15
            return DistributedDataParallel(network, broadcast_buffers=False)


ALONE = Processes()


class _Gathered(torch.autograd.Function):
    """Differentiable all-gather, (count, ...); every loss depends on all values, so gradients are summed."""

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
    """Batch normalization over equal shares in several processes, without waiting for the device.

    nn.SyncBatchNorm does not support CPUs, and on a GPU it reads the processes' counts on the host in every pass.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes x (B / count, C, H, W) or (B / count, C) by the statistics of the whole batch."""
        if not self.training:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        own = torch.stack(torch.var_mean(wide, (0, *range(2, x.ndim)), correction=0))
        variances, means = _Gathered.apply(own).unbind(1)  # (count, C)
        mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)
        self._track(mean, variance, len(means) * x.numel() // x.shape[1])
        scale = torch.rsqrt(variance + self.eps)
        by_channel = (-1, *(1 for _ in range(2, x.ndim)))  # (C, 1, 1) or (C,)
        factor = scale if self.weight is None else scale * self.weight
        normalized = (wide - mean.view(by_channel)) * factor.view(by_channel)
        return (normalized if self.bias is None else normalized + self.bias.view(by_channel)).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Updates the running statistics, with the unbiased variance as in torch."""
        assert self.running_mean is not None
        assert self.running_var is not None
        if self.num_batches_tracked is not None:  # None: counted elsewhere
            self.num_batches_tracked.add_(1)
        if self.momentum is not None:
            rate = self.momentum
        else:
            assert self.num_batches_tracked is not None
            rate = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(variance * (count / (count - 1)), rate)


def _over_the_whole_batch(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    """Returns a subclass of the batch-norm class `kind` that normalizes over the whole batch."""
    return type(f"Global{kind.__name__}", (kind, _GlobalBatchNorm), {})


def num_processes() -> int:
    """Returns the number of processes of this run, which torchrun sets."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def own_device(name: str) -> str:
    """Returns the device of this process for --device; of several processes, each uses the GPU of its local rank.

    Raises:
        ConfigError: one GPU is named for several processes, or this machine has fewer GPUs than processes.
    """
    if num_processes() == 1:
        return name
    if name.startswith("cuda:"):
        raise ConfigError(
            f"--device {name}: is one GPU for {num_processes()} processes; use --device cuda, which gives each its own"
        )
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
    """Context manager: connects the processes of this run, by NCCL for tensors on GPUs and by gloo for others."""
    if num_processes() == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    warnings.filterwarnings("ignore", message="Grad strides do not match")  # harmless; occurs only for 1x1 kernels
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, rank, count = next(iter(dist.rendezvous("env://")))
    dist.init_process_group(backend, store=_fresh(store, rank, count), rank=rank, world_size=count, timeout=PATIENCE)
    yield Processes(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
    dist.barrier()  # skipped after an error, because the other processes may never reach it
    dist.destroy_process_group()


def _fresh(store: dist.Store, rank: int, count: int) -> dist.Store:
    """Returns a part of a store with a prefix that only these processes use.

    When torchrun restarts a run, the store may still hold addresses of processes that ended. The first process chooses
    a random prefix; every other process requests it under a random name, for which there is no old answer.
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
    """Context manager: writes an error into torchrun's error file of this process, which torchrun shows as the cause.

    Args:
        explain: returns the message for an error, to be shown alone; "" to show its traceback.
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
    """Writes the file of `ErrorHandler.record_exception` without "py_callstack", so torchrun shows only the message."""
    extra = {"timestamp": str(int(time.time()))}
    file.write_text(json.dumps({"message": {"message": text, "extraInfo": extra}}), encoding="utf-8")


def is_connection_lost(error: BaseException) -> bool:
    """Returns whether a collective failed because another process ended; gloo has several messages for it."""
    known = isinstance(error, dist.DistNetworkError | dist.DistBackendError)
    return known or any(words in str(error) for words in ("gloo/transport", "closed by peer", "reset by peer"))


__all__ = ["ALONE", "Processes", "is_connection_lost", "num_processes", "own_device", "recorded", "started"]
