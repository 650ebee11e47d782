/* A disk that fails when it is told to: preloaded into the release binary, between RocksDB (or Rust's library) and the kernel.
 *
 * SHIM_RULES names a file, read again at every call that might match, so that rules come and go while the process runs:
 *
 *     GENERATION
 *     [then] OP PATTERN SKIP COUNT ACTION
 *
 * OP is write, sync, open (for creating) or read, with low: or high: before it only in threads of the name rocksdb:low (compaction) or
 * rocksdb:high (flush); PATTERN is a shell pattern over the whole path. The first SKIP calls that match pass, the
 * next COUNT (-1: all) are acted on. `then`: the rule sleeps until the one above it is used up. A new GENERATION begins counting anew.
 * ACTION: EIO and ENOSPC fail and do nothing; torn does half of a write and fails with EIO; short does half of it and says so; lie says
 * success and does nothing; note only writes it down.
 *
 * SHIM_LOG gets a line for each act: OP ACTION SYNCED SIZE PATH, where SYNCED is the size of the file at its last sync that really happened.
 * Everything goes to the kernel by syscall(), so there is nothing to look up and nothing that could call back into here. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { RULES = 16, FILES = 1024 };

struct rule {
    char op[16], pattern[96], action[8];
    long skip, count;
    int then;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int rules_fd = -1, log_fd = -1;
static char generation[32];
static struct rule rules[RULES];
static int rule_count;
static struct { ino_t ino; long size; } synced[FILES];

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SHIM_RULES"), *log = getenv("SHIM_LOG");
    if (log) log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (path) rules_fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
}

/* Under the lock. */
static void read_rules(void) {
    char text[2048], *rest = text, *line;
    ssize_t n = syscall(SYS_pread64, rules_fd, text, sizeof text - 1, 0L);
    if (n <= 0) return;
    text[n] = 0;
    line = strsep(&rest, "\n");
    if (!rest || strncmp(line, generation, sizeof generation) == 0) return;
    snprintf(generation, sizeof generation, "%s", line);
    rule_count = 0;
    while (rule_count < RULES && (line = strsep(&rest, "\n"))) {
        struct rule *r = &rules[rule_count];
        r->then = strncmp(line, "then ", 5) == 0;
        if (sscanf(line + (r->then ? 5 : 0), "%15s %95s %ld %ld %7s", r->op, r->pattern, &r->skip, &r->count, r->action) == 5) rule_count++;
    }
}

static int path_of(int fd, char *path, size_t bytes) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, path, bytes - 1);
    path[n > 0 ? n : 0] = 0;
    return n > 0 && path[0] == '/';
}

static long *synced_size(ino_t ino) {
    for (unsigned i = 0; i < FILES; i++) {
        unsigned at = (ino + i) % FILES;
        if (synced[at].ino == 0) synced[at].ino = ino;
        if (synced[at].ino == ino) return &synced[at].size;
    }
    return &synced[0].size;
}

static void note(const char *op, const char *action, int fd, const char *path) {
    char line[512];
    struct stat st = {0};
    long before = 0;
    if (fd >= 0 && fstat(fd, &st) == 0) before = *synced_size(st.st_ino);
    int n = snprintf(line, sizeof line, "%s %s %ld %ld %s\n", op, action, before, (long)st.st_size, path);
    syscall(SYS_write, log_fd, line, (size_t)n);
}

static int op_is(const char *asked, const char *op) {
    const char *colon = strchr(asked, ':');
    char name[32] = "";
    if (!colon) return strcmp(asked, op) == 0;
    if (strcmp(colon + 1, op) != 0) return 0;
    syscall(SYS_prctl, PR_GET_NAME, name);
    return strncmp(name, "rocksdb:", 8) == 0 && strncmp(name + 8, asked, (size_t)(colon - asked)) == 0;
}

