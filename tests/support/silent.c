/* A library for LD_PRELOAD. While the file that the variable SILENT names is there, nothing can be learned of a file that is
 * called self.pem, as where it lies on a file server that does not answer: the call never returns. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int statx(int directory, const char *path, int flags, unsigned mask, struct statx *found)
{
    int (*real)(int, const char *, int, unsigned, struct statx *) = dlsym(RTLD_NEXT, "statx");
    const char *silent = getenv("SILENT");
    while (silent && strstr(path, "self.pem") && access(silent, F_OK) == 0)
        pause();
    return real(directory, path, flags, mask, found);
}
