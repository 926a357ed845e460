"A checkpoint in the authors' layout"
import torch

from otseg.model.otseg import OTSeg


def official(model: OTSeg) -> dict:
    "A state dict in the authors' layout, with a parameter that nothing reads"
    names = dict(attention='multihead_attn', linear1='linear1', linear2='linear2', norm1='norm2', norm2='norm3')
    state = {'decode_head.decoder_1.layers.0.self_attn.in_proj_weight': torch.zeros(3, 3)}
    for key, value in model.state_dict().items():
        part, *rest = key.split('.')
        if key == 'image_encoder.prompts':
            state['backbone.prompt_embeddings'], state['backbone.deep_prompt_embeddings'] = value[:1], value[1:]
        elif part == 'image_encoder': state['.'.join(['backbone', *(rest[1:] if rest[0] == 'clip' else rest)])] = value
        elif rest[0] == 'descriptor': state[f'decode_head.q_proj.{rest[2]}'] = value
        elif rest[1] == 'last': state[f'decode_head.decoder_1.layers.2.multihead_attn.{".".join(rest[2:])}'] = value
        else: state[f'decode_head.decoder_1.layers.{rest[2]}.{names[rest[3]]}.{".".join(rest[4:])}'] = value
    return state
