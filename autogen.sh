#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes ./configure from a git checkout.
set -eu
cd "$(dirname "$0")"
mkdir -p build-aux m4
autoreconf --install --warnings=all,no-portability
