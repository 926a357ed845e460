"Pictures and masks in the layouts of the data sets"
import numpy as np
from PIL import Image
from scipy.io import savemat

SIZE = (60, 40)                                        # width, height
VOC = 'ImageSets/Segmentation'


def picture(path, size=SIZE, mode='RGB', **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.indices(size[::-1]).sum(0).astype(np.uint8)
    Image.fromarray(np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1)).convert(mode).save(path, **options)


def stripes(values, size=SIZE, dtype=np.uint8):
    "Vertical stripes of the values"
    return np.broadcast_to(np.asarray(values, dtype)[np.arange(size[0]) * len(values) // size[0]], size[::-1]).copy()


def mask(path, values, size=SIZE, palette=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(stripes(values, size))
    if palette: image.putpalette([(7 * i) % 256 for i in range(768)])
    image.save(path)


def sbd_mask(path, values):
    "As in the Semantic Boundaries Dataset: a struct with the boundaries, the labels and the classes"
    path.parent.mkdir(parents=True, exist_ok=True)
    here = np.array([[v] for v in values if v], np.uint8)
    savemat(path, dict(GTcls=dict(Boundaries=np.zeros((20, 1)), Segmentation=stripes(values), CategoriesPresent=here)),
            do_compression=True)


def context_mask(path, values):
    "As in the 459 labels of PASCAL Context"
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, dict(LabelMap=stripes(values, dtype=np.uint16)), do_compression=True)


def lines(path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{n}\n' for n in names), encoding='utf-8')
