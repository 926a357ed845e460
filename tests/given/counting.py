"What a GPU would be asked for, counted on the CPU"
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from otseg.study.measure import host_waits


class _Listener(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.ops = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.ops.append(op.name())
        return op(*args, **(kwargs or {}))


class Seen(NamedTuple):
    out: Any    # What the call gave
    waits: int  # How often a device would be waited for, by `host_waits`
    told: dict  # The same by operation, room and line
    ops: list   # Names of all operations, those inside the operators of the transport too


def host_syncs(fn: Callable) -> Seen:
    "A call without arguments, as a GPU would see it"
    got = []
    with _Listener() as listener: told = host_waits(lambda: got.append(fn()))
    return Seen(got[0], sum(told.values()), told, listener.ops)


class Largest(TorchDispatchMode):
    "Numbers and bytes of the largest array that is made: of all, or of floating-point ones alone"
    def __init__(self, floats: bool=False):
        super().__init__()
        self.floats, self.numbers, self.bytes = floats, 0, 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        made = op(*args, **(kwargs or {}))
        for x in made if isinstance(made, (tuple, list)) else [made]:
            if not isinstance(x, torch.Tensor) or self.floats and not x.is_floating_point(): continue
            size = x.untyped_storage().nbytes()
            self.numbers, self.bytes = max(self.numbers, size // x.element_size()), max(self.bytes, size)
        return made
