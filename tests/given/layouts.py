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


# the data sets of the open-vocabulary benchmarks, a validation split of two pictures in the folders of their archives

def voc_tree(root):
    for i in range(2):
        picture(root/f'VOCdevkit/VOC2012/JPEGImages/2007_00000{i}.jpg')
        mask(root/f'VOCdevkit/VOC2012/SegmentationClass/2007_00000{i}.png', [0, 1, 15, 255])
    lines(root/f'VOCdevkit/VOC2012/{VOC}/val.txt', ['2007_000000', '2007_000001'])


def context_tree(root):
    from otseg.model.vocab import load_vocab
    base = root/'VOCdevkit/VOC2010'
    for i in range(2):
        picture(base/f'JPEGImages/2008_00000{i}.jpg')
        context_mask(base/f'trainval/2008_00000{i}.mat', [1, 2, 256, 458, 459])       # accordion, aeroplane, ..., wood, wool
    lines(base/'labels.txt', [f'{i}: {n}' for i, n in enumerate(load_vocab('pc459').names, 1)])
    lines(base/'ImageSets/Main/val.txt', ['2008_000000', '2008_000001'])


def coco_tree(root, values=(0, 12, 89, 91, 181, 255)):
    for key in ('000000000139', '000000000285'):
        picture(root/f'images/val2017/{key}.jpg')
        mask(root/f'annotations/val2017/{key}.png', values, palette=False)


def ade_tree(root):
    for i in (1, 2):
        picture(root/f'ADEChallengeData2016/images/validation/ADE_val_0000000{i}.jpg')
        mask(root/f'ADEChallengeData2016/annotations/validation/ADE_val_0000000{i}.png', [0, 1, 150], palette=False)


def cityscapes_tree(root, values=(3, 7, 8, 26, 33), kind='labelIds', size=SIZE):
    for city, frame in (('frankfurt', '000000_000294'), ('lindau', '000001_000019')):
        name = f'{city}/{city}_{frame}'
        picture(root/f'leftImg8bit/val/{name}_leftImg8bit.png', size)
        mask(root/f'gtFine/val/{name}_gtFine_{kind}.png', values, size, palette=False)
        picture(root/f'gtFine/val/{name}_gtFine_color.png', size, 'RGBA')
        Image.fromarray(stripes([26001, 7], size, np.uint16)).save(root/f'gtFine/val/{name}_gtFine_instanceIds.png')
        lines(root/f'gtFine/val/{name}_gtFine_polygons.json', ['{}'])


def ade_full_mask(path, values):
    "As in the full ADE20K: the number of an object in red and green, of its instance in blue"
    path.parent.mkdir(parents=True, exist_ok=True)
    number = stripes(values, dtype=np.int32)
    Image.fromarray(np.stack([number // 256 * 10, number % 256, number % 7], -1).astype(np.uint8)).save(path)


def ade_full_tree(root, values=(0, 2978, 312, 3148, 5)):
    base = root/'ADE20K_2021_17_01/images/ADE/validation'
    for i, scene in ((1, 'home_or_hotel/bedroom'), (2, 'urban/street')):
        name = f'{scene}/ADE_val_0000000{i}'
        picture(base/f'{name}.jpg')
        ade_full_mask(base/f'{name}_seg.png', values)
        picture(base/f'{name}_parts_1.png')
        picture(base/f'{name}/instance_000_ADE_val_0000000{i}.png', mode='L')
        lines(base/f'{name}.json', ['{}'])


# data set -> its tree, and the labels that every mask of it has, in order; by hand
BENCHMARKS = dict(
    voc20=(voc_tree, [0, 14, 255]), voc21=(voc_tree, [0, 1, 15, 255]),
    context59=(context_tree, [0, 58, 255]), context60=(context_tree, [0, 1, 59]), pc459=(context_tree, [0, 1, 255, 457, 458]),
    coco_object=(coco_tree, [0, 1, 12, 80]), cocostuff171=(coco_tree, [0, 11, 79, 80, 170, 255]),
    ade150=(ade_tree, [0, 149, 255]),
    cityscapes=(cityscapes_tree, [0, 1, 13, 18, 255]), ade847=(ade_full_tree, [0, 1, 846, 65535]))

# data set -> what is done to its tree, and the file that the error names
WRONG = dict(
    voc21=(lambda r: (r/'VOCdevkit/VOC2012/SegmentationClass/2007_000001.png').unlink(), 'SegmentationClass/2007_000001.png'),
    voc20=(lambda r: mask(r/'VOCdevkit/VOC2012/SegmentationClass/2007_000001.png', [0, 21]), 'SegmentationClass/2007_000001.png'),
    context59=(lambda r: (r/'VOCdevkit/VOC2010/labels.txt').unlink(), 'labels.txt'),
    context60=(lambda r: lines(r/'VOCdevkit/VOC2010/labels.txt', ['1: accordion', '2: aeroplane']), 'labels.txt'),
    pc459=(lambda r: context_mask(r/'VOCdevkit/VOC2010/trainval/2008_000001.mat', [1, 460]), 'trainval/2008_000001.mat'),
    coco_object=(lambda r: mask(r/'annotations/val2017/000000000285.png', [0, 11], palette=False), 'val2017/000000000285.png'),
    cocostuff171=(lambda r: (r/'annotations/val2017/000000000285.png').unlink(), 'val2017/000000000285'),
    ade150=(lambda r: mask(r/'ADEChallengeData2016/annotations/validation/ADE_val_00000002.png', [151], palette=False),
            'validation/ADE_val_00000002.png'),
    cityscapes=(lambda r: (r/'gtFine/val/lindau/lindau_000001_000019_gtFine_labelIds.png').unlink(),
                'gtFine/val/lindau/lindau_000001_000019_gtFine_labelIds.png'),
    ade847=(lambda r: (r/'ADE20K_2021_17_01/images/ADE/validation/urban/street/ADE_val_00000002_seg.png').unlink(),
            'urban/street/ADE_val_00000002'))
