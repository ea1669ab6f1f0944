"""Size of the machine's memory, and reuse of freed memory by the C library."""

import ctypes
import os
import platform

MMAP_MAX, TRIM_THRESHOLD = -4, -1  # malloc.h: M_MMAP_MAX, M_TRIM_THRESHOLD
CHOSEN_BY_USER = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def physical_memory() -> int:
    """Returns the size of this machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory for later requests instead of returning it to the kernel.

    Otherwise every large tensor of a step on the CPU is mapped, filled with zeros and unmapped again. The process then
    keeps its peak memory. Call it before the first large tensor is created.

    Returns:
        True on success. False, with nothing changed, for other C libraries and if the environment sets glibc's own
        variables.
    """
    if any(name in os.environ for name in CHOSEN_BY_USER) or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, 2**31 - 1))
