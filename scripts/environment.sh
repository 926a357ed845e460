#!/bin/sh
# Make the environment of the project, or say why not:
#   sh scripts/environment.sh PYTHON FOLDER constraints.txt   the versions of that file
#   sh scripts/environment.sh PYTHON FOLDER                   the newest that the requirements allow
#   sh scripts/environment.sh --lowest PYTHON FOLDER          the lowest of each direct requirement
#   sh scripts/environment.sh --docs PYTHON FOLDER constraints.txt   what the site needs, without the package; no PyTorch
#   sh scripts/environment.sh --check PYTHON FOLDER [asked]   only say so where FOLDER is of another Python than PYTHON;
#                                                             an error if that Python was asked for by name
set -eu
mode=install
case $1 in --*) mode=${1#--}; shift ;; esac
python=$1 folder=$2 more=${3-}

fail() { echo "make: $1" >&2; exit 1; }
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null; }

if [ -x "$folder/bin/python" ]; then
  was=$(version "$folder/bin/python") ||
    fail "the Python that made $folder is gone. Remove it (rm -r $folder) and run make again."
else
  was=
fi

if [ "$mode" = check ]; then
  has=$(version "$python") || has=$was
  [ "$was" = "$has" ] && exit 0
  [ -n "$more" ] || { echo "make: $folder is of Python $was ($python is $has now)"; exit 0; }
fi

command -v "$python" > /dev/null ||
  fail "there is no $python. Install Python 3.10 or later, or name one: make PYTHON=python3.12 ..."
has=$(version "$python") || fail "$python does not start. Name another: make PYTHON=python3.12 ..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  fail "Python should be 3.10 or later, got $has ($python). Name another: make PYTHON=python3.12 ..."

if [ -n "$was" ]; then
  [ "$was" = "$has" ] || fail "$folder is of Python $was, and $python is $has. Remove it (rm -r $folder), or \
make another beside it: make PYTHON=$python VENV=.venv-$has ..."
else
  [ "$mode" = docs ] && size="under a minute and about 150 MB" || size="a few minutes and about 6 GB, most of it PyTorch"
  echo "make: a new environment in $folder with Python $has: $size"
  "$python" -m venv "$folder" ||
    fail "$python cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv"
fi

if [ "$mode" = docs ]; then
  "$folder/bin/python" -c 'if True:
    from configparser import ConfigParser
    ini = ConfigParser(interpolation=None)
    ini.read("settings.ini", encoding="utf-8")
    print(ini["DEFAULT"]["docs_requirements"])' > "$folder/docs.txt"
  "$folder/bin/python" -m pip install --quiet -c "$more" -r "$folder/docs.txt"
elif [ "$mode" = lowest ]; then
  "$folder/bin/python" -m pip install --quiet uv
  "$folder/bin/uv" pip install --python "$folder/bin/python" --resolution lowest-direct -e ".[dev]"
else
  # Built in the environment itself, so that the build takes the same setuptools.
  set -- ${more:+-c "$more"}
  "$folder/bin/python" -m pip install --quiet "$@" setuptools
  "$folder/bin/python" -m pip install --no-build-isolation "$@" -e ".[dev]"
fi
touch "$folder/.installed"
