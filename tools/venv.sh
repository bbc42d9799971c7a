#!/bin/sh
# Build or complete the virtual environment: tools/venv.sh PYTHON DIRECTORY EXTRAS
# Debian has the modules for virtual environments in a separate package (python3-venv). If it is
# missing, the script installs it as root, and otherwise prints the command to install it.
set -eu
python=$1 venv=$2 extras=$3

fail() {
    echo "error: $1" >&2
    [ -z "${2:-}" ] || echo "hint: $2" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 || fail "$python: not found" "install Python 3.11 or later"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version): too old" "install Python 3.11 or later; make PYTHON=python3.11"

if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "installing python3-venv"
        (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv) >/dev/null ||
            fail "python3-venv: installation failed" "apt-get install python3-venv"
    else
        fail "$python cannot make virtual environments" "sudo apt-get install python3-venv"
    fi
fi

if [ ! -x "$venv/bin/python" ]; then
    echo "building $venv"
    "$python" -m venv "$venv" || fail "$venv: build failed" "rm -rf $venv"
fi
echo "installing mini-torrent$extras into $venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".$extras" ||
    fail "$venv: installation failed" "check that a Python package index can be reached"
# Bytecode halves the time of each start. Python writes it by itself only if it may write here and
# PYTHONDONTWRITEBYTECODE is not set.
"$venv/bin/python" -m compileall -q common peer tracker mini_torrent_start.py || :
