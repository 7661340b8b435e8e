#!/bin/sh
# Makes .venv with the pinned versions. On Debian as root it installs the venv module if it is missing.
set -eu

# A name may be there and not run (a version manager's shim), so each is tried.
recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
python=
for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if recent "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "Python 3.11 or newer is needed; none was found. Install it, or name it:" \
         "make PYTHON=/path/to/python3" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "python$version-venv"
    else
        echo "Python's venv module is missing; on Debian: sudo apt-get install python3-venv" >&2
        exit 1
    fi
fi
echo "Setting up .venv (once, about a minute) ..."
rm -f .venv/ready
[ -x .venv/bin/python ] || "$python" -m venv --clear .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable '.[dev,examples]'
# Where PYTHONDONTWRITEBYTECODE is set, as in many containers, every run would compile our modules again.
.venv/bin/python -m compileall -q batch_pipelines assets resources
touch .venv/ready
