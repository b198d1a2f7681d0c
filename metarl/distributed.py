"""Several processes that share the tasks of every meta-batch, started by torchrun.

Every process holds the same θ. Each samples and differentiates its own share of the tasks; what is
summed over tasks is summed over processes, and so all of them take the very same outer step.
Started any other way there is one process, and everything here does nothing.
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

TIMEOUT = timedelta(minutes=30)  # as long as the first process may evaluate, and the others wait

_waited: list[float] = []


def restarted() -> bool:
    """Whether torchrun started the processes anew after one of them had failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def process_group() -> Iterator[None]:
    """Join the other processes, where torchrun started several.

    The processes of a machine divide its processors among them: torch and the physics of each take
    no more threads than their share.
    """
    if not under_torchrun():
        yield
        return
    # after a restart torchrun's store still holds where the processes before it listened: names of
    # its own keep every generation from calling the dead
    store, number, processes = next(rendezvous("env://", timeout=TIMEOUT))
    generation = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(  # gloo, and nccl for tensors on a GPU
        store=PrefixStore(f"metarl-{generation}", store),
        rank=number,
        world_size=processes,
        timeout=TIMEOUT,
    )
    torch.set_num_threads(processors())
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """This process's number; 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def shard(num_tasks: int) -> slice:
    """Which tasks of a meta-batch are this process's.

    Every process has one at least, if there are enough.
    """
    return slice(
        num_tasks * rank() // world_size(),
        num_tasks * (rank() + 1) // world_size(),
    )


def mean_over_tasks(total: Tensor, num_tasks: int) -> Tensor:
    """The mean over the tasks of all processes, the same in each.

    Args:
        total: the sum over this process's tasks, of any shape.
        num_tasks: how many these are.

    Raises:
        ProcessLost: if another process died.
    """
    if world_size() == 1:
        return total / num_tasks
    summed = torch.cat([total.reshape(-1), total.new_tensor([num_tasks])])
    started = time.perf_counter()
    with _reporting_loss():
        dist.all_reduce(summed)
    _waited.append(time.perf_counter() - started)
    return (summed[:-1] / summed[-1]).view(total.shape)


def seconds_waited() -> float:
    """How long this process waited for the others in `mean_over_tasks` since it was last asked."""
    seconds = sum(_waited)
    _waited.clear()
    return seconds


def broadcast(value: Value | None) -> Value:
    """The first process's value, in all of them.

    Raises:
        ProcessLost: if another process died.
    """
    box = [value]
    if world_size() > 1:
        with _reporting_loss():
            dist.broadcast_object_list(box)
    assert box[0] is not None
    return box[0]


@contextmanager
def _reporting_loss() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # how gloo and nccl report a closed connection
        first_line = str(error).splitlines()[0]
        raise ProcessLost(
            f"process {rank()} lost its connection to another: {first_line}"
        ) from error
