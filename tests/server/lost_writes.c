/* fsync() that copies what it makes durable to the folder $TIPSERVE_TEST_DURABLE: a file's bytes to
   f-INODE, a folder's entries (inode, kind and name, each ended by a NUL) to d-INODE. What a power
   failure would leave can be put together from that: for LD_PRELOAD. */
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
        fprintf(to, "%llu %c %s%c", (unsigned long long)entry->d_ino, kind, entry->d_name, 0);
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
    char temporary[4096], path[4096];
    struct stat about;
    int from, failed;
    FILE *to;
    if (durable == NULL || fstat(fd, &about) != 0) return 0;
    from = readable(fd);
    snprintf(temporary, sizeof temporary, "%s/t-%ld", durable, (long)syscall(SYS_gettid));
    snprintf(path, sizeof path, "%s/%c-%llu", durable, S_ISDIR(about.st_mode) ? 'd' : 'f',
             (unsigned long long)about.st_ino);
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
