/* A module of the user database whose server never answers: nsswitch.conf calls it `hangs`. */
#include <grp.h>
#include <nss.h>
#include <pwd.h>
#include <unistd.h>

static enum nss_status hang(void)
{
    for (;;)
        pause();
}

enum nss_status _nss_hangs_getpwnam_r(const char *name, struct passwd *user, char *buffer, size_t size, int *error)
{
    return hang();
}

enum nss_status _nss_hangs_getpwuid_r(uid_t uid, struct passwd *user, char *buffer, size_t size, int *error)
{
    return hang();
}

enum nss_status _nss_hangs_getgrnam_r(const char *name, struct group *group, char *buffer, size_t size, int *error)
{
    return hang();
}

enum nss_status _nss_hangs_initgroups_dyn(const char *user, gid_t first, long *start, long *size, gid_t **groups,
                                          long limit, int *error)
{
    return hang();
}
