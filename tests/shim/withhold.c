/*
 * What a power cut leaves behind, made visible without cutting the power.
 *
 * SIGKILL leaves the page cache alive, so a server that never calls fdatasync survives it. This library is preloaded
 * into a server and withholds every write from a second directory, the *image*, until the file is synced; the image is
 * what the disk would hold. A test kills the server, throws the data directory away and goes on with the image.
 * The data directory itself is written as always, so that reads, maps and forked children see what was written, as
 * they do under a real kernel.
 *
 *   CAIRN_SHIM_DIR           the data directory (must exist)
 *   CAIRN_SHIM_IMAGE         the image: inodes/<number> hold contents, names/<name> are hard links to them
 *   CAIRN_SHIM_WRITEBACK     per cent of the 512-byte blocks written (and of the renames, creations and removals) that
 *                            reach the image early, as a kernel may write back what nobody has synced yet; 0 if unset
 *   CAIRN_SHIM_SEED          seed of that choice
 *   CAIRN_SHIM_ENOSPC_AFTER  bytes that files below the directory may newly allocate; then ENOSPC
 *   CAIRN_SHIM_CONTROL       a directory in which the test leaves marks while the server runs: "ignore-sync" makes
 *                            syncs succeed and do nothing, "disk-full" makes every allocation fail with ENOSPC,
 *                            "hang-sync" lets no sync return while it stands, "fail-sync" makes each sync of a file fail
 *                            with EIO, and "fail-sync-once" only the next one, which takes the mark away; "fail-fork"
 *                            lets no process be forked, for want of memory
 *
 * Rules of the image: a write reaches it when fsync or fdatasync of that file returns, from whichever process shares
 * this start (the dirty ranges lie in memory shared with forked children). A name, its removal or its change reaches
 * it when the directory is synced. O_SYNC and O_DSYNC files are synced by each write. What this library does not model
 * (writable shared maps, sync of the whole system, directories below the data directory) ends the process with a
 * message instead of passing silently. Only files directly in the directory take part in the image; space is counted
 * for all files below it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES_MAX 4096
#define RANGES_MAX 16
#define BLOCK 512

struct range { off_t from, to; };

struct file {
    ino_t ino;
    int used, in_image, sync_each_write, dirty_count;
    off_t allocated; /* the greatest end ever written or preallocated */
    struct range dirty[RANGES_MAX];
};

static struct shared {
    pthread_mutex_t lock;
    uint64_t random;
    long long allocated;
    struct file files[FILES_MAX];
} *shared;

static char dir[PATH_MAX], image[PATH_MAX], control[PATH_MAX];
static size_t dir_length;
static struct stat dir_stat;
static int image_inodes = -1, image_names = -1, has_control, writeback;
static long long space = -1;

/* The system calls themselves: nothing here may come back into the functions below. */
static int sys_fstat(int fd, struct stat *out) { return (int)syscall(SYS_newfstatat, fd, "", out, AT_EMPTY_PATH); }
static ssize_t sys_pread(int fd, void *at, size_t n, off_t off) { return syscall(SYS_pread64, fd, at, n, off); }
static ssize_t sys_pwrite(int fd, const void *at, size_t n, off_t off) { return syscall(SYS_pwrite64, fd, at, n, off); }
static int sys_openat(int d, const char *path, int flags, mode_t mode) { return (int)syscall(SYS_openat, d, path, flags, mode); }
static int sys_close(int fd) { return (int)syscall(SYS_close, fd); }

static void die(const char *what) {
    char text[256];
    int n = snprintf(text, sizeof text, "withhold.so: %s (errno %d)\n", what, errno);
    if (n > 0) (void)!syscall(SYS_write, 2, text, (size_t)n);
    abort();
}

static void lock(void) {
    /* A forked child may be killed while it holds the lock; what it guards stays usable. */
    if (pthread_mutex_lock(&shared->lock) == EOWNERDEAD) pthread_mutex_consistent(&shared->lock);
}
static void unlock(void) { pthread_mutex_unlock(&shared->lock); }

static int marked(const char *name) {
    char path[PATH_MAX + 32];
    if (!has_control) return 0;
    snprintf(path, sizeof path, "%s/%s", control, name);
    return syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
}

