// SPDX-License-Identifier: GPL-2.0-only
/* See helpers.h: one line for each inline function or macro that Rust cannot reach. */
#include "helpers.h"

unsigned int scoutfs_nofs_save(void)
{
	return memalloc_nofs_save();
}

void scoutfs_nofs_restore(unsigned int flags)
{
	memalloc_nofs_restore(flags);
}

struct workqueue_struct *scoutfs_alloc_workqueue(const char *name)
{
	return alloc_workqueue("%s", WQ_MEM_RECLAIM | WQ_UNBOUND, 0, name);
}

struct scoutfs_call {
	struct work_struct work;
	struct completion done;
	void (*run)(void *data);
	void *data;
};

static void scoutfs_make_call(struct work_struct *work)
{
	struct scoutfs_call *call = container_of(work, struct scoutfs_call, work);

	call->run(call->data);
	complete(&call->done);
}

/* Waits until a thread of the queue has made a call. It may wait long for a server, which is no reason for the kernel to complain. */
void scoutfs_call_elsewhere(struct workqueue_struct *queue, void (*run)(void *data), void *data)
{
	struct scoutfs_call call = { .run = run, .data = data };

	init_completion(&call.done);
	INIT_WORK_ONSTACK(&call.work, scoutfs_make_call);
	queue_work(queue, &call.work);
	wait_for_completion_state(&call.done, TASK_IDLE);
	destroy_work_on_stack(&call.work);
}

size_t scoutfs_iov_iter_count(const struct iov_iter *iter)
{
	return iov_iter_count(iter);
}

int scoutfs_current_umask(void)
{
	return current_umask();
}

bool scoutfs_signal_pending(void)
{
	return signal_pending(current);
}

bool scoutfs_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}

unsigned long scoutfs_totalram_pages(void)
{
	return totalram_pages();
}

bool scoutfs_inode_is_new(struct inode *inode)
{
	return inode_state_read_once(inode) & I_NEW;
}

void scoutfs_inode_spin_lock(struct inode *inode)
{
	spin_lock(&inode->i_lock);
}

void scoutfs_inode_spin_unlock(struct inode *inode)
{
	spin_unlock(&inode->i_lock);
}

bool scoutfs_dentry_in_lookup(struct dentry *dentry)
{
	return d_in_lookup(dentry);
}

void scoutfs_mapping_set_large_folios(struct address_space *mapping)
{
	mapping_set_folio_order_range(mapping, 0, SCOUTFS_FOLIO_ORDER);
}

void scoutfs_mapping_set_error(struct address_space *mapping, int error)
{
	mapping_set_error(mapping, error);
}

void scoutfs_sb_start_pagefault(struct super_block *sb)
{
	sb_start_pagefault(sb);
}

void scoutfs_sb_end_pagefault(struct super_block *sb)
{
	sb_end_pagefault(sb);
}

struct mnt_idmap *scoutfs_file_mnt_idmap(const struct file *file)
{
	return file_mnt_idmap(file);
}

/* Neither new nor being freed. */
bool scoutfs_inode_is_in_use(struct inode *inode)
{
	guard(spinlock)(&inode->i_lock);
	return !(inode_state_read(inode) & (I_NEW | I_FREEING | I_WILL_FREE));
}

/* In vfs/handles.rs. */
int scoutfs_encode_fh(struct inode *inode, __u32 *fh, int *max_len, struct inode *parent);
struct dentry *scoutfs_fh_to_dentry(struct super_block *sb, struct fid *fid, int fh_len, int fh_type);
struct dentry *scoutfs_fh_to_parent(struct super_block *sb, struct fid *fid, int fh_len, int fh_type);
struct dentry *scoutfs_get_parent(struct dentry *child);
int scoutfs_commit_metadata(struct inode *inode);

static const struct export_operations scoutfs_export_operations = {
	.encode_fh = scoutfs_encode_fh,
	.fh_to_dentry = scoutfs_fh_to_dentry,
	.fh_to_parent = scoutfs_fh_to_parent,
	.get_parent = scoutfs_get_parent,
	.commit_metadata = scoutfs_commit_metadata,
	/* Between attributes before and after an operation other nodes may change them. */
	.flags = EXPORT_OP_NOWCC | EXPORT_OP_NOATOMIC_ATTR,
};

void scoutfs_set_export_operations(struct super_block *sb)
{
	sb->s_export_op = &scoutfs_export_operations;
}

struct scoutfs_file_lock scoutfs_file_lock(const struct file_lock *lock)
{
	return (struct scoutfs_file_lock) {
		.owner = lock->c.flc_owner,
		.start = lock->fl_start,
		.end = lock->fl_end,
		.flags = lock->c.flc_flags,
		.pid = lock->c.flc_pid,
		.type = lock->c.flc_type,
	};
}

void scoutfs_set_file_lock(struct file_lock *lock, const struct scoutfs_file_lock *to)
{
	lock->fl_start = to->start;
	lock->fl_end = to->end;
	lock->c.flc_pid = to->pid;
	lock->c.flc_type = to->type;
}

