//! Images made on the spot, from what Debian packages bring.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::bulkhead::{binary, cache_home};

/// Programs that tests use, as links to busybox.
const APPLETS: &str = "[ ash awk cat chmod chown cksum cp cut date dd df dmesg du echo env expr false find free grep \
    head hostname id kill ln ls md5sum mkdir mkfifo mknod more mount mv nproc od pidof poweroff printf ps pwd readlink rm \
    sed seq sh sha256sum sleep sort stat stty sync tail tee test timeout touch tr true tty uname uniq uptime umount vi \
    wc which whoami xargs yes";

/// A root file system with a static busybox, as a tar.
pub fn busybox_tar() -> Vec<u8> {
    static TAR: OnceLock<Vec<u8>> = OnceLock::new();
    TAR.get_or_init(|| {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .iter()
            .find_map(|path| std::fs::read(path).ok())
            .expect("busybox-static is not installed (make deps installs it)");
        let mut files: Vec<(String, Entry)> = vec![
            ("bin".into(), Entry::Directory(0o755)),
            ("bin/busybox".into(), Entry::File(0o755, busybox)),
            ("etc".into(), Entry::Directory(0o755)),
            (
                "etc/passwd".into(),
                Entry::File(
                    0o644,
                    b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"
                        .to_vec(),
                ),
            ),
            (
                "etc/group".into(),
                Entry::File(
                    0o644,
                    b"root:x:0:\nuser:x:1000:\nextra:x:2000:user\nother:x:3000:\n".to_vec(),
                ),
            ),
            ("home".into(), Entry::Directory(0o755)),
            ("root".into(), Entry::Directory(0o700)),
            ("tmp".into(), Entry::Directory(0o1777)),
            (
                "etc/not-executable".into(),
                Entry::File(0o644, b"data\n".to_vec()),
            ),
        ];
        files.extend(
            APPLETS
                .split_whitespace()
                .map(|name| (format!("bin/{name}"), Entry::Link("busybox".into()))),
        );
        layer(
            &files
                .iter()
                .map(|(n, e)| (n.as_str(), e.clone()))
                .collect::<Vec<_>>(),
        )
    })
    .clone()
}

pub use entry::Entry;

mod entry {
    /// One entry of a layer.
    #[derive(Debug, Clone)]
    pub enum Entry {
        /// A directory with this mode.
        Directory(u32),
        /// A file with mode and content.
        File(u32, Vec<u8>),
        /// A symbolic link with its target.
        Link(String),
        /// A hard link with its target.
        HardLink(String),
        /// A character device for everybody, with its numbers.
        Character(u32, u32),
        /// A block device for everybody, with its numbers.
        Block(u32, u32),
    }
}

/// A tar with these entries, names taken literally (also hostile ones).
pub fn layer(entries: &[(&str, Entry)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, entry) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(1_700_000_000);
        let raw = &mut header.as_gnu_mut().expect("gnu header").name;
        raw[..name.len()].copy_from_slice(name.as_bytes());
        let mut data: &[u8] = &[];
        match entry {
            Entry::Directory(mode) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
            }
            Entry::File(mode, content) => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_mode(*mode);
                data = content;
            }
            Entry::Character(..) | Entry::Block(..) => {}
            Entry::Link(target) | Entry::HardLink(target) => {
                header.set_entry_type(if matches!(entry, Entry::Link(_)) {
                    tar::EntryType::Symlink
                } else {
                    tar::EntryType::Link
                });
                header.set_mode(0o777);
                header.as_gnu_mut().expect("gnu header").linkname[..target.len()]
                    .copy_from_slice(target.as_bytes());
            }
        }
        if let Entry::Character(major, minor) | Entry::Block(major, minor) = entry {
            header.set_entry_type(if matches!(entry, Entry::Block(..)) {
                tar::EntryType::Block
            } else {
                tar::EntryType::Char
            });
            header.set_mode(0o666);
            header.set_device_major(*major).expect("gnu header");
            header.set_device_minor(*minor).expect("gnu header");
        }
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data).expect("tar in memory");
    }
    builder.into_inner().expect("tar in memory")
}

/// A Debian image as an OCI archive, made once from Debian's own packages and kept outside the tree.
/// `packages` are installed beyond the minimal set. `None` (said loudly) when mmdebstrap is missing.
pub fn debian_archive(packages: &[&str]) -> Option<PathBuf> {
    let cache = cache_home().join("bulkhead/images");
    std::fs::create_dir_all(&cache).expect("cache directory");
    let mut name = String::from("debian-bookworm");
    for package in packages {
        name.push('+');
        name.push_str(package);
    }
    let archive = cache.join(format!("{name}.tar"));
    let lock = std::fs::File::create(cache.join(format!("{name}.lock"))).expect("lock file");
    let _held = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).expect("lock");
    if !archive.exists() {
        if !crate::tool_exists("mmdebstrap") {
            return None;
        }
        let root = tempfile::tempdir().expect("temporary directory");
        let include = packages.join(",");
        let mut args = vec!["bootstrap", "bookworm"];
        if !include.is_empty() {
            args.extend(["--include", &include]);
        }
        let run = |args: &[&str]| {
            let mut command = Command::new(binary());
            command.args(args).env("BULKHEAD_ROOT", root.path());
            let child = command.status().expect("start bulkhead");
            assert!(child.success(), "{args:?} failed");
        };
        run(&args);
        let part = archive.with_extension("part");
        let part_name = part.to_str().expect("UTF-8 cache path");
        run(&["save", "-o", part_name, "debian:bookworm"]);
        std::fs::rename(&part, &archive).expect("publish the archive");
    }
    Some(archive)
}
