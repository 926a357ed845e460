"""Zero-shot semantic segmentation by optimal transport; names are imported when they are first used"""
from importlib import import_module

__version__ = "0.1.0"


def faces(package: str, rooms: dict[str, str]):
    "What a package shows, each name imported from its module on first use: `__getattr__`, `__dir__`, `__all__`"
    home = {name: module for module, names in rooms.items() for name in names.split()}

    def __getattr__(name):
        if name not in home: raise AttributeError(f'module {package!r} has no attribute {name!r}')
        return getattr(import_module(f'{package}.{home[name]}'), name)

    return __getattr__, lambda: sorted(home), sorted(home)


__getattr__, __dir__, __all__ = faces(__name__, dict(
    transport='MPSA mps sinkhorn',
    model='OTSeg TrainingFree load_vocab',
    data='load_dataset',
    train='fit',
    predict='Segmenter',
))
