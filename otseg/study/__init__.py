"""Questions with paired seeds, and what they cost"""
from otseg import faces

__getattr__, __dir__, __all__ = faces(__name__, dict(
    questions='STUDIES Study get_study',
    bench='Bench run_bench',
    runs='run_study stored_runs',
))
