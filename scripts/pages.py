"""The documentation site: pages from the notebooks, and a look at what was built: `python scripts/pages.py {write,build,check}`

`write` makes a Markdown page of each notebook, in _proc. Nothing is run: outputs are taken as they are stored, and signatures,
shapes and docments are read from the source. An exported cell becomes entries with tables, and its source folded below them.
`build` has Sphinx make _docs from these pages, where a warning is an error, puts a plain Markdown copy beside each page, at the
address that the docstring of its module names, and checks the result. `check` looks for dead links and for anything
that a page would fetch from elsewhere.
"""
import argparse
import ast
import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tokenize
from html.parser import HTMLParser
from pathlib import Path
from posixpath import dirname, normpath, relpath
from urllib.parse import unquote, urlsplit

from readme import CODE, TARGET, directives, text

ROOT = Path(__file__).resolve().parent.parent
NBS, PAGES, SITE = ROOT / 'nbs', ROOT / '_proc', ROOT / '_docs'
GITHUB = 'https://github.com/otseg/otseg'
# The chapters besides the wings: folder, title, what stands on top of its page
CHAPTERS = [('tutorials', 'Tutorials', 'Walk-throughs, from one plan by hand to the training of the paper.'),
            ('explanations', 'Explanations', 'What transport can do and what it cannot, and where paper and code differ.'),
            ('experiments', 'Experiments', 'Studies with paired seeds, measurements and trainings, with figures and tables from '
             'stored records. [What the studies say](answers.md) has every answer in one line.')]
BESIDE = ['experiments/answers']  # stands beside the page of its chapter, not below it
PLAIN_FILES = {'CONTRIBUTING.md': 'contributing', 'CHANGELOG.md': 'changelog'}  # of the root; pages too
SHOWN = 60  # letters of a constant that stand beside its name
SHORT = 4  # a name of fewer letters in prose is no link


def page_of(name):
    "The page of a notebook, both as paths below nbs/ and without suffix, as nbdev names it"
    folder, _, file = name.rpartition('/')
    page = re.sub(r'^\d+[a-zA-Z0-9]*_', '', file.lower()).removesuffix('.ipynb')
    return f'{folder}/{page}' if folder else page


def notebooks(nbs=NBS):
    "Notebooks below a folder, as paths in it"
    return sorted(p.relative_to(nbs).as_posix() for p in nbs.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)


# --- What the source says

def comments(source):
    "Line -> the comment that ends it"
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip('# ').strip() for t in tokens if t.type == tokenize.COMMENT}


def params(node, notes, method=False):
    "Parameters of a function, each as (name, type, default, meaning), and what it returns"
    a, found = node.args, []
    named = a.posonlyargs + a.args
    defaults = [None] * (len(named) - len(a.defaults)) + a.defaults
    listed = [('', x, d) for x, d in zip(named, defaults)][method:]
    listed += [('*', a.vararg, None)] if a.vararg else []
    listed += [('', x, d) for x, d in zip(a.kwonlyargs, a.kw_defaults)]
    listed += [('**', a.kwarg, None)] if a.kwarg else []
    ends = [max(x.end_lineno, d.end_lineno if d else 0) for _, x, d in listed]
    last = node.returns.end_lineno if node.returns else 0
    body = node.body[0].lineno  # a comment there is of the body
    for i, ((star, x, d), end) in enumerate(zip(listed, ends)):
        meaning = notes.get(end, '') if end not in [*ends[i + 1:], last, body] else ''  # of the last in its line
        found.append((star + x.arg, x.annotation and ast.unparse(x.annotation), d and ast.unparse(d), meaning))
    returns = node.returns and ast.unparse(node.returns)
    return found, (returns, notes.get(last, '') if last != body else '')


