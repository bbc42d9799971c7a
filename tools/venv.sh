#!/bin/sh
# Build or complete the virtual environment: tools/venv.sh PYTHON DIRECTORY EXTRAS
# Debian keeps the parts of Python that make environments in a package of their own (python3-venv);
# where it is missing, root gets it installed, and everybody else is told what to install.
set -eu
python=$1 venv=$2 extras=$3

fail() {
    echo "error: $1" >&2
    [ -z "${2:-}" ] || echo "hint: $2" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 || fail "there is no $python" "install Python 3.11 or later"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old" "install Python 3.11 or later; make PYTHON=python3.11"

if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "installing python3-venv"
        (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv) >/dev/null ||
            fail "python3-venv could not be installed" "apt-get install python3-venv"
    else
        fail "$python cannot make virtual environments" "sudo apt-get install python3-venv"
    fi
fi

if [ ! -x "$venv/bin/python" ]; then
    echo "building $venv"
    "$python" -m venv "$venv" || fail "$venv could not be built" "rm -rf $venv, and try again"
fi
echo "installing mini-torrent$extras into $venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".$extras" ||
    fail "the installation into $venv failed" "is a Python package index reachable from here?"
