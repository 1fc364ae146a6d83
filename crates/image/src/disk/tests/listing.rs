//! What is in a file system, in a form that can be compared, whoever reads it.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::Built;
use crate::erofs::Reader;

/// One name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Of everything but directories, in bytes.
    pub(super) size: u64,
    pub(super) mtime: (i64, u32),
    pub(super) device: Option<(u32, u32)>,
    /// Target, or the content's checksum (of files above 64 MiB, of the first and last MiB).
    pub(super) content: Vec<u8>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The first name of the same inode.
    pub(super) same_as: String,
    pub(super) nlink: u64,
}

pub(super) type Listing = BTreeMap<String, Seen>;

const WHOLE: u64 = 64 << 20;
const END: u64 = 1 << 20;

fn checksum(size: u64, mut read: impl FnMut(u64, u64) -> Vec<u8>) -> Vec<u8> {
    let mut hash = Sha256::new();
    if size <= WHOLE {
        hash.update(read(0, size));
    } else {
        hash.update(read(0, END));
        hash.update(read(size - END, END));
    }
    hash.finalize().to_vec()
}

/// Reads a disk with our own reader.
pub(super) fn of_disk(built: &Built) -> Listing {
    let parts = built
        .summary
        .parts
        .iter()
        .map(|part| File::open(&part.path).unwrap());
    let reader = Reader::open(parts.collect()).unwrap();
    let mut listing = Listing::new();
    let mut first: HashMap<u64, String> = HashMap::new();
    let mut todo = vec![(String::from("/"), reader.root(), reader.root())];
    while let Some((path, nid, parent)) = todo.pop() {
        let stat = reader.stat(nid).unwrap();
        let content = if stat.is_file() {
            checksum(stat.size, |start, length| {
                reader.contents(&stat, start, length).unwrap()
            })
        } else if stat.is_symlink() {
            reader.contents(&stat, 0, stat.size).unwrap()
        } else {
            Vec::new()
        };
        let same_as = first.entry(nid).or_insert_with(|| path.clone()).clone();
        if stat.is_dir() {
            let names = reader.list(&stat).unwrap();
            assert!(names.is_sorted_by(|a, b| a.0 < b.0), "{path} is not sorted");
            for (name, id) in names.into_iter().rev() {
                match &name[..] {
                    b"." => assert_eq!(id, nid, "{path}/."),
                    b".." => assert_eq!(id, parent, "{path}/.."),
                    _ => {
                        let name = String::from_utf8_lossy(&name);
                        todo.push((format!("{}/{name}", path.trim_end_matches('/')), id, nid));
                    }
                }
            }
        }
        let is_device = matches!(stat.mode >> 12, 2 | 6);
        listing.insert(
            path,
            Seen {
                mode: stat.mode.into(),
                uid: stat.uid,
                gid: stat.gid,
                size: if stat.is_dir() { 0 } else { stat.size },
                mtime: stat.mtime,
                device: is_device.then(|| {
                    let rdev = stat.rdev;
                    (
                        (rdev >> 8) & 0xfff,
                        (rdev & 0xff) | ((rdev >> 12) & 0xfff00),
                    )
                }),
                content,
                xattrs: reader.xattrs(&stat).unwrap(),
                same_as,
                nlink: stat.nlink.into(),
            },
        );
    }
    assert_eq!(first.len() as u64, built.summary.inodes);
    listing
}

