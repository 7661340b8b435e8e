#!/bin/sh
# Installs Chromium for the browser tests, where there is none and Debian's packages can be had.
set -eu
if command -v chromium >/dev/null; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Chromium is missing; on Debian: sudo apt-get install chromium" >&2
    exit 1
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium >/dev/null