void scoutfs_file_lock_wait_not(struct file_lock *lock)
{
	lock->c.flc_flags &= ~FL_SLEEP;
}

struct net *scoutfs_get_net(struct net *net)
{
	return get_net(net);
}

void scoutfs_put_net(struct net *net)
{
	put_net(net);
}

int scoutfs_socket_create(struct net *net, int family, struct socket **sock)
{
	return sock_create_kern(net, family, SOCK_STREAM, IPPROTO_TCP, sock);
}

void scoutfs_socket_tune(struct socket *sock, int idle_secs, int interval_secs, int probes, int user_timeout_ms)
{
	sock->sk->sk_allocation = GFP_NOFS;
	sock->sk->sk_use_task_frag = false;
	tcp_sock_set_nodelay(sock->sk);
	tcp_sock_set_keepidle(sock->sk, idle_secs);
	tcp_sock_set_keepintvl(sock->sk, interval_secs);
	tcp_sock_set_keepcnt(sock->sk, probes);
	tcp_sock_set_user_timeout(sock->sk, user_timeout_ms);
	sock_set_keepalive(sock->sk);
}

void scoutfs_socket_reuse_address(struct socket *sock)
{
	sock_set_reuseaddr(sock->sk);
}

/* 0: none. */
void scoutfs_socket_send_timeout(struct socket *sock, unsigned int ms)
{
	sock->sk->sk_sndtimeo = ms ? msecs_to_jiffies(ms) : MAX_SCHEDULE_TIMEOUT;
}

struct page *scoutfs_virt_to_page(const void *address)
{
	return virt_to_page(address);
}

loff_t scoutfs_bdev_bytes(struct block_device *bdev)
{
	return bdev_nr_bytes(bdev);
}

bool scoutfs_bdev_read_only(struct block_device *bdev)
{
	return bdev_read_only(bdev);
}

fgf_t scoutfs_fgp_write(size_t bytes)
{
	return FGP_LOCK | FGP_CREAT | FGP_ACCESSED | fgf_set_order(bytes);
}

void *scoutfs_folio_address(struct folio *folio)
{
	return folio_address(folio);
}

loff_t scoutfs_folio_pos(struct folio *folio)
{
	return folio_pos(folio);
}

size_t scoutfs_folio_size(struct folio *folio)
{
	return folio_size(folio);
}

void scoutfs_folio_lock(struct folio *folio)
{
	folio_lock(folio);
}

void scoutfs_folio_put(struct folio *folio)
{
	folio_put(folio);
}

bool scoutfs_folio_uptodate(struct folio *folio)
{
	return folio_test_uptodate(folio);
}

bool scoutfs_folio_writeback(struct folio *folio)
{
	return folio_test_writeback(folio);
}

void scoutfs_folio_mark_uptodate(struct folio *folio)
{
	folio_mark_uptodate(folio);
}

bool scoutfs_folio_dirty(struct folio *folio)
{
	return folio_test_dirty(folio);
}

bool scoutfs_folio_maybe_pinned(struct folio *folio)
{
	return folio_maybe_dma_pinned(folio);
}

bool scoutfs_folio_checked(struct folio *folio)
{
	return folio_test_checked(folio);
}

void scoutfs_folio_set_checked(struct folio *folio)
{
	folio_set_checked(folio);
}

void scoutfs_folio_clear_checked(struct folio *folio)
{
	folio_clear_checked(folio);
}

bool scoutfs_folio_trylock(struct folio *folio)
{
	return folio_trylock(folio);
}

bool scoutfs_folio_has_private(struct folio *folio)
{
	return folio_test_private(folio);
}

void *scoutfs_folio_private(struct folio *folio)
{
	return folio_get_private(folio);
}

void scoutfs_folio_attach_private(struct folio *folio, void *data)
{
	folio_attach_private(folio, data);
}

void scoutfs_folio_change_private(struct folio *folio, void *data)
{
	folio_change_private(folio, data);
}

void scoutfs_folio_detach_private(struct folio *folio)
{
	folio_detach_private(folio);
}

unsigned int scoutfs_get_dirty_folios(struct address_space *mapping, pgoff_t *start, pgoff_t end, struct folio_batch *batch)
{
	return filemap_get_folios_tag(mapping, start, end, PAGECACHE_TAG_DIRTY, batch);
}

bool scoutfs_mapping_mapped(struct address_space *mapping)
{
	return mapping_mapped(mapping);
}

bool scoutfs_mapping_is_dirty(struct address_space *mapping)
{
	return mapping_tagged(mapping, PAGECACHE_TAG_DIRTY) || mapping_tagged(mapping, PAGECACHE_TAG_WRITEBACK);
}

struct address_space *scoutfs_folio_mapping(struct folio *folio)
{
	return folio->mapping;
}

struct folio *scoutfs_page_folio(struct page *page)
{
	return page_folio(page);
}

struct folio *scoutfs_readahead_folio(struct readahead_control *rac)
{
	return readahead_folio(rac);
}
