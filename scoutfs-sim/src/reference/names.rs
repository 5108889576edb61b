// SPDX-License-Identifier: GPL-2.0-only
//! The filesystem in memory: inodes, and the calls that work on names. Contents of files are in `data`, attributes in `attrs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use scoutfs_format::item::ROOT_INO;

use super::acl;
use super::call::{Data, Outcome, Place, Target, errno::*};
use super::node::{Content, Name, Node};

/// What is not the same for all who carry out calls.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The kernel is between the program and the filesystem, and has its own opinion on some calls.
    pub kernel: bool,
    /// Of all who make something.
    pub umask: u32,
    /// Owner of what is made.
    pub uid: u32,
    /// Group of what is made.
    pub gid: u32,
}

/// All inodes by number. Those that a call does not change are shared with older states.
pub type Nodes = BTreeMap<u64, Arc<Node>>;

/// The filesystem in memory.
#[derive(Clone)]
pub struct Reference {
    /// See there.
    pub rules: Rules,
    /// All inodes that have a name or are open.
    pub nodes: Nodes,
    /// Open files.
    pub open: Vec<u64>,
    /// The inodes that the last call changed; and whether it changed their contents.
    pub touched: BTreeMap<u64, bool>,
    /// All inode numbers that were ever seen: none is used twice.
    used: BTreeSet<u64>,
}

impl Reference {
    /// A new filesystem, whose root is as a look at it has shown.
    pub fn new(rules: Rules, root: super::node::Seen) -> Self {
        let root = Arc::new(Node { seen: root, blocks: BTreeMap::new() });
        Reference {
            rules,
            nodes: BTreeMap::from([(ROOT_INO, root)]),
            open: vec![],
            touched: BTreeMap::new(),
            used: BTreeSet::from([ROOT_INO]),
        }
    }

    /// An inode number that was never seen.
    pub fn unused(&self) -> u64 {
        self.used.last().map_or(ROOT_INO, |last| last + 1)
    }

    /// An inode that is there.
    pub fn node(&self, ino: u64) -> &Node {
        &self.nodes[&ino]
    }

    /// An inode that is there, to be changed; not noted as touched.
    pub(super) fn node_mut(&mut self, ino: u64) -> &mut Node {
        Arc::make_mut(self.nodes.get_mut(&ino).expect("an inode that is there"))
    }

    /// The call changes this inode, and perhaps its contents.
    pub(super) fn touch(&mut self, ino: u64, contents: bool) -> &mut Node {
        *self.touched.entry(ino).or_default() |= contents;
        self.node_mut(ino)
    }

    /// What a name stands for.
    pub fn find(&self, (dir, name): &Place) -> Option<u64> {
        match &self.node(*dir).seen.content {
            Content::Dir(entries) => entries.iter().find(|(n, _)| n == name).map(|(_, ino)| *ino),
            _ => None,
        }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self, ino: u64) -> bool {
        self.node(ino).is_dir()
    }

    fn entries(&self, dir: u64) -> &[(Name, u64)] {
        match &self.node(dir).seen.content {
            Content::Dir(entries) => entries,
            _ => &[],
        }
    }

    /// The names that lead to an inode from the root, if it has some.
    pub fn path(&self, ino: u64) -> Option<Vec<&Name>> {
        let mut at = ino;
        let mut path = vec![];
        while at != ROOT_INO {
            let (parent, name) = self.nodes.keys().find_map(|dir| {
                let entry = self.entries(*dir).iter().find(|(_, child)| *child == at)?;
                Some((*dir, &entry.0))
            })?;
            path.push(name);
            at = parent;
        }
        path.reverse();
        Some(path)
    }

    fn add(&mut self, (dir, name): &Place, ino: u64) {
        let is_dir = self.is_dir(ino);
        let node = self.touch(*dir, true);
        node.seen.stat.size += name.0.len() as u64;
        node.seen.stat.nlink += u32::from(is_dir);
        if let Content::Dir(entries) = &mut node.seen.content {
            entries.push((name.clone(), ino));
        }
    }

    fn remove(&mut self, place: &Place) {
        let is_dir = self.find(place).is_some_and(|ino| self.is_dir(ino));
        let (dir, name) = place;
        let node = self.touch(*dir, true);
        node.seen.stat.size -= name.0.len() as u64;
        node.seen.stat.nlink -= u32::from(is_dir);
        if let Content::Dir(entries) = &mut node.seen.content {
            entries.retain(|(n, _)| n != name);
        }
    }

    fn drop_link(&mut self, ino: u64) {
        let stat = &mut self.touch(ino, false).seen.stat;
        let is_dir = stat.mode & 0o170000 == 0o040000;
        stat.nlink = if is_dir { 0 } else { stat.nlink - 1 };
        self.reap(ino);
    }

    /// An inode without a name lives as long as it is open.
    pub(super) fn reap(&mut self, ino: u64) {
        if self.node(ino).seen.stat.nlink == 0 && !self.open.contains(&ino) {
            self.nodes.remove(&ino);
        }
    }

    /// Forgets all that lives only because it is open: nothing is open any more.
    pub fn close_all(&mut self) {
        self.open.clear();
        self.nodes.retain(|_, node| node.seen.stat.nlink > 0);
    }

