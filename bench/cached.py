# SPDX-License-Identifier: Apache-2.0
"""How much of files lies on the disk, how much of them in the page cache, and how to put it out of there."""

import ctypes
import mmap
import os

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
LIBC.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
FAILED = ctypes.c_void_p(-1).value


def files_below(directory):
    return [path for path in directory.rglob("*") if path.is_file()]


def disk_bytes(path):
    return path.stat().st_blocks * 512


def extents(fd):
    """Offset and length of what is no hole: a snapshot's memory has one of 128 GiB at its end."""
    size, end = os.fstat(fd).st_size, 0
    while end < size:
        try:
            begin = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:  # ENXIO: a hole is all that is left
            return
        end = os.lseek(fd, begin, os.SEEK_HOLE)
        yield begin, end - begin


def cached_bytes(path):
    pages = 0
    fd = os.open(path, os.O_RDONLY)
    try:
        for offset, length in extents(fd):
            at = LIBC.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, fd, offset)
            if at == FAILED:
                raise OSError(ctypes.get_errno(), "map", str(path))
            resident = ctypes.create_string_buffer(-(-length // mmap.PAGESIZE))
            if LIBC.mincore(at, length, resident):
                raise OSError(ctypes.get_errno(), "mincore", str(path))
            pages += sum(byte & 1 for byte in resident.raw)
            LIBC.munmap(at, length)
    finally:
        os.close(fd)
    return pages * mmap.PAGESIZE


def evict(path):
    """Only what is on the disk already can go, and what nobody maps."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