/* xorshift64*; called under the lock. */
static int early(void) {
    if (writeback <= 0) return 0;
    uint64_t x = shared->random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    shared->random = x;
    return (int)((x * 2685821657736338717ULL >> 33) % 100) < writeback;
}

static struct file *find(ino_t ino) {
    for (size_t i = 0, at = ino % FILES_MAX; i < FILES_MAX; i++, at = (at + 1) % FILES_MAX) {
        struct file *f = &shared->files[at];
        if (!f->used) return NULL;
        if (f->ino == ino) return f;
    }
    return NULL;
}

static struct file *find_or_add(ino_t ino) {
    for (size_t i = 0, at = ino % FILES_MAX; i < FILES_MAX; i++, at = (at + 1) % FILES_MAX) {
        struct file *f = &shared->files[at];
        if (f->used && f->ino == ino) return f;
        if (!f->used) {
            memset(f, 0, sizeof *f);
            f->used = 1;
            f->ino = ino;
            return f;
        }
    }
    die("more files than the table holds");
    return NULL;
}

/* The file behind a descriptor if it is one of ours. */
static struct file *of_fd(int fd, struct stat *st) {
    if (!shared || sys_fstat(fd, st) != 0 || !S_ISREG(st->st_mode) || st->st_dev != dir_stat.st_dev) return NULL;
    return find(st->st_ino);
}

static void inode_name(char *out, size_t n, ino_t ino) { snprintf(out, n, "%llu", (unsigned long long)ino); }

static int image_open(ino_t ino) {
    char name[32];
    inode_name(name, sizeof name, ino);
    int fd = sys_openat(image_inodes, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) die("the image of a file cannot be opened");
    return fd;
}

static void copy_range(int from, int to, off_t at, off_t end) {
    static __thread char buffer[64 * 1024];
    while (at < end) {
        size_t want = (size_t)(end - at) < sizeof buffer ? (size_t)(end - at) : sizeof buffer;
        ssize_t n = sys_pread(from, buffer, want, at);
        if (n < 0) die("a file cannot be read back");
        if (n == 0) return;
        if (sys_pwrite(to, buffer, (size_t)n, at) != n) die("the image cannot be written");
        at += n;
    }
}

/* A descriptor to read a file from whose own may be write-only. */
static int reader_of(int fd) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int reader = sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (reader < 0) die("a file cannot be opened to be read back");
    return reader;
}

static void dirty(struct file *f, off_t from, off_t to) {
    if (from >= to) return;
    for (int i = 0; i < f->dirty_count; i++) {
        struct range *r = &f->dirty[i];
        if (from <= r->to && to >= r->from) {
            if (from < r->from) r->from = from;
            if (to > r->to) r->to = to;
            return;
        }
    }
    if (f->dirty_count == RANGES_MAX) {
        /* Too many to tell apart: one range around all of them copies clean bytes too, which changes nothing. */
        for (int i = 0; i < RANGES_MAX; i++) {
            if (f->dirty[i].from < from) from = f->dirty[i].from;
            if (f->dirty[i].to > to) to = f->dirty[i].to;
        }
        f->dirty_count = 0;
    }
    f->dirty[f->dirty_count++] = (struct range){from, to};
}

static void sync_file(int fd, struct file *f) {
    struct stat st;
    if (!f->in_image || image_inodes < 0) return;
    if (sys_fstat(fd, &st) != 0) die("fstat");
    int to = image_open(f->ino), from = reader_of(fd);
    if (syscall(SYS_ftruncate, to, st.st_size) != 0) die("the image cannot be resized");
    for (int i = 0; i < f->dirty_count; i++) copy_range(from, to, f->dirty[i].from, f->dirty[i].to);
    f->dirty_count = 0;
    sys_close(from);
    sys_close(to);
}

struct entry { /* as the kernel lays it out, getdents64(2) */
    uint64_t ino;
    int64_t next;
    unsigned short length;
    unsigned char type;
    char name[];
};

