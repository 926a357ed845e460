"""The metadata that settings.ini and otseg/__init__.py hold; everything else is in pyproject.toml."""
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

root = Path(__file__).parent
ini = ConfigParser(interpolation=None)
ini.read_string((root / 'settings.ini').read_text(encoding='utf-8'))
cfg = ini['DEFAULT']


def lines(key):
    "The non-empty lines of a multi-line value"
    return [line.strip() for line in cfg[key].splitlines() if line.strip()]


setup(
    # Read, not imported: importing otseg would need what is about to be installed.
    version=re.search(r'^__version__ = "(.+)"', (root / 'otseg/__init__.py').read_text(encoding='utf-8'), re.M)[1],
    description=cfg['description'],
    author=cfg['author'],
    keywords=[k.strip() for k in cfg['keywords'].split(',')],
    install_requires=lines('requirements'),
    extras_require={key.removesuffix('_requirements'): lines(key) for key in cfg if key.endswith('_requirements')},
    # `nbdev` lets the documentation of other projects link to ours.
    entry_points={'console_scripts': lines('console_scripts'), 'nbdev': ['otseg = otseg._modidx:d']},
)
