"""Entropic optimal transport between image tokens and text prompts, and the attention built on it; everything lies above it"""
from otseg import faces

__getattr__, __dir__, __all__ = faces(__name__, dict(
    solvers='textbook_sinkhorn spread_scores',
    fused='fused_available',
    entropic='SinkhornOutput cosine_cost plan_entropy sinkhorn',
    mpsa='ATTENTIONS Attention CrossAttention DotAttention MPSA cosine_scores get_attention mps prompt_plan prompt_scores '
         'transport_similarity',
))