/* Calls `each` for every regular file of a directory. opendir would call malloc, which a forked child may not. */
static void each_file(const char *path, void (*each)(int at, const char *name, const struct stat *st)) {
    _Alignas(struct entry) char buffer[4096];
    struct stat st;
    int at = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (at < 0) die("a directory cannot be listed");
    for (long n; (n = syscall(SYS_getdents64, at, buffer, sizeof buffer)) > 0;) {
        for (long i = 0; i < n; i += ((struct entry *)(buffer + i))->length) {
            const char *name = ((struct entry *)(buffer + i))->name;
            if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
            if (syscall(SYS_newfstatat, at, name, &st, AT_SYMLINK_NOFOLLOW) != 0) continue;
            if (S_ISDIR(st.st_mode)) die("directories below the data directory are not modelled");
            if (S_ISREG(st.st_mode)) each(at, name, &st);
        }
    }
    sys_close(at);
}

static void enter_name(int at, const char *name, const struct stat *st) {
    char inode[32];
    struct stat known, named;
    int fd = image_open(st->st_ino);
    (void)at;
    if (sys_fstat(fd, &known) != 0) die("fstat");
    sys_close(fd);
    if (syscall(SYS_newfstatat, image_names, name, &named, AT_SYMLINK_NOFOLLOW) == 0) {
        if (named.st_ino == known.st_ino) return;
        syscall(SYS_unlinkat, image_names, name, 0);
    }
    inode_name(inode, sizeof inode, st->st_ino);
    if (syscall(SYS_linkat, image_inodes, inode, image_names, name, 0) != 0) die("a name cannot enter the image");
}

