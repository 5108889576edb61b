// SPDX-License-Identifier: GPL-2.0-only
//! Each kind of issue has a test that plants it.
//!
//! A kind without a test in the table, or whose test does not make `check` tell it, fails here. That the test expects exactly
//! this issue, and names those that must come with it, is what the test itself is for.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::thread_local;

use super::super::{Issue, IssueKind};
use super::{fs_items, structure};

thread_local! {
    /// The kinds of issues that were told in this thread.
    static SEEN: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
}

/// Notes the issues that a planting test got.
pub fn saw(issues: &[Issue]) {
    SEEN.with_borrow_mut(|seen| seen.extend(issues.iter().map(|issue| issue.kind.name())));
}

/// For each kind of issue, by the name of its variant, the test that plants it.
const PLANTED: &[(&str, fn())] = &[
    ("SuperCopy", structure::a_super_block_copy_of_another_format_is_found),
    ("SuperDiffers", structure::super_block_copies_that_disagree_are_found),
    ("SuperTie", structure::two_super_blocks_that_claim_to_be_one_state_are_found),
    ("QuorumChecksum", structure::damaged_quorum_blocks_are_found_unless_only_one_is_torn),
    ("QuorumIdentity", structure::damaged_quorum_blocks_are_found_unless_only_one_is_torn),
    ("QuorumState", structure::damaged_quorum_blocks_are_found_unless_only_one_is_torn),
    ("QuorumTerms", structure::damaged_quorum_blocks_are_found_unless_only_one_is_torn),
    ("Slot", structure::a_record_that_the_newest_builds_on_must_be_there),
    ("Io", structure::what_the_device_cannot_read_is_found),
    ("SlotSpace", structure::records_of_space_that_contradict_each_other_are_found),
    ("TakenNotGiven", structure::a_hand_over_belongs_to_its_taker_once_that_names_it),
    ("ServerTookNotGiven", structure::a_hand_over_to_the_server_belongs_to_it_once_it_was_taken),
    ("Node", structure::a_damaged_node_is_found_and_nothing_is_guessed_of_what_it_hid),
    ("List", structure::a_broken_list_of_space_is_found),
    ("VersionNotGivenOut", fs_items::a_version_that_was_never_given_out_is_found),
    ("VersionOutsideLog", fs_items::a_version_that_a_log_tree_does_not_promise_is_found),
    ("UnknownKey", fs_items::keys_that_no_item_has_are_found),
    ("ValueLength", fs_items::impossible_fields_of_an_inode_are_found),
    ("TombstoneCount", structure::wrong_counters_of_the_super_block_are_found),
    ("OwnedTwice", structure::blocks_that_are_used_and_free_are_found),
    ("OutsideZones", fs_items::extents_that_cannot_be_are_found),
    ("NoOwner", structure::lost_blocks_are_found),
    ("ZoneOfTwoKinds", structure::a_zone_of_metadata_and_data_is_found),
    ("MetaZoneCount", structure::wrong_counters_of_the_super_block_are_found),
    ("TakenOver", structure::what_a_leader_took_over_must_have_been_free),
    ("Member", structure::impossible_items_of_the_server_are_found),
    ("UnknownSpaceKind", structure::impossible_items_of_the_server_are_found),
    ("HandOverNumber", structure::a_hand_over_belongs_to_its_taker_once_that_names_it),
    ("WorkEntry", structure::a_working_set_of_anything_but_free_metadata_is_found),
    ("NoRoot", fs_items::a_missing_root_is_found),
    ("NoInode", fs_items::items_without_an_inode_are_found),
    ("InoNotGivenOut", fs_items::an_inode_number_that_was_never_given_out_is_found),
    ("Mode", fs_items::an_unknown_type_of_file_is_found),
    ("InodeFlags", fs_items::impossible_fields_of_an_inode_are_found),
    ("Size", fs_items::impossible_fields_of_an_inode_are_found),
    ("Nanoseconds", fs_items::impossible_fields_of_an_inode_are_found),
    ("SeqAboveVersion", fs_items::a_seq_that_its_write_cannot_have_stored_is_found),
    ("DataNotRegular", fs_items::data_of_what_is_no_file_are_found),
    ("NoIndexEntry", fs_items::an_inode_that_the_index_lacks_is_found),
    ("IndexSeq", fs_items::an_index_entry_without_its_inode_is_found),
    ("IndexWithoutInode", fs_items::an_index_entry_without_its_inode_is_found),
    ("NoOrphanItem", fs_items::an_unlinked_inode_that_no_scan_would_find_is_found),
    ("OrphanHasLinks", fs_items::an_orphan_that_has_links_is_found),
    ("OrphanWithoutInode", fs_items::an_orphan_that_has_links_is_found),
    ("LinkCount", fs_items::a_wrong_link_count_is_found),
    ("BlockCounts", fs_items::wrong_block_counts_are_found),
    ("InodeCount", structure::wrong_counters_of_the_super_block_are_found),
    ("DirSize", fs_items::a_wrong_size_of_a_directory_is_found),
    ("OrphanNotEmpty", fs_items::a_deleted_directory_that_has_entries_is_found),
    ("NotDirectory", fs_items::entries_of_what_is_no_directory_are_found),
    ("DirEntries", fs_items::a_directory_with_two_names_is_found),
    ("Parent", fs_items::a_wrong_parent_is_found),
    ("ParentNotDirectory", fs_items::a_wrong_parent_is_found),
    ("DirLoop", fs_items::directories_that_contain_each_other_are_found_once),
    ("Name", fs_items::names_that_no_entry_can_have_are_found),
    ("NameHash", fs_items::a_wrong_hash_of_a_name_is_found),
    ("Position", fs_items::a_position_that_will_be_used_again_is_found),
    ("FileType", fs_items::an_unknown_file_type_in_an_entry_is_found),
    ("EntryType", fs_items::an_entry_of_another_type_than_its_inode_is_found),
    ("DuplicateName", fs_items::two_entries_of_one_name_are_found),
    ("NoReaddir", fs_items::a_missing_entry_by_position_is_found),
    ("ReaddirDiffers", fs_items::entries_that_name_different_inodes_are_found),
    ("NoBackref", fs_items::a_missing_back_reference_is_found),
    ("NoDirent", fs_items::a_missing_entry_by_name_is_found),
    ("BackrefNoDirent", fs_items::a_missing_entry_by_name_is_found),
    ("NoSymlink", fs_items::a_symbolic_link_without_target_is_found),
    ("NotSymlink", fs_items::a_symbolic_link_without_target_is_found),
    ("SymlinkLength", fs_items::a_symbolic_link_without_target_is_found),
    ("XattrHeader", fs_items::an_attribute_with_a_wrong_header_hash_or_id_is_found),
    ("XattrPart", fs_items::an_incomplete_attribute_is_found),
    ("XattrIncomplete", fs_items::an_incomplete_attribute_is_found),
    ("XattrId", fs_items::an_attribute_with_a_wrong_header_hash_or_id_is_found),
    ("DuplicateXattr", fs_items::an_attribute_with_a_wrong_header_hash_or_id_is_found),
    ("XattrName", fs_items::names_that_no_attribute_can_have_are_found),
    ("NoSearchEntry", fs_items::an_attribute_that_the_search_index_lacks_is_found),
    ("SearchNoXattr", fs_items::a_search_entry_without_its_attribute_is_found),
    ("Acl", fs_items::an_access_list_that_is_none_is_found),
    ("AclMode", fs_items::an_access_list_that_contradicts_the_mode_or_says_no_more_is_found),
    ("AclMinimal", fs_items::an_access_list_that_contradicts_the_mode_or_says_no_more_is_found),
    ("AclFileType", fs_items::a_list_of_what_has_none_of_its_kind_is_found),
    ("ExtentLength", fs_items::extents_that_cannot_be_are_found),
    ("ExtentFlags", fs_items::extents_that_cannot_be_are_found),
    ("ExtentOverlap", fs_items::extents_that_overlap_in_the_file_are_found),
];

#[test]
fn each_kind_of_issue_has_a_test_that_plants_it() {
    for name in IssueKind::NAMES {
        let Some((_, test)) = PLANTED.iter().find(|(planted, _)| planted == name) else {
            panic!("no test plants {name}: write one, and add it to the table");
        };
        SEEN.take();
        test();
        assert!(SEEN.take().contains(name), "the test of {name} does not plant it");
    }
    assert_eq!(PLANTED.len(), IssueKind::NAMES.len(), "a row for what is no kind of issue");
}
