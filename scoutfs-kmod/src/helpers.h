/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What Rust needs of the kernel and the kernel's bindings lack: headers for bindgen, and functions of one line each for what is
 * inline or a macro there. No logic.
 */
#ifndef SCOUTFS_HELPERS_H
#define SCOUTFS_HELPERS_H

#include <linux/blkdev.h>
#include <linux/crc32.h>
#include <linux/exportfs.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/filelock.h>
#include <linux/folio_batch.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_struct.h>
#include <linux/mm.h>
#include <linux/namei.h>
#include <linux/pagemap.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/statfs.h>
#include <linux/tcp.h>
#include <linux/uio.h>
#include <linux/workqueue.h>
#include <linux/writeback.h>
#include <net/net_namespace.h>
#include <net/sock.h>

/* Macros with casts, which bindgen does not evaluate. */
static const gfp_t SCOUTFS_GFP_NOFS = GFP_NOFS | __GFP_NOWARN;
static const gfp_t SCOUTFS_GFP_NOIO = GFP_NOIO;
static const gfp_t SCOUTFS_GFP_FS = __GFP_FS;
static const fmode_t SCOUTFS_FMODE_WRITE = FMODE_WRITE;
static const fmode_t SCOUTFS_FMODE_READ = FMODE_READ;
static const fmode_t SCOUTFS_FMODE_CREATED = FMODE_CREATED;
static const fmode_t SCOUTFS_FMODE_CAN_ODIRECT = FMODE_CAN_ODIRECT;
static const unsigned int SCOUTFS_FL_SLEEP = FL_SLEEP;
static const int SCOUTFS_F_GETLK = F_GETLK;
static const int SCOUTFS_F_CANCELLK = F_CANCELLK;
static const unsigned int SCOUTFS_LOOKUP_RCU = LOOKUP_RCU;
static const int SCOUTFS_IOCB_APPEND = (__force int)IOCB_APPEND;
static const int SCOUTFS_IOCB_DSYNC = (__force int)IOCB_DSYNC;
static const fgf_t SCOUTFS_FGP_LOCK = FGP_LOCK;
static const gfp_t SCOUTFS_GFP_PAGE = GFP_NOFS | __GFP_NOWARN;
/* Its pages have two bits each in a word: see kobj/changed.rs. */
static const unsigned int SCOUTFS_FOLIO_ORDER = 5;
static const unsigned long SCOUTFS_SB_POSIXACL = SB_POSIXACL;
static const unsigned long SCOUTFS_SB_RDONLY = SB_RDONLY;
static const unsigned long SCOUTFS_SB_NOSEC = SB_NOSEC;
static const unsigned int SCOUTFS_WQ_FLAG_EXCLUSIVE = WQ_FLAG_EXCLUSIVE;
static const unsigned int SCOUTFS_TASK_KILLABLE = TASK_KILLABLE;

unsigned int scoutfs_nofs_save(void);
struct workqueue_struct *scoutfs_alloc_workqueue(const char *name);
void scoutfs_call_elsewhere(struct workqueue_struct *queue, void (*run)(void *), void *data);
void scoutfs_nofs_restore(unsigned int flags);

size_t scoutfs_iov_iter_count(const struct iov_iter *iter);
int scoutfs_current_umask(void);
bool scoutfs_signal_pending(void);
bool scoutfs_fatal_signal_pending(void);
unsigned long scoutfs_totalram_pages(void);
bool scoutfs_inode_is_new(struct inode *inode);
void scoutfs_inode_spin_lock(struct inode *inode);
void scoutfs_inode_spin_unlock(struct inode *inode);
bool scoutfs_dentry_in_lookup(struct dentry *dentry);
void scoutfs_mapping_set_large_folios(struct address_space *mapping);
void scoutfs_mapping_set_error(struct address_space *mapping, int error);
void scoutfs_sb_start_pagefault(struct super_block *sb);
void scoutfs_sb_end_pagefault(struct super_block *sb);
struct mnt_idmap *scoutfs_file_mnt_idmap(const struct file *file);

bool scoutfs_inode_is_in_use(struct inode *inode);

void scoutfs_set_export_operations(struct super_block *sb);

/* What is of interest in a struct file_lock. */
struct scoutfs_file_lock {
	const void *owner;
	loff_t start;
	loff_t end;
	unsigned int flags;
	pid_t pid;
	unsigned char type;
};
struct scoutfs_file_lock scoutfs_file_lock(const struct file_lock *lock);
void scoutfs_set_file_lock(struct file_lock *lock, const struct scoutfs_file_lock *to);
void scoutfs_file_lock_wait_not(struct file_lock *lock);

struct net *scoutfs_get_net(struct net *net);
void scoutfs_put_net(struct net *net);
int scoutfs_socket_create(struct net *net, int family, struct socket **sock);
void scoutfs_socket_tune(struct socket *sock, int idle_secs, int interval_secs, int probes, int user_timeout_ms);
void scoutfs_socket_reuse_address(struct socket *sock);
void scoutfs_socket_send_timeout(struct socket *sock, unsigned int ms);

struct page *scoutfs_virt_to_page(const void *address);
loff_t scoutfs_bdev_bytes(struct block_device *bdev);
bool scoutfs_bdev_read_only(struct block_device *bdev);

fgf_t scoutfs_fgp_write(size_t bytes);
void *scoutfs_folio_address(struct folio *folio);
loff_t scoutfs_folio_pos(struct folio *folio);
size_t scoutfs_folio_size(struct folio *folio);
void scoutfs_folio_lock(struct folio *folio);
void scoutfs_folio_put(struct folio *folio);
bool scoutfs_folio_uptodate(struct folio *folio);
bool scoutfs_folio_writeback(struct folio *folio);
void scoutfs_folio_mark_uptodate(struct folio *folio);
bool scoutfs_folio_dirty(struct folio *folio);
bool scoutfs_folio_maybe_pinned(struct folio *folio);
bool scoutfs_folio_checked(struct folio *folio);
void scoutfs_folio_set_checked(struct folio *folio);
void scoutfs_folio_clear_checked(struct folio *folio);
bool scoutfs_folio_trylock(struct folio *folio);
bool scoutfs_folio_has_private(struct folio *folio);
void *scoutfs_folio_private(struct folio *folio);
void scoutfs_folio_attach_private(struct folio *folio, void *data);
void scoutfs_folio_change_private(struct folio *folio, void *data);
void scoutfs_folio_detach_private(struct folio *folio);
unsigned int scoutfs_get_dirty_folios(struct address_space *mapping, pgoff_t *start, pgoff_t end, struct folio_batch *batch);
bool scoutfs_mapping_mapped(struct address_space *mapping);
bool scoutfs_mapping_is_dirty(struct address_space *mapping);
struct address_space *scoutfs_folio_mapping(struct folio *folio);
struct folio *scoutfs_page_folio(struct page *page);
struct folio *scoutfs_readahead_folio(struct readahead_control *rac);

#endif