static void drop_name(int at, const char *name, const struct stat *st) {
    char path[PATH_MAX + NAME_MAX + 2];
    struct stat found;
    (void)st;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (syscall(SYS_newfstatat, AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT)
        syscall(SYS_unlinkat, at, name, 0);
}

/* The image's names become what the directory holds now. */
static void sync_names(void) {
    char names[PATH_MAX + 16];
    if (image_names < 0) return;
    each_file(dir, enter_name);
    snprintf(names, sizeof names, "%s/names", image);
    each_file(names, drop_name);
}

static void names_changed(void) {
    lock();
    int now = early();
    if (now) sync_names();
    unlock();
}

/* Whether [.., end) may be allocated; counts it. Called under the lock. */
static int allocate(struct file *f, off_t end) {
    long long more = end > f->allocated ? end - f->allocated : 0;
    if (more == 0) return 1;
    if (marked("disk-full") || (space >= 0 && shared->allocated + more > space)) {
        errno = ENOSPC;
        return 0;
    }
    shared->allocated += more;
    f->allocated = end;
    return 1;
}

/* After n bytes were written at `at`. */
static void wrote(int fd, off_t at, ssize_t n) {
    struct stat st;
    if (n <= 0 || !shared) return;
    lock();
    struct file *f = of_fd(fd, &st);
    if (f) {
        if (at + n > f->allocated) f->allocated = at + n;
        dirty(f, at, at + n);
        if (f->sync_each_write && !marked("ignore-sync")) {
            sync_file(fd, f);
        } else if (f->in_image && writeback > 0 && image_inodes >= 0) {
            int to = -1, from = -1;
            for (off_t b = at; b < at + n;) {
                off_t end = (b / BLOCK + 1) * BLOCK;
                if (end > at + n) end = at + n;
                if (early()) {
                    if (to < 0) to = image_open(f->ino), from = reader_of(fd);
                    copy_range(from, to, b, end);
                }
                b = end;
            }
            if (to >= 0) sys_close(to), sys_close(from);
        }
    }
    unlock();
}

/* Before a write: the bytes that still fit, or -1. `at` < 0 means the current position. */
static ssize_t admit(int fd, off_t at, size_t n) {
    struct stat st;
    ssize_t fits = (ssize_t)n;
    if (!shared || (space < 0 && !has_control)) return fits;
    lock();
    struct file *f = of_fd(fd, &st);
    if (f) {
        if (at < 0) {
            int flags = (int)syscall(SYS_fcntl, fd, F_GETFL);
            at = flags & O_APPEND ? st.st_size : (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR);
        }
        if (!allocate(f, at + (off_t)n)) {
            /* As a file system does: what still fits is written, the rest fails at the next call. */
            long long left = space >= 0 && !marked("disk-full") ? space - shared->allocated : 0;
            off_t reach = f->allocated + (left > 0 ? left : 0);
            fits = reach > at ? (ssize_t)(reach - at) : -1;
            if (fits > 0) allocate(f, reach);
            if (fits <= 0) errno = ENOSPC, fits = -1;
        }
    }
    unlock();
    return fits;
}

static ssize_t after_write(int fd, ssize_t n) {
    if (n > 0 && shared) {
        int saved = errno;
        off_t end = (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR);
        if (end >= n) wrote(fd, end - n, n);
        errno = saved;
    }
    return n;
}

ssize_t write(int fd, const void *data, size_t n) {
    ssize_t fits = admit(fd, -1, n);
    if (fits < 0) return -1;
    return after_write(fd, syscall(SYS_write, fd, data, (size_t)fits));
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    ssize_t fits = admit(fd, at, n);
    if (fits < 0) return -1;
    ssize_t done = sys_pwrite(fd, data, (size_t)fits, at);
    int saved = errno;
    wrote(fd, at, done);
    errno = saved;
    return done;
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) { return pwrite(fd, data, n, at); }

static size_t total(const struct iovec *v, int count) {
    size_t n = 0;
    for (int i = 0; i < count; i++) n += v[i].iov_len;
    return n;
}

ssize_t writev(int fd, const struct iovec *v, int count) {
    size_t n = total(v, count);
    ssize_t fits = admit(fd, -1, n);
    if (fits < 0) return -1;
    if ((size_t)fits < n) return write(fd, v[0].iov_base, (size_t)fits < v[0].iov_len ? (size_t)fits : v[0].iov_len);
    return after_write(fd, syscall(SYS_writev, fd, v, count));
}

ssize_t pwritev2(int fd, const struct iovec *v, int count, off_t at, int flags) {
    size_t n = total(v, count);
    if (at == -1) die("pwritev2 at the current position is not modelled");
    ssize_t fits = admit(fd, at, n);
    if (fits < 0) return -1;
    if ((size_t)fits < n) return pwrite(fd, v[0].iov_base, (size_t)fits < v[0].iov_len ? (size_t)fits : v[0].iov_len, at);
    ssize_t done = syscall(SYS_pwritev2, fd, v, count, (unsigned long)at, 0UL, flags);
    int saved = errno;
    wrote(fd, at, done);
    if (done > 0 && flags & (RWF_DSYNC | RWF_SYNC)) {
        struct stat st;
        lock();
        struct file *f = of_fd(fd, &st);
        if (f && !marked("ignore-sync")) sync_file(fd, f);
        unlock();
    }
    errno = saved;
    return done;
}
ssize_t pwritev64v2(int fd, const struct iovec *v, int count, off64_t at, int flags) { return pwritev2(fd, v, count, at, flags); }
ssize_t pwritev(int fd, const struct iovec *v, int count, off_t at) { return pwritev2(fd, v, count, at, 0); }
ssize_t pwritev64(int fd, const struct iovec *v, int count, off64_t at) { return pwritev2(fd, v, count, at, 0); }

ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t n, unsigned int flags) {
    off64_t at = out_at ? *out_at : (off64_t)syscall(SYS_lseek, out, 0, SEEK_CUR);
    if (admit(out, at, n) < (ssize_t)n) return errno = ENOSPC, -1;
    ssize_t done = syscall(SYS_copy_file_range, in, in_at, out, out_at, n, flags);
    int saved = errno;
    wrote(out, at, done);
    errno = saved;
    return done;
}

ssize_t sendfile(int out, int in, off_t *at, size_t n) {
    if (admit(out, -1, n) < (ssize_t)n) return errno = ENOSPC, -1;
    return after_write(out, syscall(SYS_sendfile, out, in, at, n));
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t n) { return sendfile(out, in, at, n); }

int ftruncate(int fd, off_t length) {
    struct stat st;
    if (!shared) return (int)syscall(SYS_ftruncate, fd, length);
    lock();
    struct file *f = of_fd(fd, &st);
    int result = (int)syscall(SYS_ftruncate, fd, length);
    if (result == 0 && f && length < st.st_size) {
        dirty(f, length, st.st_size);
        if (f->allocated > length) shared->allocated -= f->allocated - length, f->allocated = length;
    }
    unlock();
    return result;
}
int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

