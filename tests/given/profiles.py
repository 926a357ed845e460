"Colour profiles of a matrix and a power (ICC version 2), and what they say by hand"
import struct

import numpy as np

# primaries in XYZ under the light of profiles (D50), a column each; Lindbloom's tables for sRGB, SMPTE EG 432-1 for P3
SRGB = np.array([[.4360747, .3850649, .1430804], [.2225045, .7168786, .0606169], [.0139322, .0971045, .7141733]])
P3 = np.array([[.515102, .291965, .157153], [.241182, .692236, .0665819], [-.00104941, .0418818, .784378]])
SWAPPED = SRGB[:, [1, 2, 0]]  # red is green, green is blue, blue is red
PROFILES = dict(P3=(P3, 2.2), linear=(SRGB, 1.), swapped=(SWAPPED, 2.2), bright=(SRGB, 1.5))


def _fixed(*values): return b''.join(struct.pack('>i', round(v * 65536)) for v in values)


def _icc(kind: bytes, name: str, tags: dict) -> bytes:
    text = name.encode() + b'\0'
    tags = dict(desc=b'desc' + bytes(4) + struct.pack('>I', len(text)) + text + bytes(78), cprt=b'text' + bytes(4) + b'none\0',
                wtpt=b'XYZ ' + bytes(4) + _fixed(.9642, 1, .8249)) | tags
    at, table, body = 128 + 4 + 12 * len(tags), b'', b''
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        table += tag.encode() + struct.pack('>II', at + len(body), len(content))
        body += content
    head = struct.pack('>I4sI4s4s4s', at + len(body), bytes(4), 0x02400000, b'mntr', kind, b'XYZ ')
    head += struct.pack('>6H', 2026, 1, 1, 0, 0, 0) + b'acsp' + bytes(28) + _fixed(.9642, 1, .8249)
    return head.ljust(128, b'\0') + struct.pack('>I', len(tags)) + table + body


def _curve(gamma): return b'curv' + bytes(4) + struct.pack('>IH', 1, round(gamma * 256))


def rgb_profile(matrix, gamma, name='a profile'):
    "Of colours: value ** gamma is light, the matrix makes XYZ of it"
    tags = {f'{c}XYZ': b'XYZ ' + bytes(4) + _fixed(*column) for c, column in zip('rgb', matrix.T)}
    return _icc(b'RGB ', name, tags | {f'{c}TRC': _curve(gamma) for c in 'rgb'})


def grey_profile(gamma, name='a grey profile'): return _icc(b'GRAY', name, dict(kTRC=_curve(gamma)))


def in_srgb(x, matrix, gamma):
    "8-bit colours (..., 3) of such a profile in sRGB, not rounded"
    light = (x / 255) ** gamma @ (np.linalg.inv(SRGB) @ matrix).T
    light = light.clip(0, 1)
    return 255 * np.where(light <= .0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - .055)
