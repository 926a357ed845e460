"""The toy world, and every data set in the folders that it comes in"""
from otseg import faces

__getattr__, __dir__, __all__ = faces(__name__, dict(
    toy='ToyScenes toy_scene',
    files='walk_files',
    layouts='LAYOUTS',
    pictures='read_picture',
    masks='read_mask',
    reading='SegmentationDataset collate load_dataset',
    check='check_dataset training_faults',
))
