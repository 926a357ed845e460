"""Still figures: curves, segmentations, prompt maps"""
from otseg import faces

__getattr__, __dir__, __all__ = faces(__name__, dict(
    charts='plot_class_iou plot_convergence plot_losses plot_plan plot_run',
    figures='colorize decoration overlay plot_comparison plot_demo plot_diversity plot_layers plot_prompt_maps plot_segmentation '
            'plot_twins save_figure',
))
