//! Any bytes as an archive for `load`: an error or images, never a panic; and no image gets a name with a digest that
//! is not the digest of something that the archive brought.
#![no_main]

#[path = "archives.rs"]
#[allow(dead_code, reason = "of the archives only the checksum is wanted")]
mod archives;

use std::sync::LazyLock;

use bulkhead_image::{LoadFrom, LoadOptions, Quiet, Store, load};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static DIR: LazyLock<TempDir> =
    LazyLock::new(|| TempDir::new_in("/dev/shm").expect("a directory in memory"));

/// An image with one layer, the empty archive of 1,024 zeros.
const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"]}}"#;

fuzz_target!(|data: &[u8]| {
    let mut source = archives::Source(data);
    let bytes = match source.byte() % 4 {
        // As they are, but with checksums that fit: otherwise no mutation gets past the first header.
        0 => {
            let mut bytes = source.0.to_vec();
            for block in bytes.chunks_exact_mut(512) {
                if block.iter().any(|byte| *byte != 0) && b"\x0001234567SxgLK".contains(&block[156])
                {
                    archives::sign(block);
                }
            }
            bytes
        }
        // A good docker-archive with any name.
        1 => {
            let tag: String = source
                .0
                .iter()
                .map(|byte| format!("\\u00{byte:02x}"))
                .collect();
            let manifest =
                format!(r#"[{{"Config":"c.json","RepoTags":["{tag}"],"Layers":["l"]}}]"#);
            files(&[
                ("l", &[0; 1024]),
                ("c.json", CONFIG),
                ("manifest.json", manifest.as_bytes()),
            ])
        }
        // A document of any content.
        2 => files(&[
            ("l", &[0; 1024]),
            ("c.json", CONFIG),
            ("manifest.json", source.0),
        ]),
        _ => files(&[("index.json", source.0)]),
    };
    let store = Store::open(&DIR.path().join("root")).expect("a store in memory");
    let mut reader = &bytes[..];
    let _ = load(
        &store,
        LoadFrom::Reader(&mut reader),
        &LoadOptions::default(),
        &Quiet,
    );
    for image in store.images().expect("the images that were loaded") {
        for name in &image.names {
            if let Some(digest) = name.digest() {
                assert!(store.has_blob(digest), "{name} promises what is not there");
            }
        }
    }
});

/// An archive of regular files.
fn files(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in files {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000001");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        archives::sign(&mut header);
        out.extend_from_slice(&header);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}
