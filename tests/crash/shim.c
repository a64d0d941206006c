/* Counts the calls that change a file system, over all processes that share the control block named by CRASH_SHIM,
 * and at the one asked for: kills the engine and this process, or fails with an errno. For tests; preloaded. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
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
#include <time.h>
#include <unistd.h>

enum { COUNT, KILL, FAIL_ONCE, FAIL_ALWAYS };
struct control {
    uint64_t on, counter, target, action, error, classes, engine, fired;
    char what[256];
    char match[128]; /* only calls whose path holds this count */
    char trace[256]; /* a file to which calls are written with all they carry, in the order of their happening */
    char under[256]; /* only those whose path begins with this */
    uint64_t lock, dead, syncs;
    uint64_t of_class[9]; /* how many calls of each */
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

/* While a trace is taken, one call at a time over all processes: what is written down is what has happened. */
static int traced(void) { return c && c->on && c->trace[0]; }
static void enter(void) {
    if (!traced()) return;
    while (__atomic_exchange_n(&c->lock, 1, __ATOMIC_ACQUIRE)) {
        if (c->dead) { kill(getpid(), SIGKILL); pause(); }
        if (!c->on) return;
        sched_yield();
    }
}
static void leave(void) {
    if (traced()) __atomic_store_n(&c->lock, 0, __ATOMIC_RELEASE);
}

/* "name \t path \t second path \t number \t bytes \n", and so many bytes. */
static void note(const char *name, const char *path, const char *second, long long number, const void *data, size_t n) {
    static ssize_t (*plain)(int, const struct iovec *, int);
    static int (*opener)(const char *, int, ...);
    if (strncmp(path, c->under, strlen(c->under))) return;
    if (!plain) plain = dlsym(RTLD_NEXT, "writev");
    if (!opener) opener = dlsym(RTLD_NEXT, "open");
    char line[9000];
    int kept = errno, size = snprintf(line, sizeof line, "%s\t%s\t%s\t%lld\t%zu\n", name, path, second, number, n);
    struct iovec parts[2] = {{line, size}, {(void *)data, n}};
    int fd = opener(c->trace, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || plain(fd, parts, 2) != (ssize_t)(size + n)) _exit(99);
    close(fd);
    errno = kept;
}