int fallocate(int fd, int mode, off_t at, off_t length) {
    struct stat st;
    if (!shared) return (int)syscall(SYS_fallocate, fd, mode, at, length);
    lock();
    struct file *f = of_fd(fd, &st);
    int result = -1;
    if (!f || mode & FALLOC_FL_PUNCH_HOLE || allocate(f, at + length)) {
        result = (int)syscall(SYS_fallocate, fd, mode, at, length);
        if (result == 0 && f && mode & ~FALLOC_FL_KEEP_SIZE) dirty(f, at, at + length);
    }
    unlock();
    return result;
}
int fallocate64(int fd, int mode, off64_t at, off64_t length) { return fallocate(fd, mode, at, length); }
int posix_fallocate(int fd, off_t at, off_t length) { return fallocate(fd, 0, at, length) == 0 ? 0 : errno; }
int posix_fallocate64(int fd, off64_t at, off64_t length) { return posix_fallocate(fd, at, length); }

/* Takes a mark away; whether it stood. */
static int take_mark(const char *name) {
    char path[PATH_MAX + 32];
    if (!has_control) return 0;
    snprintf(path, sizeof path, "%s/%s", control, name);
    return syscall(SYS_unlinkat, AT_FDCWD, path, 0) == 0;
}

static int synced(int fd, long call) {
    struct stat st;
    while (marked("hang-sync")) usleep(1000);
    if (!shared) return (int)syscall(call, fd);
    if (of_fd(fd, &st) && (marked("fail-sync") || (marked("fail-sync-once") && take_mark("fail-sync-once")))) {
        errno = EIO;
        return -1;
    }
    if (marked("ignore-sync")) return 0;
    lock();
    if (sys_fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        if (st.st_dev == dir_stat.st_dev && st.st_ino == dir_stat.st_ino) sync_names();
    } else {
        struct file *f = of_fd(fd, &st);
        if (f) sync_file(fd, f);
    }
    unlock();
    return (int)syscall(call, fd);
}
pid_t fork(void) {
    static pid_t (*next)(void);
    if (marked("fail-fork")) {
        errno = ENOMEM;
        return -1;
    }
    if (!next) next = (pid_t(*)(void))dlsym(RTLD_NEXT, "fork");
    if (!next) die("there is no fork");
    return next();
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }
int syncfs(int fd) {
    if (shared) die("syncfs is not modelled");
    return (int)syscall(SYS_syncfs, fd);
}
void sync(void) {
    if (shared) die("sync is not modelled");
    syscall(SYS_sync);
}

/* After an open that may write: is it one of ours, and is it new? */
static int opened(int fd, int flags, int was_there) {
    char link[64], path[PATH_MAX];
    struct stat st;
    if (fd < 0 || !shared || (flags & O_ACCMODE) == O_RDONLY) return fd;
    int saved = errno;
    if (sys_fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_dev == dir_stat.st_dev) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
        if (n > 0 && (size_t)n > dir_length && memcmp(path, dir, dir_length) == 0 && path[dir_length] == '/') {
            path[n] = 0;
            lock();
            struct file *f = find(st.st_ino);
            int fresh = !was_there;
            if (!f || fresh) {
                f = find_or_add(st.st_ino);
                f->in_image = strchr(path + dir_length + 1, '/') == NULL;
                f->dirty_count = 0;
                f->sync_each_write = 0;
                f->allocated = fresh ? 0 : st.st_size;
                if (fresh && f->in_image && image_inodes >= 0) {
                    /* The number may have belonged to a file that is gone; names still in the image keep that one. */
                    char name[32];
                    inode_name(name, sizeof name, st.st_ino);
                    syscall(SYS_unlinkat, image_inodes, name, 0);
                }
            }
            if (flags & O_TRUNC && f->allocated > 0) {
                dirty(f, 0, f->allocated);
                shared->allocated -= f->allocated;
                f->allocated = 0;
            }
            if (flags & O_DSYNC) f->sync_each_write = 1;
            if (fresh && early()) sync_names();
            unlock();
        }
    }
    errno = saved;
    return fd;
}

