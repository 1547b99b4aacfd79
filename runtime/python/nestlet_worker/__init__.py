# SPDX-License-Identifier: Apache-2.0
"""The Python side of a worker: speaks docs/worker-protocol.md, and runs the handler."""
