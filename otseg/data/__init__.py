"""The toy world, and every data set in the folders that it comes in"""
from otseg import faces

__getattr__, __dir__, __all__ = faces(__name__, dict(
    toy='ToyScenes toy_scene',
    layouts='LAYOUTS',
    reading='SegmentationDataset collate load_dataset read_mask read_picture',
    check='check_dataset',
))
