"""Where learning happens. Sampling is always on the processor, beside the physics."""

import os
from typing import Literal, TypeVar

import torch
from torch.utils import _pytree as pytree

from metarl.errors import UserError

Device = Literal["auto", "cpu", "cuda"]
Tree = TypeVar("Tree")
CPU = torch.device("cpu")


def device_for(setting: Device) -> torch.device:
    """The device that a config asks for; `auto` is a GPU where there is one.

    Under torchrun each process takes the GPU with its own number on the machine.

    Raises:
        UserError: if a GPU is asked for and there is none.
    """
    if setting == "cpu" or (setting == "auto" and not torch.cuda.is_available()):
        return CPU
    if not torch.cuda.is_available():
        raise UserError("device: cuda is asked for, but torch sees no GPU; use device=auto or cpu")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def move(tree: Tree, device: torch.device) -> Tree:
    """The same tensors, in the same structure, on a device."""
    moved: Tree = pytree.tree_map_only(torch.Tensor, lambda leaf: leaf.to(device), tree)
    return moved
