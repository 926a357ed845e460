"""Training: named settings, the batches and the folder of a run, its processes, its steps"""
from otseg import faces

__getattr__, __dir__, __all__ = faces(__name__, dict(
    recipes='RECIPES Recipe get_recipe learning_rate override',
    trainer='fit',
    areas='learn_areas',
))
