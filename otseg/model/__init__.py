"""From class names and pixels to a score for each of them: CLIP, the decoder, OTSeg, its losses and checkpoints"""
from otseg import faces

__getattr__, __dir__, __all__ = faces(__name__, dict(
    vocab='Vocab load_templates load_vocab list_vocabs inductive_labels transductive_labels',
    config='OTSegConfig',
    clip='ImageEncoder load_clip text_embeddings',
    decoder='Decoder RelationshipDescriptor',
    otseg='OTSeg OTSegHead OTSegOutput',
    dense='TrainingFree',
    losses='otseg_loss pseudo_labels',
    checkpoint='load_checkpoint load_official save_checkpoint',
))
