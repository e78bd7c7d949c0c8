"""A small library that, loaded before all others, sets the clock of the machine back for one process and its children."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["clock_library"]

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static int (*real)(clockid_t, struct timespec *);

static void find(void) { if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime"); }

static long back(void) {
    const char *at = getenv("TORTURE_CLOCK_AT"), *seconds = getenv("TORTURE_CLOCK_BACK");
    struct timespec now;
    if (!at || !seconds) return 0;
    find();
    real(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9 < atof(at) ? 0 : atol(seconds);
}

int clock_gettime(clockid_t clock, struct timespec *value) {
    find();
    int failed = real(clock, value);
    if (!failed && clock == CLOCK_REALTIME) value->tv_sec -= back();
    return failed;
}

int gettimeofday(struct timeval *restrict value, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    value->tv_sec = now.tv_sec;
    value->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *value) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (value) *value = now.tv_sec;
    return now.tv_sec;
}
"""


@functools.cache
def clock_library() -> Path | None:
    """Return the library, compiled at the first call; None where there is no C compiler.

    ``TORTURE_CLOCK_AT`` is a time of ``CLOCK_MONOTONIC`` in seconds, from which on the time is ``TORTURE_CLOCK_BACK`` seconds earlier.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    folder = Path(tempfile.mkdtemp(prefix="graftwork-clock-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "clock.c").write_text(_SOURCE, encoding="utf-8")
    words = [compiler, "-shared", "-fPIC", "-o", str(folder / "clock.so"), str(folder / "clock.c"), "-ldl"]
    done = subprocess.run(words, capture_output=True, check=False)
    return folder / "clock.so" if done.returncode == 0 else None
