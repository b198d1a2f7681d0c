"""Data parallelism over the tasks of a meta-batch, for processes started by torchrun.

Every process holds the same θ, and samples and differentiates its shard of the tasks. Sums over
tasks are all-reduced, so that all processes take the same outer step. Without torchrun there is one
process, and the functions here do nothing.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from metarl.errors import ProcessLost
from metarl.threads import processors, under_torchrun

Value = TypeVar("Value")

TIMEOUT = timedelta(minutes=30)  # the others wait while rank 0 evaluates

_waiting_times: list[float] = []


def restarted() -> bool:
    """Whether torchrun restarted the processes after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def process_group() -> Iterator[None]:
    """Initialise torch.distributed if torchrun started this process.

    The processors of a machine are divided among its processes; see `metarl.threads.processors`.
    """
    if not under_torchrun():
        yield
        return
    # after a restart, torchrun's store still holds the addresses of the failed processes: a prefix
    # for each generation keeps this one from connecting to them
    store, process_rank, num_processes = next(rendezvous("env://", timeout=TIMEOUT))
    generation = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(  # gloo for CPU tensors, nccl for GPU tensors
        store=PrefixStore(f"metarl-{generation}", store),
        rank=process_rank,
        world_size=num_processes,
        timeout=TIMEOUT,
    )
    torch.set_num_threads(processors())
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Rank of this process; 0 without torchrun."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes; 1 without torchrun."""
    return dist.get_world_size() if dist.is_initialized() else 1


def shard(num_tasks: int) -> slice:
    """This process's tasks of a meta-batch; at least one if there are enough."""
    # rounded down at both ends, so that shards are disjoint and their sizes differ by one at most
    return slice(num_tasks * rank() // world_size(), num_tasks * (rank() + 1) // world_size())


def all_reduce_mean(total: Tensor, num_tasks: int) -> Tensor:
    """The mean over the tasks of all processes (all-reduce), from the sum over this process's.

    Raises:
        ProcessLost: if another process died.
    """
    if world_size() == 1:
        return total / num_tasks
    # sum and count in one vector, so that processes communicate once; shards differ in size
    summed = torch.cat([total.reshape(-1), total.new_tensor([num_tasks])])
    started = time.perf_counter()
    with _reporting_loss():
        dist.all_reduce(summed)
    _waiting_times.append(time.perf_counter() - started)
    return (summed[:-1] / summed[-1]).view(total.shape)


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the values of all processes, in double precision."""
    values = values.double()
    # Var x = E[x²] − (E x)², from two sums that processes can exchange in one message
    sums = torch.stack([values.sum(), values.square().sum()])
    mean, mean_square = all_reduce_mean(sums, values.numel())
    return mean, (mean_square - mean.square()).clamp(min=0.0)


def seconds_waited() -> float:
    """Seconds spent in the all-reduce of `all_reduce_mean` since the last call."""
    seconds = sum(_waiting_times)
    _waiting_times.clear()
    return seconds


def broadcast(value: Value | None) -> Value:
    """The value of rank 0, in all processes.

    Raises:
        ProcessLost: if another process died.
    """
    box = [value]  # `broadcast_object_list` replaces the elements of a list
    if world_size() > 1:
        with _reporting_loss():
            dist.broadcast_object_list(box)
    assert box[0] is not None
    return box[0]


@contextmanager
def _reporting_loss() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo and nccl raise it for a closed connection
        first_line = str(error).splitlines()[0]
        raise ProcessLost(
            f"process {rank()} lost its connection to another: {first_line}"
        ) from error