def signature(node, method=False):
    "Parameters in brackets, without types: those stand in the table"
    a = node.args
    named = a.posonlyargs + a.args
    defaults = [None] * (len(named) - len(a.defaults)) + a.defaults
    show = lambda x, d: x.arg if d is None else f'{x.arg}={ast.unparse(d)}'
    names = [show(x, d) for x, d in zip(named, defaults)][method:]
    if a.posonlyargs and len(a.posonlyargs) > method: names.insert(len(a.posonlyargs) - method, '/')
    if a.vararg: names.append(f'*{a.vararg.arg}')
    elif a.kwonlyargs: names.append('*')
    names += [show(x, d) for x, d in zip(a.kwonlyargs, a.kw_defaults)]
    if a.kwarg: names.append(f'**{a.kwarg.arg}')
    return f'({", ".join(names)})'


def decorators(node):
    return {ast.unparse(d).split('(')[0].split('.')[-1] + ('_prop' if 'as_prop=True' in ast.unparse(d) else '')
            for d in node.decorator_list}


def method_entry(node, notes, owner=''):
    "An entry for a method or property"
    marks = decorators(node)
    kind = 'property' if marks & {'property', 'cached_property', 'patch_prop'} else 'method'
    rows, back = params(node, notes, 'staticmethod' not in marks)
    sig = '' if kind == 'property' else signature(node, 'staticmethod' not in marks)
    return dict(kind=kind, name=f'{owner}{node.name}', sig=sig, doc=ast.get_docstring(node) or '', rows=rows, back=back,
                methods=[], flags=[f'{f}:' for f in sorted(marks & {'classmethod', 'staticmethod'})])


def class_entry(node, notes):
    "An entry for a class: its fields, or the parameters that it is made with, and its public methods"
    inside = {f.name: f for f in node.body if isinstance(f, ast.FunctionDef)}
    fields = [f for f in node.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)]
    bases = [ast.unparse(b) for b in node.bases]
    if '__init__' in inside:
        rows, _ = params(inside['__init__'], notes, True)
        sig = signature(inside['__init__'], True)
    else:
        rows = [(f.target.id, ast.unparse(f.annotation), f.value and ast.unparse(f.value), notes.get(f.end_lineno, ''))
                for f in fields if not f.target.id.startswith('_')]
        made = 'dataclass' in decorators(node) or 'NamedTuple' in bases
        args = [n if d is None or d.startswith('field(') else f'{n}={d}' for n, _, d, _ in rows]
        sig = f'({", ".join(args)})' if made and rows else ''
    methods = [method_entry(f, notes) for name, f in inside.items()
               if (not name.startswith('_') or name == '__call__') and ast.get_docstring(f)]
    return dict(kind='class', name=node.name, sig=sig, doc=ast.get_docstring(node) or '', rows=rows, back=(None, ''),
                methods=methods, flags=[])


def entries(source):
    "What a cell exports for readers: functions, classes, methods that are patched in, and constants"
    found, notes = [], comments(source)
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            marks = decorators(node)
            if node.name.startswith('_'): continue
            if marks & {'patch', 'patch_prop'}:
                found.append(method_entry(node, notes, f'{ast.unparse(node.args.args[0].annotation)}.'))
            else:
                rows, back = params(node, notes)
                found.append(dict(kind='function', name=node.name, sig=signature(node), doc=ast.get_docstring(node) or '',
                                  rows=rows, back=back, methods=[], flags=[]))
        elif isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
            found.append(class_entry(node, notes))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [n.id for t in targets for n in (t.elts if isinstance(t, ast.Tuple) else [t]) if isinstance(n, ast.Name)]
            value = ast.unparse(node.value) if node.value and len(names) == 1 else ''
            flags = [f'value: {value}'] if value and len(value) <= SHOWN else []
            found += [dict(kind='data', name=n, sig='', doc='', rows=[], back=(None, ''), methods=[], flags=flags)
                      for n in names if not n.startswith('_')]
    return found


def only_imports(source):
    return all(isinstance(n, (ast.Import, ast.ImportFrom, ast.Expr)) for n in ast.parse(source).body)


# --- Markdown

