// SPDX-License-Identifier: GPL-2.0-only
/*
 * For the tests: makes the mistake that fault= names when it is loaded, to see that the debug kernel tells of it. Loading always fails.
 */
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/timer.h>

static char *fault;
module_param(fault, charp, 0);

static DEFINE_MUTEX(one);
static DEFINE_MUTEX(other);
static DEFINE_SPINLOCK(spin);
static LIST_HEAD(list);
static void *lost;

static void order(void)
{
	mutex_lock(&one);
	mutex_lock(&other);
	mutex_unlock(&other);
	mutex_unlock(&one);
	mutex_lock(&other);
	mutex_lock(&one);
	mutex_unlock(&one);
	mutex_unlock(&other);
}

/* Two locks of one class. */
static void recursion(void)
{
	struct mutex *locks[2];
	int i;

	for (i = 0; i < 2; i++) {
		locks[i] = kzalloc(sizeof(struct mutex), GFP_KERNEL);
		if (!locks[i])
			return;
		mutex_init(locks[i]);
	}
	mutex_lock(locks[0]);
	mutex_lock(locks[1]);
	mutex_unlock(locks[1]);
	mutex_unlock(locks[0]);
	kfree(locks[0]);
	kfree(locks[1]);
}

static void on_timer(struct timer_list *timer)
{
	spin_lock(&spin);
	spin_unlock(&spin);
}
static DEFINE_TIMER(timer, on_timer);

static void interrupt(void)
{
	mod_timer(&timer, jiffies);
	while (timer_pending(&timer))
		schedule_timeout_uninterruptible(1);
	timer_delete_sync(&timer);
	/* Without keeping the timer out. */
	spin_lock(&spin);
	spin_unlock(&spin);
}

static void atomic(void)
{
	spin_lock(&spin);
	mutex_lock(&one);
	mutex_unlock(&one);
	spin_unlock(&spin);
}

static void memory(bool freed)
{
	char *volatile block = kmalloc(64, GFP_KERNEL);

	if (!block)
		return;
	if (freed) {
		kfree(block);
		block[8] = 1;
	} else {
		block[64] = 1;
		kfree(block);
	}
}

static void broken_list(void)
{
	static struct list_head first, second;

	list_add(&first, &list);
	first.prev = &first;
	list_add(&second, &list);
}

/* Free with a timer in it that will run. */
static void object(void)
{
	struct timer_list *running = kzalloc(sizeof(*running), GFP_KERNEL);

	if (!running)
		return;
	timer_setup(running, on_timer, 0);
	mod_timer(running, jiffies + 10 * HZ);
	kfree(running);
}

static void leak(void)
{
	int i;

	for (i = 0; i < 8; i++)
		lost = kmalloc(4000, GFP_KERNEL);
	lost = NULL;
}

static int __init faults_init(void)
{
	if (!strcmp(fault, "order"))
		order();
	else if (!strcmp(fault, "recursion"))
		recursion();
	else if (!strcmp(fault, "interrupt"))
		interrupt();
	else if (!strcmp(fault, "atomic"))
		atomic();
	else if (!strcmp(fault, "freed"))
		memory(true);
	else if (!strcmp(fault, "beyond"))
		memory(false);
	else if (!strcmp(fault, "list"))
		broken_list();
	else if (!strcmp(fault, "object"))
		object();
	else if (!strcmp(fault, "leak"))
		leak();
	else
		return -EINVAL;
	return -ECANCELED;
}
module_init(faults_init);

MODULE_DESCRIPTION("Makes mistakes");
MODULE_LICENSE("GPL");
