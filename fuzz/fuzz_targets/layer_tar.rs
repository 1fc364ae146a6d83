//! Any bytes as a layer archive: an error or a layer, never a panic, never more than the limits allow; and
//! what is converted can be read again.
#![no_main]

#[path = "archives.rs"]
mod archives;

use std::sync::LazyLock;

use bulkhead_image::layer::{self, Limits};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static DIR: LazyLock<TempDir> =
    LazyLock::new(|| TempDir::new_in("/dev/shm").expect("a directory in memory"));

fuzz_target!(|data: &[u8]| {
    let limits = Limits {
        max_bytes: 4 << 20,
        max_file_bytes: 1 << 40,
        max_entries: 5000,
        max_path: 4095,
        max_xattr_bytes: 64 << 10,
        max_extension_bytes: 64 << 10,
        max_sparse_segments: 1000,
        ..Limits::default()
    };
    let mut source = archives::Source(data);
    let bytes = if source.byte() % 2 == 0 {
        // As they are, but with checksums that fit: otherwise no mutation gets past the first header.
        let mut bytes = source.0.to_vec();
        for block in bytes.chunks_exact_mut(512) {
            if block.iter().any(|byte| *byte != 0) && b"\x0001234567SxgLKMV".contains(&block[156]) {
                archives::sign(block);
            }
        }
        bytes
    } else {
        archives::archive(&mut source, &mut 0)
    };
    if let Ok(summary) = layer::convert(&bytes[..], DIR.path(), &limits) {
        assert!(summary.entries <= limits.max_entries);
        let tree = layer::read_index(DIR.path()).expect("the index just written");
        assert_eq!(
            u64::from(tree.data_blocks) * layer::BLOCK_SIZE,
            summary.data_bytes
        );
    }
});