def escaped(prose):
    "Text as it is typed in a comment: what Markdown would take for markup stays, but for `code`"
    parts = re.split(r'(`[^`\n]+`)', prose)
    parts[::2] = [re.sub(r'([\\*_<>\[\]$~])', r'\\\1', p) for p in parts[::2]]
    return ''.join(parts)


def cell_text(value):
    "A cell of a table"
    return value.replace('|', r'\|').replace('\n', ' ')


def code(value):
    "Inline code, whatever is in it"
    ticks = '`' * (1 + max((len(m) for m in re.findall('`+', value)), default=0))
    pad = ' ' if len(ticks) > 1 else ''
    return f'{ticks}{pad}{value}{pad}{ticks}'


def fence(body, language=''):
    ticks = '`' * max(3, 1 + max((len(m) for m in re.findall('^ *(`+)', body, re.M)), default=0))
    return f'{ticks}{language}\n{body}\n{ticks}'


def brief(default):
    "A default as it stands in a table: a long one is looked up in the source"
    made = re.fullmatch(r'field\(default_factory=(\w+)\)', default)
    return f'{made[1]}()' if made else default if len(default) <= SHOWN // 2 else '...'


def table(rows, back):
    "Docments as a table, without the column of defaults where there are none; nothing where there is nothing to say"
    kind, said = back
    if not rows: return f'Returns {code(kind) if kind else ""} {escaped(said)}'.strip() if any(back) else ''
    if not (any(t or m for _, t, _, m in rows) or any(back)): return ''
    optional = any(d for _, _, d, _ in rows)
    lines = [('parameter', 'type', 'default', 'meaning'), ('---',) * 4]
    lines += [(code(n), t and code(cell_text(t)), d and code(cell_text(brief(d))), cell_text(escaped(m))) for n, t, d, m in rows]
    if any(back): lines.append(('**returns**', kind and code(cell_text(kind)), None, cell_text(escaped(said))))
    return '\n'.join('| ' + ' | '.join(c or '' for i, c in enumerate(line) if optional or i != 2) + ' |' for line in lines)


def directive(entry, depth=0):
    "An entry in the Markdown of Sphinx, which knows the name then: search and links find it"
    colons = ':' * (5 - depth)
    body = [escaped(entry['doc']), table(entry['rows'], entry['back'])] + [directive(m, depth + 1) for m in entry['methods']]
    head = f'{colons}{{py:{entry["kind"]}}} {entry["name"]}{entry["sig"]}\n'
    return head + ''.join(f':{f}\n' for f in entry['flags']) + '\n' + '\n\n'.join(b for b in body if b) + f'\n{colons}'


def plain(entry, owner=''):
    "The same for a plain reader"
    name = f'{owner}{entry["name"]}'
    body = [f'### `{name}`', fence(f'{name}{entry["sig"]}', 'python') if entry['sig'] else '', escaped(entry['doc']),
            table(entry['rows'], entry['back'])] + [plain(m, f'{name}.') for m in entry['methods']]
    return '\n\n'.join(b for b in body if b)


