/* fsync() that copies what it makes durable to the folder $TIPSERVE_TEST_DURABLE: a file's bytes to
   f-IDENTITY, a folder's entries (identity, kind and name, each ended by a NUL) to d-IDENTITY. What
   a power failure would leave can be put together from that: for LD_PRELOAD. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Inode and time of birth: a file system gives the inode of what was removed to the next file, and
   the old entry, whose removal may not be durable yet, must not come back with the new contents. */
int identity(int folder, const char *name, char *into, size_t size) {
    struct statx about;
    int flags = AT_SYMLINK_NOFOLLOW | (*name == 0 ? AT_EMPTY_PATH : 0);
    if (statx(folder, name, flags, STATX_INO | STATX_BTIME, &about) != 0) return -1;
    if (!(about.stx_mask & STATX_BTIME)) about.stx_btime.tv_sec = about.stx_btime.tv_nsec = 0;
    snprintf(into, size, "%llu-%lld-%u", (unsigned long long)about.stx_ino,
             (long long)about.stx_btime.tv_sec, about.stx_btime.tv_nsec);
    return 0;
}

static int copy_file(int from, FILE *to) {
    char bytes[65536];
    off_t at = 0;
    ssize_t count;
    while ((count = pread(from, bytes, sizeof bytes, at)) > 0) {
        if (fwrite(bytes, 1, count, to) != (size_t)count) return -1;
        at += count;
    }
    return count == 0 ? 0 : -1;
}

static int copy_folder(int from, FILE *to) {
    int again = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = again < 0 ? NULL : fdopendir(again);
    struct dirent *entry;
    if (folder == NULL) return -1;
    while ((entry = readdir(folder)) != NULL) {
        int kind = entry->d_type == DT_DIR ? 'd' : 'f';
        char id[96];
        /* It may have been removed since it was read. */
        if (identity(from, entry->d_name, id, sizeof id) != 0) continue;
        fprintf(to, "%s %c %s%c", id, kind, entry->d_name, 0);
    }
    closedir(folder);
    return 0;
}

/* A write-only descriptor is read through /proc. */
static int readable(int fd) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static int made_durable(int fd) {
    const char *durable = getenv("TIPSERVE_TEST_DURABLE");
    char temporary[4096], path[4096], id[96];
    struct stat about;
    int from, failed;
    FILE *to;
    if (durable == NULL || fstat(fd, &about) != 0 || identity(fd, "", id, sizeof id) != 0) return 0;
    from = readable(fd);
    snprintf(temporary, sizeof temporary, "%s/t-%ld", durable, (long)syscall(SYS_gettid));
    snprintf(path, sizeof path, "%s/%c-%s", durable, S_ISDIR(about.st_mode) ? 'd' : 'f', id);
    to = from < 0 ? NULL : fopen(temporary, "wb");
    if (to == NULL) {
        errno = EIO;
        return -1;
    }
    failed = S_ISDIR(about.st_mode) ? copy_folder(from, to) : copy_file(from, to);
    close(from);
    if (fclose(to) != 0 || failed != 0 || rename(temporary, path) != 0) {
        errno = EIO;
        return -1;
    }
    return 0;
}

int fsync(int fd) { return made_durable(fd); }

int fdatasync(int fd) { return made_durable(fd); }
