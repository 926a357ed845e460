"""Another machine, simulated: put this folder on PYTHONPATH and name what is other in OTSEG_ELSEWHERE.

`rounding`: matrix products round otherwise, and otherwise for each shape, as another BLAS, processor or number of
threads may do. What asserts equal bits across batch sizes fails under it; what leaves room for rounding passes.
`cuda`: PyTorch says that there is a GPU, unless CUDA_VISIBLE_DEVICES hides it as from a driver; whatever touches it fails.

Python imports a module of this name by itself as it starts, so notebooks, tests and the processes that they start all
see the same machine. `scripts/run_tests.py` chooses it.
"""
import importlib.abc
import importlib.util
import os
import sys

WHAT = {w for w in os.environ.get('OTSEG_ELSEWHERE', '').split(',') if w}
unknown = WHAT - {'rounding', 'cuda'}
if unknown: raise SystemExit(f'OTSEG_ELSEWHERE should name rounding or cuda, got {", ".join(unknown)}')


class AfterTorch(importlib.abc.MetaPathFinder):
    "Changes torch once it is imported; a process that does not import it starts as quickly as ever"
    def find_spec(self, name, path=None, target=None):
        if name != 'torch': return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec('torch')
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            if 'rounding' in WHAT: other_rounding()
            if 'cuda' in WHAT: pretended_gpu()

        spec.loader.exec_module = exec_module
        return spec


def other_rounding():
    import functools
    import zlib

    import torch
    import torch.nn.functional as F

    LARGEST = 2**18  # numbers; what is larger is left alone, so that peaks of memory are what they were
    noise = {}

    def drawn_for(x):
        "0 or plus or minus the rounding of the format, drawn for each element from the shape alone"
        key = tuple(x.shape), x.dtype
        found = noise.pop(key, None)
        if found is None:
            g = torch.Generator().manual_seed(zlib.crc32(repr(key).encode()))
            drawn = torch.randint(-1, 2, x.shape, generator=g, dtype=torch.int8, device='cpu')
            found = drawn.to(x.dtype) * torch.finfo(x.dtype).eps
            if len(noise) > 512: noise.pop(next(iter(noise)), None)  # unused for longest; it is drawn again, and alike
        noise[key] = found  # the last one used
        return found

    def moved(x):
        "A result, moved by about a unit in the last place or by nothing; a sum keeps nothing for the backward pass"
        plain = type(x) in (torch.Tensor, torch.nn.Parameter) and x.device.type == 'cpu' and x.is_floating_point()
        return x + x.detach() * drawn_for(x) if plain and 0 < x.numel() <= LARGEST else x

    def otherwise(product):
        @functools.wraps(product)
        def rounded(*args, **kwargs):
            out = product(*args, **kwargs)
            return out if torch.compiler.is_compiling() or 'out' in kwargs else moved(out)
        return rounded

    # Attributes, not a mode of PyTorch's: operators written in Python run outside of any mode.
    for name in 'matmul', 'mm', 'bmm', 'addmm', 'baddbmm', 'einsum', 'mv':
        setattr(torch, name, otherwise(getattr(torch, name)))
    for name in '__matmul__', 'matmul', 'mm', 'bmm', 'mv':
        setattr(torch.Tensor, name, otherwise(getattr(torch.Tensor, name)))
    for name in 'linear', 'conv2d', 'scaled_dot_product_attention':
        setattr(F, name, otherwise(getattr(F, name)))


def pretended_gpu():
    import torch

    def touched(*args, **kwargs): raise RuntimeError('the GPU was touched, and this is not a test of the GPU')

    def visible(): return os.environ.get('CUDA_VISIBLE_DEVICES') != ''

    torch.cuda.is_available, torch.cuda.device_count = visible, lambda: int(visible())
    torch.cuda._lazy_init = touched
    for name in ('get_device_name', 'get_device_properties', 'synchronize', 'current_device', 'mem_get_info', 'init'):
        setattr(torch.cuda, name, touched)


if WHAT: sys.meta_path.insert(0, AfterTorch())
