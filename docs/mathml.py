"""Equations as MathML, made when the site is built: no script, and nothing to fetch but a font of the site's own

An equation that cannot be converted stops the build. The font is STIX Two Math, from the package ziamath, cut to what
equations are made of."""
import re
import unicodedata
from html import unescape
from importlib.resources import files
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.errors import ExtensionError

RANGES = (0x20, 0x17f), (0x2b0, 0x3ff), (0x2000, 0x22ff), (0x2308, 0x230b), (0x27e8, 0x27ef), (0x2a00, 0x2aff), (0x1d400, 0x1d7ff)


VARIANTS = 'script', 'bold', 'fraktur', 'double-struck', 'italic', 'bold-italic', 'sans-serif', 'monospace'
# What MathML Core, which browsers know, does otherwise than latex2mathml means it
PRIME = re.compile(r'<msup>(<mi>[^<]*</mi>)<m[io]>&#x0?2032;</m[io]></msup>')
SLASH = '<mo>&#x0002F;</mo>'
STYLED = re.compile(r'<(m[in]) mathvariant="([a-z-]+)">([^<]*)</m[in]>')


def styled(m):
    "A letter of its own for each of another alphabet, since browsers know no `mathvariant` but normal"
    tag, variant, letters = m.groups()
    if variant == 'normal': return m[0]
    if variant not in VARIANTS: raise ValueError(f'no letters of the kind {variant}')
    alphabet = variant.upper().replace('BOLD-ITALIC', 'BOLD ITALIC')
    return f'<{tag}>{"".join(letter(c, alphabet) for c in unescape(letters))}</{tag}>'


def letter(c, alphabet):
    "A letter or digit in another alphabet of mathematics"
    kind = 'DIGIT' if c.isdigit() else 'CAPITAL' if c.isupper() else 'SMALL'
    name = f'{alphabet} {kind} {unicodedata.name(c).split()[-1]}'
    try: return unicodedata.lookup(f'MATHEMATICAL {name}')
    except KeyError: return unicodedata.lookup({'FRAKTUR': name.replace('FRAKTUR', 'BLACK-LETTER')}.get(alphabet, name))


def mathml(latex, display):
    "LaTeX as MathML"
    try:
        made = STYLED.sub(styled, convert(latex, display=display))
        made = PRIME.sub(r'<mrow>\1<mo lspace="0" rspace="0">&#x2032;</mo></mrow>', made)
        return made.replace(SLASH, SLASH.replace('<mo>', '<mo lspace="0" rspace="0">'))
    except Exception as e:
        raise ExtensionError(f'an equation should be LaTeX that latex2mathml knows, got {latex!r}: {e!r}') from e


def inline(self, node):
    self.body.append(mathml(node.astext(), 'inline'))
    raise nodes.SkipNode


def block(self, node):
    self.body.append(f'<div class="equation">{mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def font(app, error):
    "Write the font beside the styles"
    if error or app.builder.format != 'html': return
    from fontTools.subset import Options, Subsetter, load_font, save_font
    out = Path(app.outdir) / '_static' / 'math.woff'
    options = Options(flavor='woff', layout_features=['*'], notdef_outline=True)
    cut = load_font(str(files('ziamath') / 'fonts' / 'STIXTwoMath-Regular.ttf'), options)
    subset = Subsetter(options)
    subset.populate(unicodes=[u for a, b in RANGES for u in range(a, b + 1)])
    subset.subset(cut)
    save_font(cut, str(out), options)


def setup(app):
    app.add_html_math_renderer('mathml', (inline, None), (block, None))
    app.connect('build-finished', font)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
