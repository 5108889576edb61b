// SPDX-License-Identifier: GPL-2.0-only
/*
 * For the tests: mounts a directory at another with owners and groups mapped, which not every mount(8) can. idmap FIRST SEEN COUNT SOURCE
 * TARGET: who is FIRST in SOURCE is seen as SEEN in TARGET, and so the next ones, COUNT in all.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

/* Writes a mapping of a process's user namespace. */
static void map(pid_t pid, const char *which, char **numbers)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, which);
	file = fopen(path, "w");
	if (!file || fprintf(file, "%s %s %s\n", numbers[0], numbers[1], numbers[2]) < 0 || fclose(file))
		err(1, "%s", path);
}

int main(int argc, char **argv)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP };
	int ready[2], tree, namespace;
	char path[64], byte;
	pid_t pid;

	if (argc != 6)
		errx(1, "FIRST SEEN COUNT SOURCE TARGET");
	/* A process with a user namespace of its own, which holds the mapping. */
	if (pipe(ready) || (pid = fork()) < 0)
		err(1, "a process");
	if (pid == 0) {
		if (unshare(CLONE_NEWUSER) || write(ready[1], "", 1) != 1)
			err(1, "a user namespace");
		pause();
		_exit(0);
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		errx(1, "there is no user namespace");
	map(pid, "uid_map", argv + 1);
	map(pid, "gid_map", argv + 1);
	snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
	namespace = open(path, O_RDONLY | O_CLOEXEC);
	if (namespace < 0)
		err(1, "%s", path);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);

	tree = open_tree(AT_FDCWD, argv[4], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (tree < 0)
		err(1, "%s", argv[4]);
	attr.userns_fd = namespace;
	if (mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)))
		err(1, "mapping %s", argv[4]);
	if (move_mount(tree, "", AT_FDCWD, argv[5], MOVE_MOUNT_F_EMPTY_PATH))
		err(1, "%s", argv[5]);
	return 0;
}
