//! The tree that becomes a file system: all layers merged, nothing hidden any more.

use std::collections::BTreeMap;

use crate::layer::{Attributes, Extents};

/// Number of an inode in its tree.
pub type InodeId = u32;

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A directory, by name. A directory other than the root has exactly one name.
    Directory(BTreeMap<Box<[u8]>, InodeId>),
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
        /// Number of the data part that holds its contents.
        part: u32,
        /// Where in that part.
        extents: Extents,
    },
    /// A symbolic link and its target.
    Symlink(Box<[u8]>),
    /// A character device: major, minor.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// One object of the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Owner, mode, times, extended attributes.
    pub attributes: Attributes,
    /// The rest.
    pub body: Body,
}

/// A file system's objects. The first inode is the root directory; inodes that no directory names are left out
/// when it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// By number.
    pub inodes: Vec<Inode>,
}

impl Tree {
    /// The inode with this number.
    pub fn get(&self, id: InodeId) -> Option<&Inode> {
        self.inodes.get(id as usize)
    }

    /// The names of a directory; nothing for anything else.
    pub fn children(&self, id: InodeId) -> Option<&BTreeMap<Box<[u8]>, InodeId>> {
        match &self.get(id)?.body {
            Body::Directory(children) => Some(children),
            _ => None,
        }
    }

    pub(crate) fn children_mut(
        &mut self,
        id: InodeId,
    ) -> Option<&mut BTreeMap<Box<[u8]>, InodeId>> {
        match &mut self.inodes.get_mut(id as usize)?.body {
            Body::Directory(children) => Some(children),
            _ => None,
        }
    }
}
