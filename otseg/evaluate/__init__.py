"""Counting pixels: confusion, scores of seen and unseen classes, sliding windows, diversity of prompt maps, the paper's tables"""
from otseg import faces

__getattr__, __dir__, __all__ = faces(__name__, dict(
    metrics='ConfusionMatrix Scores harmonic_mean prompt_diversity segmentation_scores',
    windows='evaluate evaluate_options predict_labels predict_windows',
    diversity='ceiling_report flip_ceiling measure_ceiling measure_diversity prompt_range',
    paper='paper_table',
    protocol='protocol_of protocol_table protocol_vocab',
    labels='LabelRules class_labels',
))
