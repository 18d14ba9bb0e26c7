/* Fails one system call, or all from one on, that touches a file below a folder: for LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char folder[4096];
static long left = -1; /* calls before the one that fails; -1 fails none */
static int failure, lasting, calls;

/* What to fail, until called again. Returns how many calls were seen since the last time. */
int fail(const char *below, long after, int error, int from_then_on) {
  int seen = calls;
  snprintf(folder, sizeof folder, "%s", below);
  left = after, failure = error, lasting = from_then_on, calls = 0;
  return seen;
}

/* Whether this call is to fail. */
static int fails_path(const char *path) {
  if (!folder[0] || strncmp(path, folder, strlen(folder))) return 0;
  ++calls;
  if (left < 0 || left-- > 0) return 0;
  left = lasting ? 0 : -1;
  errno = failure;
  return 1;
}

static int fails(int descriptor) {
  char link[64], path[4096];
  int saved = errno;
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, sizeof path - 1);
  errno = saved;
  if (length < 0) return 0;
  path[length] = 0;
  return fails_path(path);
}

#define REAL(name) __typeof__(name) *real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t write(int descriptor, const void *data, size_t size) {
  REAL(write);
  if (!fails(descriptor)) return real(descriptor, data, size);
  if (lasting != 1 || size < 2) return -1;
  lasting = 2; /* a full disk takes what fits, and then nothing */
  return real(descriptor, data, size / 2);
}

int fsync(int descriptor) { return fails(descriptor) ? -1 : 0; } /* no need to wait for the disk */

int close(int descriptor) {
  REAL(close);
  int failed = fails(descriptor), error = errno;
  int result = real(descriptor); /* the descriptor is gone all the same */
  if (!failed) return result;
  errno = error;
  return -1;
}

int rename(const char *from, const char *to) {
  REAL(rename);
  return fails_path(from) ? -1 : real(from, to);
}

static int opened(int (*real)(const char *, int, ...), const char *path, int flags, int mode) {
  return (flags & O_CREAT) && fails_path(path) ? -1 : real(path, flags, mode);
}

#define OPEN(name)                                                    \
  int name(const char *path, int flags, ...) {                        \
    REAL(name);                                                       \
    va_list rest;                                                     \
    va_start(rest, flags);                                            \
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0; \
    va_end(rest);                                                     \
    return opened(real, path, flags, mode);                           \
  }
OPEN(open)
OPEN(open64)
