#!/bin/sh
# Renews constraints.txt from what a fresh resolution installs.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
.venv/bin/python -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --editable '.[dev,examples]'
{
    echo "# Exact versions of everything the project's commands run with. Renew with: make constraints"
    "$folder/venv/bin/pip" freeze --exclude-editable
} > constraints.txt
