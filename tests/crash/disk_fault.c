/*
 * A disk that fails on command: preloaded into the daemon, it stands between SQLite and the C library.
 *
 * The file named by DISK_FAULT holds one `struct fault`, shared with the test, which may write it at any time
 * (tests/crash/disk_fault.py). Calls on a file whose path ends with `path` are counted; from the `nth` on,
 * `times` of them fail with `error`, after `keep` bytes have reached the file where it is a write. With
 * `dies` the process is killed right then, as by a power failure.
 *
 * Why here and not in a double of SQLite: what is to be shown is that SQLite, as the daemon has set it up, and
 * the daemon together keep the promise; and it needs neither root nor a block device.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

enum call { NONE, WRITE, SYNC, READ };

struct fault {
    char path[256];
    int32_t call, nth, times, error, keep, dies;
    int32_t seen, failed; /* told to the test */
};

static struct fault *fault;

__attribute__((constructor)) static void attach(void)
{
    const char *name = getenv("DISK_FAULT");
    int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *memory = mmap(NULL, sizeof *fault, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory != MAP_FAILED)
        fault = memory;
    close(file);
}

static int is_meant(int file)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    size_t suffix = strnlen(fault->path, sizeof fault->path);
    return length >= (ssize_t)suffix && !memcmp(path + length - suffix, fault->path, suffix);
}

static int fails(int file, enum call call)
{
    if (!fault || fault->call != (int32_t)call || !is_meant(file))
        return 0;
    int32_t seen = __sync_add_and_fetch(&fault->seen, 1);
    if (seen < fault->nth || seen >= (int64_t)fault->nth + fault->times)
        return 0;
    __sync_add_and_fetch(&fault->failed, 1);
    return 1;
}

static int end(void)
{
    if (fault->dies)
        kill(getpid(), SIGKILL);
    errno = fault->error;
    return -1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define PWRITE(name, offset_type)                                                   \
    ssize_t name(int file, const void *bytes, size_t count, offset_type offset)     \
    {                                                                               \
        if (!fails(file, WRITE))                                                    \
            return REAL(name)(file, bytes, count, offset);                          \
        if (fault->keep)                                                            \
            REAL(name)(file, bytes, (size_t)fault->keep < count ? (size_t)fault->keep : count, offset); \
        return end();                                                               \
    }

#define PREAD(name, offset_type)                                                    \
    ssize_t name(int file, void *bytes, size_t count, offset_type offset)           \
    {                                                                               \
        return fails(file, READ) ? end() : REAL(name)(file, bytes, count, offset);  \
    }

#define FSYNC(name)                                                                 \
    int name(int file)                                                              \
    {                                                                               \
        return fails(file, SYNC) ? end() : REAL(name)(file);                        \
    }

PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)
PREAD(pread, off_t)
PREAD(pread64, off64_t)
FSYNC(fsync)
FSYNC(fdatasync)
