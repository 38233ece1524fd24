#!/bin/sh
# Brings .venv in line with the lock files:  scripts/environment.sh run | dev
#
# "run" is what the service needs, "dev" that and the tools of tests and checks. When nothing changed since the
# last time it only compares a file, so every make target can call it. uv does the work where it is on PATH
# (seconds), plain pip where it is not (about a minute). PYTHON names the interpreter; without it the first of
# python3, python3.14 … python3.11 that is new enough is taken, and an existing .venv is kept as it is.
set -eu
cd "$(dirname "$0")/.."

fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
    exit 1
}

case ${1:-} in
    run) lock=requirements.lock ;;
    dev) lock=requirements-dev.lock ;;
    *) fail "usage: scripts/environment.sh run | dev" ;;
esac
stamp=.venv/.installed-$1

# What the stamp of an environment must say. The folder is part of it: scripts in .venv name it, so a moved
# checkout needs a new one.
ingredients() {
    pwd
    [ "$1" = run ] || cat requirements-dev.lock
    cat requirements.lock pyproject.toml
}

is_installed() {
    [ -x .venv/bin/python ] && [ -f ".venv/.installed-$1" ] && ingredients "$1" | cmp -s - ".venv/.installed-$1"
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

version_of() {
    "$1" -c 'import sys; print(sys.implementation.name, sys.version)' 2>/dev/null || true
}

find_python() {
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if is_new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    if has_uv; then uv python find --no-python-downloads '>=3.11' 2>/dev/null || true; fi
}

has_uv() {
    command -v uv >/dev/null 2>&1
}

choose_python() {
    if [ -z "${PYTHON:-}" ]; then
        python=$(find_python)
        [ -n "$python" ] || fail "Python 3.11 or newer is needed, and none was found on PATH." \
            "Install one, or name it: make ${MAKE_TARGET:-run} PYTHON=/path/to/python3.12"
        return
    fi
    python=$PYTHON
    command -v "$python" >/dev/null 2>&1 || fail "PYTHON=$python: there is no such program."
    is_new_enough "$python" || fail "PYTHON=$python is too old: Python 3.11 or newer is needed." \
        "It says: $("$python" --version 2>&1 | head -n 1)"
}

# An environment that another place or another Python made cannot be repaired, only made anew.
is_usable() {
    [ -x .venv/bin/python ] && is_new_enough .venv/bin/python || return 1
    [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$(version_of .venv/bin/python)" ] || return 1
    for made in .venv/.installed-*; do
        [ ! -f "$made" ] || [ "$(head -n 1 "$made")" = "$(pwd)" ] || return 1
    done
}

make_environment() {
    [ ! -e .venv ] || [ -f .venv/pyvenv.cfg ] ||
        fail "$(pwd)/.venv is there and is not a virtual environment. Move it away."
    choose_python
    printf 'Making .venv with %s\n' "$("$python" --version 2>&1)"
    if has_uv; then
        rm -rf .venv
        uv venv --quiet --no-python-downloads --python "$python" .venv
    else
        # Debian and Ubuntu leave ensurepip out, and the venv module then dies half-way.
        "$python" -c 'import venv, ensurepip' 2>/dev/null ||
            fail "this Python cannot make virtual environments: it comes without venv or ensurepip." \
                "On Debian and Ubuntu: apt install python3-venv. Or install uv, which needs neither."
        rm -rf .venv
        "$python" -m venv .venv
    fi
}

install() {
    if has_uv; then
        uv pip install --quiet --python .venv/bin/python "$@"
    else
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input "$@"
    fi
}

ensure_pip() {
    has_uv || .venv/bin/python -m pip --version >/dev/null 2>&1 ||
        .venv/bin/python -m ensurepip >/dev/null 2>&1 ||
        fail ".venv has no pip and this Python cannot add it: it comes without ensurepip." \
            "Install uv, or remove .venv and install python3-venv (Debian, Ubuntu), then try again."
}

if is_installed "$1" && { [ -z "${PYTHON:-}" ] || is_usable; }; then exit 0; fi
is_usable || make_environment
ensure_pip
# Both go: one lock may have moved packages that the other stamp vouches for.
rm -f .venv/.installed-run .venv/.installed-dev
echo "Installing the packages of $lock (once, and again when it changes)"
# The lock is complete. Without --no-deps, pip before 24 takes a dependency with extras ("google-auth[requests]") for
# one that has no pin.
install --no-deps --require-hashes --requirement "$lock"
# The project itself, built with the locked hatchling: nothing is fetched here.
install --no-deps --no-build-isolation --editable .
ingredients "$1" >"$stamp"
# The dev lock holds every pin of the other one.
[ "$1" = run ] || ingredients run >.venv/.installed-run