class Site:
    "All notebooks of a project, and what their pages say of each other"
    def __init__(self, root=ROOT):
        self.root, self.nbs = root, root / 'nbs'
        self.names = notebooks(self.nbs)
        self.books = {n: json.loads((self.nbs / n).read_text(encoding='utf-8')) for n in self.names}
        self.modules, self.entries = {}, {}  # of notebooks that export
        for name, book in self.books.items():
            cells = [directives(text(c['source'])) for c in book['cells'] if c['cell_type'] == 'code']
            exp = next((k.split()[1] for d, _ in cells for k in d if k.startswith('default_exp ')), None)
            if exp is None: continue
            self.modules[name] = f'otseg.{exp}'
            self.entries[name] = [e for d, body in cells if 'export' in d for e in entries(body)]
        where = {}
        for name, found in self.entries.items():
            for e in found:
                if e['kind'] in ('function', 'class'): where.setdefault(e['name'], []).append(f'{self.modules[name]}.{e["name"]}')
        self.known = {n: full[0] for n, full in where.items() if len(full) == 1 and len(n) >= SHORT}

    def target(self, link, folder, suffix):
        "Where a link of a file in nbs/folder leads on the site; links to files that are no pages lead to GitHub"
        link, _, anchor = link.partition('#')
        path, anchor = normpath(f'nbs/{folder}/{link}'), anchor and f'#{anchor}'
        book = path.startswith('nbs/') and path.endswith('.ipynb')
        page = page_of(path.removeprefix('nbs/')) if book else PLAIN_FILES.get(path)
        if not (self.root / path).exists():
            raise SystemExit(f'a link of nbs/{folder} should lead to a file, got {link}')
        if page: return relpath(f'{page}{suffix}', folder or '.') + anchor
        if path.startswith('nbs/') and (self.root / path).is_file() and not path.endswith('.json'):
            return (relpath(f'_images/{Path(path).name}', folder or '.') if suffix == '.html.md' else link) + anchor
        return f'{GITHUB}/{"tree" if (self.root / path).is_dir() else "blob"}/main/{path}{anchor}'

    def prose(self, markdown, folder, sphinx):
        "Markdown of a notebook with links that hold on the site; names of the package lead to their entries"
        suffix, parts = '.md' if sphinx else '.html.md', CODE.split(markdown)
        joined, held = '', {}
        for i, p in enumerate(parts):  # a link around code is one link
            joined += p if i % 2 == 0 else held.setdefault(f'\x00{i}\x00', p) and f'\x00{i}\x00'
        joined = TARGET.sub(lambda m: m[1] + self.target(m[2], folder, suffix), joined)
        lines = joined.split('\n')
        for j, line in enumerate(lines):
            linked = line.startswith('#')
            spans = [m.span() for m in re.finditer(r'\[[^\]]*\]\([^)]*\)', line)]
            def back(m, spans=spans, linked=linked):
                word = held[m[0]]
                bare = word.strip('`').removesuffix('()')
                inside = linked or any(a < m.start() < b for a, b in spans)
                if not sphinx or inside or word.startswith('```') or bare not in self.known: return word
                return f'{{py:obj}}`{word.strip("`")} <{self.known[bare]}>`'
            lines[j] = re.sub('\x00\\d+\x00', back, line)
        return '\n'.join(lines)

    def picture(self, data, kind, name, i, j, sphinx):
        "A picture of an output as a file, and the Markdown that shows it"
        page = page_of(name)
        file = f'{page.replace("/", "-")}-{i}-{j}.{"jpg" if kind.endswith("jpeg") else "png"}'
        if sphinx: self.files[f'pictures/{file}'] = base64.b64decode(text(data[kind]))
        folder = 'pictures' if sphinx else '_images'
        return f'![{self.title(name)}: figure {self.figures + 1}]({relpath(f"{folder}/{file}", dirname(page) or ".")})'

    def output(self, out, name, i, j, sphinx):
        "One stored output"
        if out['output_type'] == 'stream':
            return fence(strip(text(out['text'])), 'text') if out['name'] == 'stdout' and text(out['text']).strip() else ''
        if out['output_type'] == 'error':
            raise SystemExit(f'nbs/{name} has an error stored among its outputs; run it again (make outputs)')
        data = out.get('data', {})
        if 'application/vnd.jupyter.widget-view+json' in data: return ''  # lives in Jupyter alone
        kind = next((k for k in ('image/png', 'image/jpeg') if k in data), None)
        if kind:
            shown = self.picture(data, kind, name, i, j, sphinx)
            self.figures += 1
            return shown
        if 'text/markdown' in data: return self.prose(text(data['text/markdown']).strip(), dirname(name), sphinx)
        if 'text/html' in data:
            shown = text(data['text/html'])
            return shown if sphinx else re.sub(r'<script\b.*?</script>', '', shown, flags=re.S)  # a plain reader runs none
        return fence(strip(text(data['text/plain'])), 'text') if 'text/plain' in data else ''

    def title(self, name):
        return self.front(name)[0]

    def front(self, name):
        "Title and subtitle of a notebook, by its front matter or its first lines, and the first cell without them"
        first = text(self.books[name]['cells'][0]['source'])
        if m := re.match(r'---\n(.*?)\n---\n*', first, re.S):
            said = dict(line.partition(': ')[::2] for line in m[1].split('\n'))
            return said['title'].strip('\'"'), said.get('description', '').strip('\'"'), first[m.end():]
        m = re.match(r'# (.*)\n+(?:> ?(.*)\n*)?', first + '\n')
        if not m: raise SystemExit(f'nbs/{name} should begin with a title: `# name`, then `> what it is`')
        return m[1].strip(), (m[2] or '').strip(), first[m.end():]

    def page(self, name, sphinx=True):
        "The page of a notebook, for Sphinx or for a plain reader"
        self.figures = 0
        title, lead, rest = self.front(name)
        folder, module = dirname(name), self.modules.get(name)
        parts = [f'# {title}']
        if lead: parts.append(('{.lead}\n' if sphinx else '> ') + self.prose(lead, folder, sphinx))
        source = f'[notebook]({GITHUB}/blob/main/nbs/{name})'
        if module:
            file = module.replace('.', '/') + '.py'
            source = f'`{module}` · {source} · [module]({GITHUB}/blob/main/{file})'
        if name != 'index.ipynb': parts.append(('{.source}\n' if sphinx else '') + source)
        if module and sphinx: parts.append(f':::{{py:module}} {module}\n:::')
        if rest.strip(): parts.append(self.prose(rest.strip(), folder, sphinx))
        for i, cell in enumerate(self.books[name]['cells'][1:], 1):
            parts += self.cell(cell, name, i, sphinx)
        return '\n\n'.join(p for p in parts if p) + '\n'

    def cell(self, cell, name, i, sphinx):
        "The pieces of a page that a cell gives"
        found, body = directives(text(cell['source']))
        if 'hide' in found or any(k.startswith('default_exp') for k in found) or cell['cell_type'] == 'raw': return []
        if cell['cell_type'] == 'markdown': return [self.prose(body.strip(), dirname(name), sphinx)]
        parts = []
        if 'export' in found:
            if not body or only_imports(body): return []
            shown = entries(body)
            constants = [e for e in shown if e['kind'] == 'data']
            others = [e for e in shown if e['kind'] != 'data']
            if sphinx:
                parts += [directive(e) for e in others]
                parts += [directive(e) for e in constants]
                folded = '<details class="source"><summary>{}</summary>\n\n{}\n\n</details>'
                parts.append(fence(body, 'python') if constants and not others else
                             folded.format('Source' if others else 'Source of what is used inside', fence(body, 'python')))
            else:
                parts += [plain(e) for e in others] + ([fence(body, 'python')] if constants and not others else [])
        elif body and found.get('echo') != 'false':
            parts.append(fence(body, language(body)))
        shown = [o for j, out in enumerate(cell['outputs']) if (o := self.output(out, name, i, j, sphinx))]
        if shown and sphinx and found.get('echo') != 'false': shown = ['<div class="output">', *shown, '</div>']
        return parts + shown

    # --- Chapters

    def wings(self):
        return sorted({dirname(n) for n in self.modules})

    def chapter(self, folder, title, lead, sphinx=True):
        "The page of a chapter: its pages with their subtitles, and the order of them"
        names = [n for n in self.names if dirname(n) == folder]
        names.sort(key=lambda n: (page_of(n) not in BESIDE, not re.search(r'/study_|/\d', n), n))
        suffix = '.md' if sphinx else '.html.md'
        file = lambda n: page_of(n).rpartition('/')[2]
        exports = any(n in self.modules for n in names)
        lines = ['| module | what for | names to import from here |', '| --- | --- | --- |'] if exports else \
            ['| page | what it shows |', '| --- | --- |']
        for n in names:
            public = [e['name'] for e in self.entries.get(n, []) if e['kind'] in ('function', 'class')]
            face = [p for p in self.faces(folder).get(file(n), []) if p in public]
            show = ', '.join(f'{{py:obj}}`{p} <{self.modules[n]}.{p}>`' if sphinx else f'`{p}`' for p in face)
            said = self.prose(self.front(n)[1], folder, sphinx)
            lines.append(f'| [{self.title(n)}]({file(n)}{suffix}) | {cell_text(said)} |' + (f' {show} |' if exports else ''))
        listed = [file(n) for n in names if page_of(n) not in BESIDE]
        toc = '```{toctree}\n:hidden:\n\n' + '\n'.join(listed) + '\n```'
        parts = [f'# {title}', f'{{.lead}}\n{lead}' if sphinx else lead, '\n'.join(lines)] + ([toc] if sphinx else [])
        return '\n\n'.join(parts) + '\n'

    def faces(self, folder):
        "Module -> names that the face of a wing gives to its readers"
        wing = folder.partition('_')[2]
        path = self.root / f'otseg/{wing}/__init__.py'
        if not path.is_file(): return {}
        call = next((n for n in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
                     if isinstance(n, ast.Call) and ast.unparse(n.func) == 'dict'), None)
        return {k.arg: k.value.value.split() for k in call.keywords if isinstance(k.value, ast.Constant)} if call else {}

    def about(self, folder):
        "What the face of a wing says it is"
        path = self.root / f'otseg/{folder.partition("_")[2]}/__init__.py'
        path = path if path.is_file() else self.root / f'otseg/{folder.partition("_")[2]}.py'
        return ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))).split('\n')[0]

    def chapters(self):
        "(folder, title, lead) of all chapters"
        wings = [(w, f'otseg.{w.partition("_")[2]}', escaped(self.about(w)) + '.') for w in self.wings()]
        return [c for c in CHAPTERS if any(dirname(n) == c[0] for n in self.names)] + wings

    def contents(self):
        "The order of the whole site, in the front page"
        def tree(caption, entries): return '```{toctree}\n:hidden:\n:caption: ' + caption + '\n\n' + '\n'.join(entries) + '\n```'
        few = lambda folder: [page_of(n) for n in self.names if dirname(n) == folder]
        trees = [tree(title, [*BESIDE, 'experiments/index'] if folder == 'experiments' else few(folder))
                 for folder, title, _ in CHAPTERS if few(folder)]
        trees.append(tree('The package', [f'{w}/index' for w in self.wings()]))
        return '\n\n'.join(trees + [tree('Project', list(PLAIN_FILES.values()))]) + '\n'

    def all(self):
        "Every file of the sources as {path: text or bytes}, and the plain copies as {path: text}"
        self.files, copies = {}, {}
        for n in self.names:
            self.files[f'{page_of(n)}.md'] = self.page(n) + ('\n' + self.contents() if n == 'index.ipynb' else '')
            copies[f'{page_of(n)}.html.md'] = self.page(n, sphinx=False)
        for folder, title, lead in self.chapters():
            if folder in ('tutorials', 'explanations'): continue  # few enough to stand in the contents
            self.files[f'{folder}/index.md'] = self.chapter(folder, title, lead)
            copies[f'{folder}/index.html.md'] = self.chapter(folder, title, lead.replace('.md)', '.html.md)'), sphinx=False)
        for file, page in PLAIN_FILES.items():
            if not (self.root / file).is_file(): continue
            source = (self.root / file).read_text(encoding='utf-8')
            for sphinx, into in (True, self.files), (False, copies):
                up = TARGET.sub(lambda m: m[1] + relpath(m[2], 'nbs'), source)
                into[f'{page}{".md" if sphinx else ".html.md"}'] = self.prose(up, '', sphinx)
        for path in sorted((self.nbs / 'images').glob('*')):
            self.files[f'images/{path.name}'] = path.read_bytes()
        return self.files, copies


