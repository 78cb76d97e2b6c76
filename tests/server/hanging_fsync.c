/* fsync() that hangs for as long as the file $TIPSERVE_TEST_HANG exists, after
   making the file $TIPSERVE_TEST_HANG.waiting: for LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void hang(void) {
    const char *while_there = getenv("TIPSERVE_TEST_HANG");
    char waiting[4096];
    if (while_there == NULL || access(while_there, F_OK) != 0) return;
    snprintf(waiting, sizeof waiting, "%s.waiting", while_there);
    close(open(waiting, O_CREAT | O_WRONLY, 0600));
    while (access(while_there, F_OK) == 0) usleep(10000);
}

int fsync(int fd) {
    static int (*real)(int);
    if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    hang();
    return real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    hang();
    return real(fd);
}
