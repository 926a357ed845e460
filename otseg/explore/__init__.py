"""Everything with handles: in a notebook, and as a page"""
from otseg import faces

__getattr__, __dir__, __all__ = faces(__name__, dict(
    panels='explore_prompts',
    explorer='explore',
))
