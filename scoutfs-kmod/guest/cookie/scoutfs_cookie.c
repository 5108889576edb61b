// SPDX-License-Identifier: GPL-2.0-only
/*
 * For the tests: says how often an inode has changed, as NFS servers ask for it and no program can. The answer goes to the kernel's log;
 * loading always fails.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/module.h>
#include <linux/namei.h>
#include <linux/stat.h>

static char *path;
module_param(path, charp, 0);

static int __init cookie_init(void)
{
	struct path found;
	struct kstat stat;
	int error;

	error = kern_path(path, 0, &found);
	if (error)
		return error;
	error = vfs_getattr(&found, &stat, STATX_CHANGE_COOKIE, AT_STATX_SYNC_AS_STAT);
	path_put(&found);
	if (error)
		return error;
	if (!(stat.result_mask & STATX_CHANGE_COOKIE))
		return -ENODATA;
	pr_info("cookie %llu\n", stat.change_cookie);
	return -ECANCELED;
}
module_init(cookie_init);

MODULE_DESCRIPTION("Tells an inode's change cookie");
MODULE_LICENSE("GPL");