def strip(shown):
    "An output without the codes that colour a terminal"
    return re.sub(r'\x1b\[[0-9;]*m', '', shown).strip('\n')


def language(source):
    "What a cell is written in: magics and shell lines are no Python"
    try:
        ast.parse(source)
        return 'python'
    except SyntaxError:
        return 'sh' if source.lstrip().startswith(('!', '%')) else 'text'


def write(out=PAGES, root=ROOT):
    "Write the sources of all pages, where they have changed; the plain copies go beside them under `plain`"
    files, copies = Site(root).all()
    wanted = {**{out / 'source' / p: f for p, f in files.items()}, **{out / 'plain' / p: f for p, f in copies.items()}}
    for path in [p for kind in ('source', 'plain') for p in (out / kind).rglob('*') if p.is_file()]:
        if path not in wanted: path.unlink()
    for path, body in wanted.items():
        body = body.encode() if isinstance(body, str) else body
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != body: path.write_bytes(body)
    return files, copies


# --- The built site

class Looked(HTMLParser):
    "Ids, links and whatever else a page fetches"
    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.fetched = set(), set(), set()
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        got = dict(attrs)
        self.ids |= {got[k] for k in ('id', 'name') if got.get(k)}
        if tag == 'a' and got.get('href'): self.links.add(got['href'])
        if got.get('src'): self.fetched.add(got['src'])
        if tag == 'link' and got.get('rel') not in ('canonical',) and got.get('href'): self.fetched.add(got['href'])