/// Reads a directory of the host, such as a mounted image.
pub(super) fn of_directory(root: &Path) -> Listing {
    use std::os::unix::fs::FileExt;
    let mut listing = Listing::new();
    let mut first: HashMap<(u64, u64), String> = HashMap::new();
    let mut todo = vec![String::from("/")];
    while let Some(path) = todo.pop() {
        let host = root.join(path.trim_start_matches('/'));
        let stat = fs::symlink_metadata(&host).unwrap();
        let kind = stat.file_type();
        let content = if kind.is_file() {
            let file = File::open(&host).unwrap();
            checksum(stat.size(), |start, length| {
                let mut bytes = vec![0; length as usize];
                file.read_exact_at(&mut bytes, start).unwrap();
                bytes
            })
        } else if kind.is_symlink() {
            fs::read_link(&host)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec()
        } else {
            Vec::new()
        };
        if kind.is_dir() {
            let mut names: Vec<_> = fs::read_dir(&host)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            for name in names.into_iter().rev() {
                todo.push(format!(
                    "{}/{}",
                    path.trim_end_matches('/'),
                    name.to_string_lossy()
                ));
            }
        }
        let same_as = first
            .entry((stat.dev(), stat.ino()))
            .or_insert_with(|| path.clone())
            .clone();
        let is_device = kind.is_char_device() || kind.is_block_device();
        listing.insert(
            path.clone(),
            Seen {
                mode: stat.mode(),
                uid: stat.uid(),
                gid: stat.gid(),
                size: if kind.is_dir() { 0 } else { stat.size() },
                mtime: (stat.mtime(), stat.mtime_nsec() as u32),
                device: is_device.then(|| {
                    let rdev = stat.rdev();
                    (libc::major(rdev), libc::minor(rdev))
                }),
                content,
                xattrs: xattrs(&host),
                same_as: if kind.is_dir() { path } else { same_as },
                nlink: stat.nlink(),
            },
        );
    }
    listing
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let c_path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut names = vec![0u8; 64 << 10];
    // SAFETY: the path is NUL-terminated and the buffer as long as said.
    let length =
        unsafe { libc::llistxattr(c_path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(usize::try_from(length).unwrap());
    let mut out = Vec::new();
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let c_name = CString::new(name).unwrap();
        let mut value = vec![0u8; 64 << 10];
        // SAFETY: both strings are NUL-terminated and the buffer as long as said.
        let length = unsafe {
            libc::lgetxattr(
                c_path.as_ptr(),
                c_name.as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        };
        value.truncate(usize::try_from(length).unwrap());
        out.push((name.to_vec(), value));
    }
    out.sort();
    out
}

/// Everything is the same except what `ignore` blanks; the first differences are told.
pub(super) fn assert_same(
    what: &str,
    mut left: Listing,
    mut right: Listing,
    ignore: fn(&mut Seen),
) {
    left.values_mut().for_each(ignore);
    right.values_mut().for_each(ignore);
    let mut problems = Vec::new();
    for (path, seen) in &left {
        match right.get(path) {
            None => problems.push(format!("only left: {path}")),
            Some(other) if other != seen => {
                problems.push(format!("differs: {path}\n  {seen:?}\n  {other:?}"));
            }
            Some(_) => {}
        }
    }
    problems.extend(
        right
            .keys()
            .filter(|path| !left.contains_key(*path))
            .map(|path| format!("only right: {path}")),
    );
    let told: Vec<_> = problems.iter().take(10).map(String::as_str).collect();
    assert!(
        problems.is_empty(),
        "{what}: {} differences\n{}",
        problems.len(),
        told.join("\n")
    );
}

/// Reads all of a small file.
pub(super) fn text_at(listing: &Listing, path: &str, content: &[u8]) -> bool {
    let hash = Sha256::digest(content);
    listing
        .get(path)
        .is_some_and(|seen| seen.content == hash.as_slice())
}

/// Copies the parts of a disk into one file.
pub(super) fn concatenate(built: &Built) -> std::path::PathBuf {
    use std::io::{Seek, SeekFrom, Write};
    let path = built.dir.path().join("disk");
    let mut disk = File::create(&path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    for part in &built.summary.parts {
        let mut file = File::open(&part.path).unwrap();
        loop {
            let count = file.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            if buffer[..count].iter().all(|byte| *byte == 0) {
                disk.seek(SeekFrom::Current(count as i64)).unwrap();
            } else {
                disk.write_all(&buffer[..count]).unwrap();
            }
        }
    }
    let length = built.summary.parts.iter().map(|part| part.bytes).sum();
    disk.set_len(length).unwrap();
    path
}
