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

size_t scoutfs_iov_iter_count(const struct iov_iter *iter)
{
	return iov_iter_count(iter);
}

int scoutfs_current_umask(void)
{
	return current_umask();
}

bool scoutfs_inode_is_new(struct inode *inode)
{
	return inode_state_read_once(inode) & I_NEW;
}

void scoutfs_mapping_set_large_folios(struct address_space *mapping)
{
	mapping_set_large_folios(mapping);
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

void scoutfs_folio_mark_uptodate(struct folio *folio)
{
	folio_mark_uptodate(folio);
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