    fn is_above(&self, upper: u64, lower: u64) -> bool {
        upper == lower
            || self.entries(upper).iter().any(|(_, ino)| self.is_dir(*ino) && self.is_above(*ino, lower))
    }

    /// What is made in a directory: its number comes from the filesystem under test.
    pub(super) fn make(
        &mut self,
        place: &Place,
        mode: u32,
        rdev: u64,
        content: Content,
        made: Option<u64>,
    ) -> Outcome<u64> {
        if self.find(place).is_some() {
            return Err(EEXIST);
        }
        let ino = made.expect("a name that is free can be given to something new");
        assert!(self.used.insert(ino), "the inode number {ino} was used before");
        let parent = self.node(place.0);
        let stat = &parent.seen.stat;
        let inherits = stat.mode & 0o2000 != 0;
        let gid = if inherits { stat.gid } else { self.rules.gid };
        let is_dir = matches!(content, Content::Dir(_));
        let (mode, xattrs) = match &content {
            Content::Link(_) => (mode, BTreeMap::new()),
            _ => acl::inherit(&parent.seen.xattrs, mode, self.rules.umask, is_dir),
        };
        let mode = if inherits && is_dir { mode | 0o2000 } else { mode };
        let node = Node::new(mode, self.rules.uid, gid, rdev, xattrs, content);
        self.nodes.insert(ino, Arc::new(node));
        self.touched.insert(ino, true);
        self.add(place, ino);
        Ok(ino)
    }

    pub(super) fn mkdir(&mut self, place: &Place, mode: u32, made: Option<u64>) -> Outcome<u64> {
        // The kernel's mkdir takes permissions and the sticky bit.
        let mode = if self.rules.kernel { mode & 0o1777 } else { mode };
        self.make(place, 0o040000 | mode, 0, Content::Dir(vec![]), made)
    }

    pub(super) fn tmpfile(&mut self, place: &Place, data: Data, made: Option<u64>) -> Outcome<u64> {
        let ino = self.make(place, 0o100644, 0, Content::File(vec![]), made)?;
        self.write(ino, 0, &data.bytes()).map(|_| ino)
    }

    pub(super) fn link(&mut self, ino: u64, place: &Place) -> Outcome<()> {
        if self.rules.kernel && self.find(place).is_some() {
            return Err(EEXIST);
        }
        if self.is_dir(ino) {
            return Err(EPERM);
        }
        if self.find(place).is_some() {
            return Err(EEXIST);
        }
        if self.node(ino).seen.stat.nlink == 0 {
            return Err(ENOENT);
        }
        self.touch(ino, false).seen.stat.nlink += 1;
        self.add(place, ino);
        Ok(())
    }

    pub(super) fn unlink(&mut self, place: &Place) -> Outcome<()> {
        let ino = self.find(place).ok_or(ENOENT)?;
        if self.is_dir(ino) {
            return Err(EISDIR);
        }
        self.remove(place);
        self.drop_link(ino);
        Ok(())
    }

    pub(super) fn rmdir(&mut self, place: &Place) -> Outcome<()> {
        let ino = self.find(place).ok_or(ENOENT)?;
        if !self.is_dir(ino) {
            return Err(ENOTDIR);
        }
        if !self.entries(ino).is_empty() {
            return Err(ENOTEMPTY);
        }
        self.remove(place);
        self.drop_link(ino);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Place, to: &Place, how: Target) -> Outcome<()> {
        let source = self.find(from).ok_or(ENOENT)?;
        let target = self.find(to);
        match (how, target) {
            (Target::NoReplace, Some(_)) => return Err(EEXIST),
            (Target::Exchange, None) => return Err(ENOENT),
            _ => {}
        }
        if from.0 != to.0 && self.is_dir(source) && self.is_above(source, to.0) {
            return Err(EINVAL);
        }
        let Some(target) = target.filter(|t| *t != source) else {
            if target.is_none() {
                self.remove(from);
                self.add(to, source);
                self.touch(source, false);
            }
            return Ok(());
        };
        let target_above = from.0 != to.0 && self.is_dir(target) && self.is_above(target, from.0);
        if how == Target::Exchange {
            if target_above {
                return Err(EINVAL);
            }
            self.remove(from);
            self.remove(to);
            self.add(from, target);
            self.add(to, source);
            self.touch(source, false);
            self.touch(target, false);
            return Ok(());
        }
        if self.rules.kernel && target_above {
            return Err(ENOTEMPTY);
        }
        match (self.is_dir(source), self.is_dir(target)) {
            (true, false) => return Err(ENOTDIR),
            (false, true) => return Err(EISDIR),
            (true, true) if !self.entries(target).is_empty() => return Err(ENOTEMPTY),
            _ => {}
        }
        self.remove(from);
        self.remove(to);
        self.add(to, source);
        self.touch(source, false);
        self.drop_link(target);
        Ok(())
    }

    /// The inodes that have this attribute and can be reached.
    pub fn having_xattr(&self, name: &[u8]) -> Vec<u64> {
        let with = self.nodes.iter().filter(|(_, node)| node.seen.xattrs.contains_key(name));
        with.map(|(ino, _)| *ino).collect()
    }
}
