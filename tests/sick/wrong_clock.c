/* A wall clock that is off by the seconds in the file that WRONG_CLOCK names, for the programs that preload this. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time)
{
    long result = syscall(SYS_clock_gettime, clock, time);
    const char *path = getenv("WRONG_CLOCK");
    char text[24] = {0};
    if (result != 0 || clock != CLOCK_REALTIME || path == NULL)
        return (int)result;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) > 0)
            time->tv_sec += atol(text);
        close(file);
    }
    return 0;
}
