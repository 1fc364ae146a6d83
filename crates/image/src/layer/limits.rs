//! What a layer may cost at most.

use crate::budget::{Bounds, Budget};

/// Bounds on one layer, so that a small hostile archive cannot fill a disk or the memory.
///
/// The defaults are far above anything seen in real images.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes read from the archive, all included.
    pub max_bytes: u64,
    /// Size of one file as the guest sees it, holes included, in bytes.
    pub max_file_bytes: u64,
    /// Names in the layer, counting directories that no entry mentions and whiteouts.
    pub max_entries: u64,
    /// Length of a path and of a link's target, in bytes.
    pub max_path: usize,
    /// Names and values of all extended attributes of one file, in bytes.
    pub max_xattr_bytes: usize,
    /// Size of the PAX and GNU extension records before one entry together, in bytes; they are held in memory.
    pub max_extension_bytes: u64,
    /// Pieces of data in one sparse file.
    pub max_sparse_segments: usize,
    /// Memory for the layer's tree with its names, attributes, targets and maps, in bytes, by an upper estimate.
    pub memory: Budget,
    /// Per cent of the file system that stay free.
    pub keep_free: u8,
    /// Whether sparse files are taken. Layers have them; an archive of images has not, and refuses them
    /// before their map is read.
    pub sparse_files: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 256 << 30,
            max_file_bytes: 8 << 40,
            max_entries: 2_000_000,
            max_path: 4095,
            max_xattr_bytes: 64 << 10,
            max_extension_bytes: 1 << 20,
            max_sparse_segments: 1 << 20,
            memory: Bounds::default().budget(),
            keep_free: Bounds::default().keep_free,
            sparse_files: true,
        }
    }
}