/* What to do with this call, into `action`; 0: nothing. */
static int judge(const char *op, int fd, const char *path, char action[8]) {
    int acts = 0, saved = errno;
    if (rules_fd < 0 || log_fd < 0) return 0;
    pthread_mutex_lock(&lock);
    read_rules();
    for (int i = 0; i < rule_count && !acts; i++) {
        struct rule *r = &rules[i];
        if (!op_is(r->op, op) || fnmatch(r->pattern, path, 0) != 0) continue;
        if (r->then && (rules[i - 1].skip > 0 || rules[i - 1].count != 0)) continue;
        if (r->skip > 0) { r->skip--; continue; }
        if (r->count == 0) continue;
        if (r->count > 0) r->count--;
        memcpy(action, r->action, sizeof r->action);
        note(op, action, fd, path);
        acts = strcmp(action, "note") != 0;
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return acts;
}

static int judge_fd(const char *op, int fd, char action[8]) {
    char path[512];
    if (rules_fd < 0 || fd == log_fd) return 0;
    return path_of(fd, path, sizeof path) && judge(op, fd, path, action);
}

static int fail(const char *action) {
    errno = strcmp(action, "ENOSPC") == 0 ? ENOSPC : EIO;
    return -1;
}

/* `whole` bytes are asked for, `half` does the first half of them. */
#define FAULTY_WRITE(fd, whole, half)                                                     \
    do {                                                                                  \
        char action[8];                                                                   \
        if (judge_fd("write", fd, action)) {                                              \
            if (strcmp(action, "lie") == 0) return (ssize_t)(whole);                      \
            if (strcmp(action, "short") == 0 && (whole) > 1) return (half);               \
            if (strcmp(action, "torn") == 0) { if ((whole) > 1) (void)(half); return fail(action); } \
            if (strcmp(action, "short") != 0) return fail(action);                        \
        }                                                                                 \
    } while (0)

ssize_t write(int fd, const void *bytes, size_t n) {
    FAULTY_WRITE(fd, n, syscall(SYS_write, fd, bytes, n / 2));
    return syscall(SYS_write, fd, bytes, n);
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) {
    FAULTY_WRITE(fd, n, syscall(SYS_pwrite64, fd, bytes, n / 2, at));
    return syscall(SYS_pwrite64, fd, bytes, n, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) { return pwrite64(fd, bytes, n, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    size_t n = 0;
    for (int i = 0; i < count; i++) n += parts[i].iov_len;
    FAULTY_WRITE(fd, n, syscall(SYS_write, fd, parts[0].iov_base, parts[0].iov_len / 2));
    return syscall(SYS_writev, fd, parts, count);
}

static int sync_by(long number, int fd) {
    char action[8];
    struct stat st;
    if (judge_fd("sync", fd, action)) {
        if (strcmp(action, "lie") == 0) return 0;
        return fail(action);
    }
    int known = rules_fd >= 0 && fstat(fd, &st) == 0;
    int result = syscall(number, fd);
    if (known && result == 0) {
        int saved = errno;
        pthread_mutex_lock(&lock);
        *synced_size(st.st_ino) = st.st_size;
        pthread_mutex_unlock(&lock);
        errno = saved;
    }
    return result;
}

int fsync(int fd) { return sync_by(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_by(SYS_fdatasync, fd); }

static int open_by(int dir, const char *path, int flags, mode_t mode) {
    char action[8];
    if ((flags & O_CREAT) && judge("open", -1, path, action)) return fail(action);
    return syscall(SYS_openat, dir, path, flags, mode);
}

#define MODE(flags, mode)                       \
    mode_t mode = 0;                            \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {    \
        va_list rest;                           \
        va_start(rest, flags);                  \
        mode = va_arg(rest, mode_t);            \
        va_end(rest);                           \
    }

int open(const char *path, int flags, ...) { MODE(flags, mode); return open_by(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, mode); return open_by(AT_FDCWD, path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE(flags, mode); return open_by(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE(flags, mode); return open_by(dir, path, flags, mode); }

#define FAULTY_READ(fd, call)                          \
    do {                                               \
        char action[8];                                \
        if (judge_fd("read", fd, action)) return fail(action); \
        return call;                                   \
    } while (0)

ssize_t read(int fd, void *bytes, size_t n) { FAULTY_READ(fd, syscall(SYS_read, fd, bytes, n)); }
ssize_t pread64(int fd, void *bytes, size_t n, off64_t at) { FAULTY_READ(fd, syscall(SYS_pread64, fd, bytes, n, at)); }
ssize_t pread(int fd, void *bytes, size_t n, off_t at) { FAULTY_READ(fd, syscall(SYS_pread64, fd, bytes, n, at)); }