/* Classes: 1 write, 2 sync, 4 rename and link, 8 everything else. 0: go on; else fail with this errno. */
static int point(unsigned class, const char *name, const char *path) {
    if (!c || !c->on) return 0;
    __atomic_add_fetch(&c->of_class[class], 1, __ATOMIC_SEQ_CST);
    if (!(c->classes & class) || (c->match[0] && !(path && strstr(path, c->match)))) return 0;
    uint64_t mine = __atomic_add_fetch(&c->counter, 1, __ATOMIC_SEQ_CST);
    int now = mine == c->target || (c->action == FAIL_ALWAYS && mine > c->target && c->target);
    if (!now || c->action == COUNT) return 0;
    if (!__atomic_exchange_n(&c->fired, 1, __ATOMIC_SEQ_CST))
        snprintf(c->what, sizeof c->what, "%s(%.200s) in %d", name, path ? path : "", getpid() == (int)c->engine ? 0 : 1);
    if (c->action == KILL) {
        enter(); /* and nobody leaves any more */
        c->dead = 1;
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
static const char *absolute(int at, const char *path, char *room, size_t size) {
    char folder[4096];
    if (path[0] == '/') { snprintf(room, size, "%s", path); return room; }
    if (at != AT_FDCWD) name_of(at, folder, sizeof folder);
    else if (!getcwd(folder, sizeof folder)) folder[0] = 0;
    snprintf(room, size, "%s/%s", folder, path);
    return room;
}
#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)
#define AT(class, name, path) do { int bad = point(class, name, path); if (bad) { errno = bad; return -1; } } while (0)
#define ON(class, name, fd) do { if (regular(fd)) { char room[256]; AT(class, name, name_of(fd, room, sizeof room)); } } while (0)
#define TRACED(type, call, ok, ...) do { enter(); type made = call; if (traced() && (ok)) { __VA_ARGS__; } leave(); return made; } while (0)
#define PATH(at, path) absolute(at, path, (char[8192]){0}, 8192)
#define PLACE(fd) name_of(fd, (char[4096]){0}, 4096)
/* A sync holds for what was there when it began, and from when it has ended. */
#define SYNCED(name, fd) do {                                                                                   \
        if (!regular(fd) || !traced()) return real(fd);                                                      \
        uint64_t mine = __atomic_add_fetch(&c->syncs, 1, __ATOMIC_SEQ_CST);                                     \
        char room[4096], *place = strcmp(name, "syncfs") ? (char *)name_of(fd, room, sizeof room) : c->under;   \
        enter();                                                                                                \
        struct timespec now;                                                                                    \
        clock_gettime(CLOCK_REALTIME_COARSE, &now);                                                          \
        char when[32];                                                                                          \
        note(name, place, "begins", mine, when, sprintf(when, "%lld%09ld", (long long)now.tv_sec, now.tv_nsec)); \
        leave();                                                                                                \
        int bad = real(fd);                                                                                     \
        enter(); if (!bad) note(name, place, "ends", mine, "", 0); leave();                                     \
        return bad;                                                                                             \
    } while (0)

ssize_t write(int fd, const void *b, size_t n) { REAL(ssize_t, "write", int, const void *, size_t); ON(1, "write", fd); if (!regular(fd)) return real(fd, b, n); TRACED(ssize_t, real(fd, b, n), made > 0, note("write", PLACE(fd), "", (long long)lseek(fd, 0, SEEK_CUR) - made, b, made)); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { REAL(ssize_t, "pwrite", int, const void *, size_t, off_t); ON(1, "pwrite", fd); TRACED(ssize_t, real(fd, b, n, o), made > 0, note("write", PLACE(fd), "", o, b, made)); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t); ON(1, "pwrite", fd); TRACED(ssize_t, real(fd, b, n, o), made > 0, note("write", PLACE(fd), "", o, b, made)); }
ssize_t writev(int fd, const struct iovec *v, int n) { REAL(ssize_t, "writev", int, const struct iovec *, int); ON(1, "writev", fd); if (!regular(fd)) return real(fd, v, n); TRACED(ssize_t, real(fd, v, n), made > 0, note("writev", PLACE(fd), "", made, "", 0)); }
ssize_t sendfile64(int o, int i, off64_t *p, size_t n) { REAL(ssize_t, "sendfile64", int, int, off64_t *, size_t); ON(1, "sendfile", o); if (!regular(o)) return real(o, i, p, n); TRACED(ssize_t, real(o, i, p, n), made > 0, note("sendfile", PLACE(o), "", made, "", 0)); }
ssize_t copy_file_range(int i, off64_t *a, int o, off64_t *b, size_t n, unsigned f) { REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned); ON(1, "copy_file_range", o); TRACED(ssize_t, real(i, a, o, b, n, f), made > 0, note("copy_file_range", PLACE(o), "", made, "", 0)); }
int ftruncate(int fd, off_t n) { REAL(int, "ftruncate", int, off_t); ON(1, "ftruncate", fd); TRACED(int, real(fd, n), !made, note("truncate", PLACE(fd), "", n, "", 0)); }
int ftruncate64(int fd, off64_t n) { REAL(int, "ftruncate64", int, off64_t); ON(1, "ftruncate", fd); TRACED(int, real(fd, n), !made, note("truncate", PLACE(fd), "", n, "", 0)); }
int fsync(int fd) { REAL(int, "fsync", int); ON(2, "fsync", fd); SYNCED("fsync", fd); }
int fdatasync(int fd) { REAL(int, "fdatasync", int); ON(2, "fdatasync", fd); SYNCED("fsync", fd); }
int syncfs(int fd) { REAL(int, "syncfs", int); ON(2, "syncfs", fd); SYNCED("syncfs", fd); }
int rename(const char *a, const char *b) { REAL(int, "rename", const char *, const char *); AT(4, "rename", b); TRACED(int, real(a, b), !made, note("rename", PATH(AT_FDCWD, a), PATH(AT_FDCWD, b), 0, "", 0)); }
int renameat(int x, const char *a, int y, const char *b) { REAL(int, "renameat", int, const char *, int, const char *); AT(4, "rename", b); TRACED(int, real(x, a, y, b), !made, note("rename", PATH(x, a), PATH(y, b), 0, "", 0)); }
int link(const char *a, const char *b) { REAL(int, "link", const char *, const char *); AT(4, "link", b); TRACED(int, real(a, b), !made, note("link", PATH(AT_FDCWD, a), PATH(AT_FDCWD, b), 0, "", 0)); }
int linkat(int x, const char *a, int y, const char *b, int f) { REAL(int, "linkat", int, const char *, int, const char *, int); AT(4, "link", b); TRACED(int, real(x, a, y, b, f), !made, note("link", PATH(x, a), PATH(y, b), 0, "", 0)); }
int symlink(const char *a, const char *b) { REAL(int, "symlink", const char *, const char *); AT(8, "symlink", b); TRACED(int, real(a, b), !made, note("symlink", PATH(AT_FDCWD, b), a, 0, "", 0)); }
int symlinkat(const char *a, int x, const char *b) { REAL(int, "symlinkat", const char *, int, const char *); AT(8, "symlink", b); TRACED(int, real(a, x, b), !made, note("symlink", PATH(x, b), a, 0, "", 0)); }
int unlink(const char *a) { REAL(int, "unlink", const char *); AT(8, "unlink", a); TRACED(int, real(a), !made, note("unlink", PATH(AT_FDCWD, a), "", 0, "", 0)); }
int unlinkat(int x, const char *a, int f) { REAL(int, "unlinkat", int, const char *, int); AT(8, "unlinkat", a); TRACED(int, real(x, a, f), !made, note("unlink", PATH(x, a), "", 0, "", 0)); }
int rmdir(const char *a) { REAL(int, "rmdir", const char *); AT(8, "rmdir", a); TRACED(int, real(a), !made, note("unlink", PATH(AT_FDCWD, a), "", 0, "", 0)); }
int mkdir(const char *a, mode_t m) { REAL(int, "mkdir", const char *, mode_t); AT(8, "mkdir", a); TRACED(int, real(a, m), !made, note("mkdir", PATH(AT_FDCWD, a), "", m, "", 0)); }
int mkdirat(int x, const char *a, mode_t m) { REAL(int, "mkdirat", int, const char *, mode_t); AT(8, "mkdir", a); TRACED(int, real(x, a, m), !made, note("mkdir", PATH(x, a), "", m, "", 0)); }
int chmod(const char *a, mode_t m) { REAL(int, "chmod", const char *, mode_t); AT(8, "chmod", a); return real(a, m); }
int fchmodat(int x, const char *a, mode_t m, int f) { REAL(int, "fchmodat", int, const char *, mode_t, int); AT(8, "chmod", a); return real(x, a, m, f); }

/* Of files that are there already, only those that are emptied. */
#define OPENER(name, type, proto, at, call)                                                                       \
    int name(proto const char *path, int flags, ...) {                                                            \
        mode_t mode = 0;                                                                                          \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list v; va_start(v, flags); mode = va_arg(v, mode_t); va_end(v); } \
        REAL type;                                                                                                \
        int there = !(c && c->on && flags & (O_CREAT | O_TRUNC)) || !faccessat(at, path, F_OK, 0);                \
        if (there && !(c && c->on && flags & O_TRUNC)) return call;                                               \
        AT(8, "open", path);                                                                                      \
        TRACED(int, call, made >= 0, note(there ? "truncate" : "create", PATH(at, path), "", there ? 0 : mode, "", 0)); \
    }
#define COMMA ,
OPENER(open, (int, "open", const char *, int, ...), , AT_FDCWD, real(path, flags, mode))
OPENER(open64, (int, "open64", const char *, int, ...), , AT_FDCWD, real(path, flags, mode))
OPENER(openat, (int, "openat", int, const char *, int, ...), int x COMMA, x, real(x, path, flags, mode))
OPENER(openat64, (int, "openat64", int, const char *, int, ...), int x COMMA, x, real(x, path, flags, mode))