static int open_any(int at, const char *path, int flags, mode_t mode) {
    struct stat st;
    int was_there = 1;
    if (shared && flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)))
        was_there = (flags & O_TMPFILE) != O_TMPFILE && syscall(SYS_newfstatat, at, path, &st, 0) == 0;
    return opened(sys_openat(at, path, flags, mode), flags, was_there);
}

#define MODE_OF(flags)                                               \
    mode_t mode = 0;                                                 \
    if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) {   \
        va_list rest;                                                \
        va_start(rest, flags);                                       \
        mode = (mode_t)va_arg(rest, int);                            \
        va_end(rest);                                                \
    }

int open(const char *path, int flags, ...) { MODE_OF(flags) return open_any(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags) return open_any(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE_OF(flags) return open_any(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE_OF(flags) return open_any(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* The file a removal or a replacement may free. Its space comes back when this was its last name. */
static void freed(int at, const char *path) {
    struct stat st;
    if (!shared || syscall(SYS_newfstatat, at, path, &st, AT_SYMLINK_NOFOLLOW) != 0) return;
    if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_dev != dir_stat.st_dev) return;
    lock();
    struct file *f = find(st.st_ino);
    if (f) shared->allocated -= f->allocated, f->allocated = 0;
    unlock();
}

int unlinkat(int at, const char *path, int flags) {
    if (!(flags & AT_REMOVEDIR)) freed(at, path);
    int result = (int)syscall(SYS_unlinkat, at, path, flags);
    if (result == 0 && shared) names_changed();
    return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned int flags) {
    freed(to_at, to);
    int result = (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (result == 0 && shared) names_changed();
    return result;
}
int renameat(int from_at, const char *from, int to_at, const char *to) { return renameat2(from_at, from, to_at, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t at) {
    struct stat st;
    if (shared && fd >= 0 && flags & MAP_SHARED && protection & PROT_WRITE && of_fd(fd, &st))
        die("writable shared maps of data files are not modelled");
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, at);
}
void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t at) {
    return mmap(address, length, protection, flags, fd, at);
}

/* The image starts as a copy of what the directory holds. */
static void first_copy(int at, const char *name, const struct stat *st) {
    int from = sys_openat(at, name, O_RDONLY | O_CLOEXEC, 0);
    if (from < 0) die("a file cannot be read");
    int to = image_open(st->st_ino);
    if (syscall(SYS_ftruncate, to, st->st_size) != 0) die("the image cannot be resized");
    copy_range(from, to, 0, st->st_size);
    sys_close(from);
    sys_close(to);
    struct file *f = find_or_add(st->st_ino);
    f->in_image = 1;
    f->allocated = st->st_size;
}

__attribute__((constructor)) static void start(void) {
    const char *value = getenv("CAIRN_SHIM_DIR");
    if (!value) return;
    /* Programs that this one starts are on their own. */
    unsetenv("LD_PRELOAD");
    if (!realpath(value, dir) || stat(dir, &dir_stat) != 0) die("CAIRN_SHIM_DIR is not a directory");
    dir_length = strlen(dir);
    if ((value = getenv("CAIRN_SHIM_ENOSPC_AFTER"))) space = atoll(value);
    if ((value = getenv("CAIRN_SHIM_WRITEBACK"))) writeback = atoi(value);
    if ((value = getenv("CAIRN_SHIM_CONTROL"))) has_control = realpath(value, control) != NULL;
    struct shared *made = (void *)syscall(SYS_mmap, NULL, sizeof *made, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED) die("no shared memory");
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&made->lock, &attributes);
    made->random = (value = getenv("CAIRN_SHIM_SEED")) ? strtoull(value, NULL, 10) | 1 : 88172645463325252ULL;
    if ((value = getenv("CAIRN_SHIM_IMAGE"))) {
        char path[PATH_MAX + 16];
        if (!realpath(value, image)) die("CAIRN_SHIM_IMAGE is not a directory");
        snprintf(path, sizeof path, "%s/inodes", image);
        mkdir(path, 0700);
        image_inodes = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
        snprintf(path, sizeof path, "%s/names", image);
        mkdir(path, 0700);
        image_names = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
        if (image_inodes < 0 || image_names < 0) die("the image's directories cannot be opened");
    }
    shared = made;
    if (image_names >= 0) {
        each_file(dir, first_copy);
        sync_names();
    }
}
