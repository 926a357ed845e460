"""One picture, a folder of them, or a file that others can run"""
from otseg import faces

__getattr__, __dir__, __all__ = faces(__name__, dict(
    segmentation='Segmentation',
    segmenter='Segmenter',
    folder='predict_folder',
    export='export_model',
))