def faults(site=SITE):
    "Dead links of a built site, and what its pages would fetch from elsewhere"
    seen = {p.relative_to(site).as_posix(): Looked(p) for p in site.rglob('*.html')}
    found = []
    def look(page, link, fetched=False):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            if fetched and parts.scheme != 'data': found.append(f'{page}: fetches {link}')
            return
        to = normpath(f'{dirname(page) or "."}/{unquote(parts.path)}') if parts.path else page
        if (site / to).is_dir(): to = f'{to}/index.html'.removeprefix('./')
        if not (site / to).is_file(): found.append(f'{page}: {link} leads nowhere')
        elif parts.fragment and to in seen and unquote(parts.fragment) not in seen[to].ids | {''}:
            found.append(f'{page}: {link} has no such place')
    for page, has in seen.items():
        for link in has.links: look(page, link)
        for link in has.fetched: look(page, link, True)
    for path in site.rglob('*.html.md'):
        parts = CODE.split(path.read_text(encoding='utf-8'))
        for m in TARGET.finditer(''.join(parts[::2])): look(path.relative_to(site).as_posix(), m[2].partition('#')[0])
    for path in site.rglob('*.css'):
        for m in re.finditer(r'url\(["\']?((https?:)?//[^)"\']*)', path.read_text(encoding='utf-8')):
            found.append(f'{path.name}: fetches {m[1]}')
    return sorted(found)


def build():
    "The site in _docs"
    _, copies = write()
    subprocess.run([sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-b', 'html', '-c', ROOT / 'docs', '-d',
                    PAGES / 'doctrees', '-j', str(min(4, os.cpu_count() or 1)), PAGES / 'source', SITE], check=True)
    shutil.copytree(PAGES / 'plain', SITE, dirs_exist_ok=True)
    (SITE / '.nojekyll').touch()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('step', choices=['write', 'build', 'check'])
    step = parser.parse_args().step
    if step == 'write': write()
    if step == 'build': build()
    if step != 'write':
        found = faults()
        for f in found: print(f, file=sys.stderr)
        pages = list(SITE.rglob('*.html'))
        size = sum(p.stat().st_size for p in SITE.rglob('*') if p.is_file()) / 1e6
        print(f'_docs: {len(pages)} pages, {size:.1f} MB, {len(found)} dead links; open _docs/index.html')
        return bool(found)


if __name__ == '__main__':
    sys.exit(main())
