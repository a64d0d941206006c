/* Counts the calls that change a file system, over all processes that share the control block named by CRASH_SHIM,
 * and at the one asked for: kills the engine and this process, or fails with an errno. For tests; preloaded. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, FAIL_ONCE, FAIL_ALWAYS };
struct control {
    uint64_t on, counter, target, action, error, classes, engine, fired;
    char what[256];
    char match[128]; /* only calls whose path holds this count */
    char trace[256]; /* a file to which every call is written, in the order of their happening */
};
static struct control *c;

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv("CRASH_SHIM");
    if (!path) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at != MAP_FAILED) c = at;
}

static void note(const char *name, const char *path) {
    static ssize_t (*plain)(int, const void *, size_t);
    static int (*opener)(const char *, int, ...);
    char line[640];
    if (!plain) plain = dlsym(RTLD_NEXT, "write");
    if (!opener) opener = dlsym(RTLD_NEXT, "open");
    int kept = errno, n = snprintf(line, sizeof line, "%s\t%.500s\n", name, path ? path : "");
    int fd = opener(c->trace, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) {
        if (plain(fd, line, n) < 0) _exit(99);
        close(fd);
    }
    errno = kept;
}

/* Classes: 1 write, 2 sync, 4 rename and link, 8 everything else. 0: go on; else fail with this errno. */
static int point(unsigned class, const char *name, const char *path) {
    if (!c || !c->on) return 0;
    if (c->trace[0]) note(name, path);
    if (!(c->classes & class) || (c->match[0] && !(path && strstr(path, c->match)))) return 0;
    uint64_t mine = __atomic_add_fetch(&c->counter, 1, __ATOMIC_SEQ_CST);
    int now = mine == c->target || (c->action == FAIL_ALWAYS && mine > c->target && c->target);
    if (!now || c->action == COUNT) return 0;
    if (!__atomic_exchange_n(&c->fired, 1, __ATOMIC_SEQ_CST))
        snprintf(c->what, sizeof c->what, "%s(%.200s) in %d", name, path ? path : "", getpid() == (int)c->engine ? 0 : 1);
    if (c->action == KILL) {
        if (c->engine && c->engine != (uint64_t)getpid()) kill((pid_t)c->engine, SIGKILL);
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    return (int)c->error;
}

static const char *name_of(int fd, char *room, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, room, size - 1);
    room[n < 0 ? 0 : n] = 0;
    return room;
}
static int regular(int fd) {
    struct stat st;
    int kept = errno, yes = fd > 2 && c && c->on && fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
    errno = kept;
    return yes;
}
#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)
#define AT(class, name, path) do { int bad = point(class, name, path); if (bad) { errno = bad; return -1; } } while (0)
#define ON(class, name, fd) do { if (regular(fd)) { char room[256]; AT(class, name, name_of(fd, room, sizeof room)); } } while (0)

ssize_t write(int fd, const void *b, size_t n) { REAL(ssize_t, "write", int, const void *, size_t); ON(1, "write", fd); return real(fd, b, n); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { REAL(ssize_t, "pwrite", int, const void *, size_t, off_t); ON(1, "pwrite", fd); return real(fd, b, n, o); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t); ON(1, "pwrite", fd); return real(fd, b, n, o); }
ssize_t writev(int fd, const struct iovec *v, int n) { REAL(ssize_t, "writev", int, const struct iovec *, int); ON(1, "writev", fd); return real(fd, v, n); }
ssize_t sendfile64(int o, int i, off64_t *p, size_t n) { REAL(ssize_t, "sendfile64", int, int, off64_t *, size_t); ON(1, "sendfile", o); return real(o, i, p, n); }
ssize_t copy_file_range(int i, off64_t *a, int o, off64_t *b, size_t n, unsigned f) { REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned); ON(1, "copy_file_range", o); return real(i, a, o, b, n, f); }
int ftruncate(int fd, off_t n) { REAL(int, "ftruncate", int, off_t); ON(1, "ftruncate", fd); return real(fd, n); }
int ftruncate64(int fd, off64_t n) { REAL(int, "ftruncate64", int, off64_t); ON(1, "ftruncate", fd); return real(fd, n); }
int fsync(int fd) { REAL(int, "fsync", int); ON(2, "fsync", fd); return real(fd); }
int fdatasync(int fd) { REAL(int, "fdatasync", int); ON(2, "fdatasync", fd); return real(fd); }
int syncfs(int fd) { REAL(int, "syncfs", int); ON(2, "syncfs", fd); return real(fd); }
int rename(const char *a, const char *b) { REAL(int, "rename", const char *, const char *); AT(4, "rename", b); return real(a, b); }
int renameat(int x, const char *a, int y, const char *b) { REAL(int, "renameat", int, const char *, int, const char *); AT(4, "rename", b); return real(x, a, y, b); }
int link(const char *a, const char *b) { REAL(int, "link", const char *, const char *); AT(4, "link", b); return real(a, b); }
int linkat(int x, const char *a, int y, const char *b, int f) { REAL(int, "linkat", int, const char *, int, const char *, int); AT(4, "link", b); return real(x, a, y, b, f); }
int symlink(const char *a, const char *b) { REAL(int, "symlink", const char *, const char *); AT(8, "symlink", b); return real(a, b); }
int symlinkat(const char *a, int x, const char *b) { REAL(int, "symlinkat", const char *, int, const char *); AT(8, "symlink", b); return real(a, x, b); }
int unlink(const char *a) { REAL(int, "unlink", const char *); AT(8, "unlink", a); return real(a); }
int unlinkat(int x, const char *a, int f) { REAL(int, "unlinkat", int, const char *, int); AT(8, "unlinkat", a); return real(x, a, f); }
int rmdir(const char *a) { REAL(int, "rmdir", const char *); AT(8, "rmdir", a); return real(a); }
int mkdir(const char *a, mode_t m) { REAL(int, "mkdir", const char *, mode_t); AT(8, "mkdir", a); return real(a, m); }
int mkdirat(int x, const char *a, mode_t m) { REAL(int, "mkdirat", int, const char *, mode_t); AT(8, "mkdir", a); return real(x, a, m); }
int chmod(const char *a, mode_t m) { REAL(int, "chmod", const char *, mode_t); AT(8, "chmod", a); return real(a, m); }
int fchmodat(int x, const char *a, mode_t m, int f) { REAL(int, "fchmodat", int, const char *, mode_t, int); AT(8, "chmod", a); return real(x, a, m, f); }

#define OPENER(name, at)                                                                     \
    int name(at const char *path, int flags, ...) {                                          \
        mode_t mode = 0;                                                                     \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list v; va_start(v, flags); mode = va_arg(v, mode_t); va_end(v); }
#define MAKES(path, flags) ((flags) & (O_CREAT | O_TRUNC)) && (((flags) & O_TRUNC) || access(path, F_OK))
OPENER(open, ) REAL(int, "open", const char *, int, ...); if (c && c->on && MAKES(path, flags)) AT(8, "open", path); return real(path, flags, mode); }
OPENER(open64, ) REAL(int, "open64", const char *, int, ...); if (c && c->on && MAKES(path, flags)) AT(8, "open", path); return real(path, flags, mode); }
#define COMMA ,
OPENER(openat, int x COMMA) REAL(int, "openat", int, const char *, int, ...); if (c && c->on && MAKES(path, flags)) AT(8, "open", path); return real(x, path, flags, mode); }
OPENER(openat64, int x COMMA) REAL(int, "openat64", int, const char *, int, ...); if (c && c->on && MAKES(path, flags)) AT(8, "open", path); return real(x, path, flags, mode); }
