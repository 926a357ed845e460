"How Sphinx makes the site from the pages that scripts/pages.py writes"
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project, author, copyright = 'OTSeg', 'The otseg authors', 'the otseg authors'
extensions = ['myst_parser', 'sphinx_copybutton', 'mathml']

myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence', 'attrs_block']
myst_dmath_double_inline = True
myst_heading_anchors = 4
nitpicky = True
highlight_language = 'text'
add_module_names = False
toc_object_entries_show_parents = 'hide'
maximum_signature_line_length = 70
python_trailing_comma_in_multi_line_signatures = False

html_theme, html_title = 'furo', 'OTSeg'
html_baseurl = 'https://otseg.github.io/otseg/'
html_static_path, html_css_files = ['static'], ['site.css']
html_copy_source = html_show_sphinx = False
html_math_renderer = 'mathml'
pygments_style, pygments_dark_style = 'friendly', 'github-dark'
copybutton_exclude = '.linenos, .gp, .go'
copybutton_selector = 'div.highlight-python pre, div.highlight-sh pre'
ACCENT = dict(light='#0b62a8', dark='#6cb6ff')
html_theme_options = {
    **{f'{tone}_css_variables': {f'color-brand-{part}': colour for part in ('primary', 'content', 'visited')}
       for tone, colour in ACCENT.items()},
    'footer_icons': [dict(name='GitHub', url='https://github.com/otseg/otseg', html='GitHub', **{'class': ''})],
}
