"Tensors that have a device, a shape and a type, but no data: as on a GPU, without one"
from contextlib import nullcontext

import pytest
import torch
from torch import nn

try: from torch._subclasses.fake_tensor import FakeTensorMode
except ImportError: FakeTensorMode = object

OTHER = 'lazy'  # what has a gradient runs there: for CUDA, the autograd engine asks the driver
GPU = 'cuda' if tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 14) else OTHER  # torch 2.6 asks the driver at once
aten = torch.ops.aten
fakes_only = pytest.mark.skipif(FakeTensorMode is object, reason=f'torch {torch.__version__} has no FakeTensorMode')


class Fakes(FakeTensorMode):
    "Every truth is true, every number 1, every entry nonzero, and a histogram as long as asked for"
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        x = args[0] if args else None
        if func is aten._local_scalar_dense.default: return x.dtype == torch.bool or (1. if x.is_floating_point() else 1)
        with self:
            if func is aten.nonzero.default: return torch.empty(x.numel(), x.ndim, dtype=torch.long, device=x.device)
            if func is aten.bincount.default: return x.new_empty(args[2] if len(args) > 2 else kwargs['minlength'])
        return super().__torch_dispatch__(func, types, args, kwargs)


def moved(model, device=GPU):
    "The model, with fake weights on a device; what is a tensor of its own and no weight would be left behind, and be seen"
    for module in model.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.empty(p.shape, dtype=p.dtype, device=device), p.requires_grad))
        for name, b in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(b.shape, dtype=b.dtype, device=device))
    return model


def autocast_for_all(monkeypatch):
    "Autocast knows no `lazy` device; there it is off in any case"
    plain = torch.autocast
    monkeypatch.setattr(torch, 'autocast', lambda kind, *args, **kwargs:
                        nullcontext() if kind == OTHER else plain(kind, *args, **kwargs))
