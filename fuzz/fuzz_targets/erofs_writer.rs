//! Several layers into one disk, and the disk read back: a tree, sorted, its links counted, its files' contents the ones that
//! went in.
#![no_main]

mod archives;

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::LazyLock;

use bulkhead_image::Bounds;
use bulkhead_image::disk;
use bulkhead_image::erofs::Reader;
use bulkhead_image::layer::{self, Limits};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static DIR: LazyLock<TempDir> =
    LazyLock::new(|| TempDir::new_in("/dev/shm").expect("a directory in memory"));

fuzz_target!(|data: &[u8]| {
    let mut source = archives::Source(data);
    let mut serial = 0;
    let mut layers: Vec<PathBuf> = Vec::new();
    for number in 0..=source.byte() % 4 {
        let archive = archives::archive(&mut source, &mut serial);
        let dir = DIR.path().join(number.to_string());
        std::fs::create_dir_all(&dir).expect("a directory in memory");
        if layer::convert(&archive[..], &dir, &Limits::default()).is_err() {
            return;
        }
        layers.push(dir);
    }
    let Ok(summary) = disk::build(&layers, &DIR.path().join("metadata"), &Bounds::default()) else {
        return;
    };
    let parts = summary
        .parts
        .iter()
        .map(|part| File::open(&part.path).expect("a part"));
    let reader = Reader::open(parts.collect()).expect("our own image");
    // Of each inode: links it says it has, and names it was found under.
    let mut links: HashMap<u64, (u32, u32)> = HashMap::new();
    let root = reader.root();
    let mut todo = vec![(root, root)];
    while let Some((nid, parent)) = todo.pop() {
        let stat = reader.stat(nid).expect("an inode");
        reader.xattrs(&stat).expect("its attributes");
        let seen = links.entry(nid).or_insert((stat.nlink, 0));
        seen.1 += 1;
        if stat.is_dir() {
            assert_eq!(seen.1, 1, "a directory with two names");
            let mut count = 0;
            let names = reader.list(&stat).expect("its names");
            assert!(names.is_sorted_by(|a, b| a.0 < b.0));
            for (name, id) in names {
                match &name[..] {
                    b"." => assert_eq!(id, nid),
                    b".." => assert_eq!(id, parent),
                    _ => {
                        count += u32::from(reader.stat(id).expect("a child").is_dir());
                        todo.push((id, nid));
                    }
                }
            }
            assert_eq!(stat.nlink, 2 + count);
        } else if stat.is_file() {
            let found = reader.contents(&stat, 0, stat.size).expect("its contents");
            if let Some(head) = found.first_chunk::<4>() {
                let expected = archives::content(u32::from_le_bytes(*head), found.len());
                assert!(found == expected, "the contents of another file");
            }
        } else if stat.is_symlink() {
            assert_eq!(
                reader
                    .contents(&stat, 0, stat.size)
                    .expect("its target")
                    .len() as u64,
                stat.size
            );
        }
    }
    for (nid, (said, found)) in &links {
        let stat = reader.stat(*nid).expect("an inode");
        assert!(
            stat.is_dir() || said == found,
            "{said} links, {found} names"
        );
    }
    assert_eq!(links.len() as u64, summary.inodes);
});
