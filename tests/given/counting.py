"What a GPU would be asked for, counted on the CPU"
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = 'item', '_local_scalar_dense', 'is_nonzero', 'equal', 'nonzero', 'masked_select', 'unique', '_unique2', 'allclose'


def _waits(op, args):
    "Whether the host has to wait for the device: a number, a size that depends on values, a boolean mask as an index"
    name = op.name().split('::')[1].split('.')[0]
    if name in WAITS: return name
    indices = args[1] if name in ('index', 'index_put', 'index_put_', '_index_put_impl_') else ()
    if any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices): return f'{name} by a mask'


class _Listener(TorchDispatchMode):
    "Goes through custom operators too, which a mode else sees from outside alone"
    def __init__(self, inside):
        super().__init__()
        self.syncs, self.ops, self.inside = [], [], inside

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if op.name() in self.inside:
            with self: return self.inside[op.name()](*args, **(kwargs or {}))
        if found := _waits(op, args): self.syncs.append(found)
        self.ops.append(op.name())
        return op(*args, **(kwargs or {}))


@contextmanager
def host_syncs(inside=None):
    "Yields a record: `.syncs` that wait for a device, `.ops` of all; `inside`: custom operator -> its function"
    with _Listener(inside or {}) as seen: yield seen
