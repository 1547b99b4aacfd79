# SPDX-License-Identifier: Apache-2.0
"""Starts the Python side of a worker. All else is in the package beside it, whose byte code can be
kept on disk, while a script's can not."""

import sys

sys.path.insert(0, __file__.rpartition("/")[0])

from nestlet_worker import worker  # noqa: E402

del sys.path[0]
worker.main()
