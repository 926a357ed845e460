"""Questions with paired seeds, and what they cost"""
from otseg import faces

__getattr__, __dir__, __all__ = faces(__name__, dict(
    bench='Bench run_bench',
    runs='STUDIES Study get_study run_study stored_runs',
))
