//! Judges that are not us: erofs-utils, the kernel's EROFS, GNU tar, and the kernel's overlay.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::listing::{Listing, assert_same, concatenate, of_directory, of_disk};
use super::tools::{Mount, have, is_root, not_run, run, run_in};
use super::{Built, built, finish};
use crate::layer::testing::Tar;

/// erofs-utils must find nothing wrong.
fn check(built: &Built) -> std::path::PathBuf {
    let disk = concatenate(built);
    run("fsck.erofs", [&disk]);
    let told = run("dump.erofs", [Path::new("-s"), &disk]).stdout;
    let told = String::from_utf8_lossy(&told);
    assert!(
        told.contains(&format!(
            "inode count:                       {}",
            built.summary.inodes
        )),
        "{told}"
    );
    disk
}

/// erofs-utils finds nothing wrong, and the kernel shows the same as our reader. Gives what the kernel shows.
fn judge(test: &str, built: &Built) -> Option<Listing> {
    if !have(test, &["fsck.erofs", "dump.erofs"]) {
        return None;
    }
    let disk = check(built);
    if !is_root(test) {
        return None;
    }
    let mount = Mount::image(test, &disk, &built.dir.path().join("mnt"))?;
    let shown = of_directory(mount.path());
    assert_same(
        "kernel and our reader",
        shown.clone(),
        of_disk(built),
        |_| {},
    );
    find_every_name(mount.path(), &shown);
    Some(shown)
}

/// Looks every name up by itself, which bisects, rather than by listing, which does not.
fn find_every_name(root: &Path, listing: &Listing) {
    for path in listing.keys() {
        let path = root.join(path.trim_start_matches('/'));
        assert!(
            fs::symlink_metadata(&path).is_ok(),
            "{} cannot be looked up",
            path.display()
        );
        let mut other = path.into_os_string();
        other.push("\u{1}");
        assert!(fs::symlink_metadata(&other).is_err());
    }
}

/// What GNU tar and the kernel's overlay make of the same archives.
fn overlay(test: &str, archives: &[Vec<u8>], compare: impl FnOnce(Listing)) {
    if !have(test, &["tar"]) || !is_root(test) {
        return;
    }
    let dir = tempfile::TempDir::new().unwrap();
    let mut lowers = Vec::new();
    for (number, archive) in archives.iter().enumerate() {
        let name = number.to_string();
        let lower = dir.path().join(&name);
        fs::create_dir(&lower).unwrap();
        let file = dir.path().join("archive");
        fs::write(&file, archive).unwrap();
        run_in(
            &lower,
            "tar",
            [
                "--xattrs",
                "--xattrs-include=*",
                "--acls",
                "--numeric-owner",
                "--delay-directory-restore",
                "-xpf",
                "../archive",
            ],
        );
        translate_whiteouts(&lower);
        lowers.push(name);
    }
    // An overlay needs two directories.
    fs::create_dir(dir.path().join("base")).unwrap();
    lowers.insert(0, "base".to_owned());
    if let Some(mount) = Mount::overlay(test, dir.path(), &lowers, "merged") {
        compare(of_directory(mount.path()));
    }
}

/// Turns the whiteouts of an archive into those of the kernel, without disturbing directories' times.
fn translate_whiteouts(dir: &Path) {
    let stat = fs::metadata(dir).unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap_or_default();
        if entry.file_type().unwrap().is_dir() {
            translate_whiteouts(&entry.path());
        } else if name == ".wh..wh..opq" {
            fs::remove_file(entry.path()).unwrap();
            make_opaque(dir);
        } else if let Some(hidden) = name.strip_prefix(".wh.") {
            fs::remove_file(entry.path()).unwrap();
            let hidden = dir.join(hidden);
            if hidden.is_dir() {
                make_opaque(&hidden);
            } else if !hidden.exists() {
                let no_mode = nix::sys::stat::Mode::empty();
                nix::sys::stat::mknod(&hidden, nix::sys::stat::SFlag::S_IFCHR, no_mode, 0).unwrap();
            }
        }
    }
    let time = nix::sys::time::TimeSpec::new(stat.mtime(), stat.mtime_nsec());
    let follow = nix::sys::stat::UtimensatFlags::FollowSymlink;
    nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, dir, &time, &time, follow).unwrap();
}

fn make_opaque(dir: &Path) {
    let path = CString::new(dir.as_os_str().as_bytes()).unwrap();
    let name = c"trusted.overlay.opaque";
    // SAFETY: both strings are NUL-terminated, and the value is one byte long as said.
    let done = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), b"y".as_ptr().cast(), 1, 0) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Judged by everyone.
fn judge_with_overlay(test: &str, archives: &[Vec<u8>]) {
    let built = built(archives);
    let Some(shown) = judge(test, &built) else {
        return;
    };
    overlay(test, archives, |expected| {
        assert_same("disk and overlay", shown, expected, |seen| {
            // An overlay counts names of lower layers that it hides, and none of directories.
            seen.nlink = 0;
        });
    });
}

#[test]
fn every_kind_of_object_is_as_tar_would_unpack_it() {
    let tar = Tar::new()
        .dir_mode("./", 0o755)
        .dir_mode("tmp", 0o1777)
        .dir("dev")
        .device(b'3', "dev/null", 1, 3)
        .device(b'4', "dev/disk", 259, 300_000)
        .with(b'6', "dev/pipe", b"", |header| header.set_mode(0o600))
        .with(b'0', "suid", b"#!", |header| header.set_mode(0o4755))
        .pax(&[
            ("uid", b"100000"),
            ("gid", b"4000000000"),
            ("mtime", b"1234567890.123456789"),
        ])
        .file("owned", b"x")
        .pax(&[
            (
                "SCHILY.xattr.security.capability",
                b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            ),
            ("SCHILY.xattr.user.note", b"hello"),
        ])
        .file("ping", b"x")
        .hard_link("ping-too", "ping")
        .symlink("link", "dev/../ping")
        .pax(&[(
            "path",
            format!("{}/{}", "d".repeat(255), "n".repeat(255)).as_bytes(),
        )])
        .file("x", b"deep");
    // GNU tar would make the long directory now.
    let tar = Tar::new()
        .pax(&[("path", "d".repeat(255).as_bytes())])
        .dir("x")
        .then(tar);
    judge_with_overlay("every kind of object", &[tar.finish()]);
}

#[test]
fn whiteouts_and_opaque_directories_are_as_the_overlay_shows_them() {
    let lower = Tar::new()
        .dir("./")
        .dir("a")
        .file("a/1", b"1")
        .file("a/2", b"2")
        .dir("a/sub")
        .file("a/sub/x", b"x")
        .dir("b")
        .file("b/1", b"b1")
        .dir("b/sub")
        .file("b/sub/old", b"")
        .dir("c")
        .file("c/1", b"")
        .file("f", b"file");
    let middle = Tar::new()
        .dir("./")
        .dir_mode("a", 0o700)
        .file("a/.wh.1", b"")
        .file("a/.wh.sub", b"")
        .dir("b")
        .file("b/.wh..wh..opq", b"")
        .dir("b/sub")
        .file("b/sub/new", b"new")
        .dir("c")
        .file(".wh.c", b"")
        .file("c/2", b"")
        .file(".wh.f", b"");
    let upper = Tar::new()
        .dir("./")
        .dir("f")
        .file("f/in", b"")
        .dir("a")
        .dir("a/sub")
        .file("a/sub/again", b"");
    judge_with_overlay("whiteouts", &finish(vec![lower, middle, upper]));
}

#[test]
fn a_hundred_and_thirty_layers_are_as_the_overlay_shows_them() {
    let mut layers = vec![Tar::new().dir("./").dir("d").file("common", b"0")];
    for number in 1..130u32 {
        let mut layer = Tar::new()
            .dir("./")
            .dir("d")
            .file(
                &format!("d/{number}"),
                &vec![number as u8; number as usize * 100],
            )
            .hard_link(&format!("d/{number}-too"), &format!("d/{number}"));
        if number % 3 == 0 {
            layer = layer.file(&format!("d/.wh.{}", number - 1), b"");
        }
        if number == 70 {
            layer = layer.file("d/.wh..wh..opq", b"");
        }
        layers.push(layer.file("common", number.to_string().as_bytes()));
    }
    judge_with_overlay("130 layers", &finish(layers));
}

#[test]
fn large_directories_are_searched_correctly_by_the_kernel() {
    let mut tar = Tar::new().dir("./").dir("d").dir("e");
    for number in 0..3000 {
        tar = tar
            .file(&format!("d/{number}"), b"")
            .file(&format!("e/{}-{number:x}", "long".repeat(20)), b"");
        tar = tar.file(
            &format!("e/{}", char::from_u32(0x4e00 + number).unwrap()),
            b"",
        );
    }
    judge_with_overlay("large directories", &[tar.finish()]);
}

#[test]
fn a_sparse_file_of_five_gibibytes_made_by_gnu_tar_keeps_its_holes() {
    let test = "sparse file";
    if !have(test, &["tar"]) {
        return;
    }
    let dir = tempfile::TempDir::new().unwrap();
    let big = fs::File::create(dir.path().join("big")).unwrap();
    use std::os::unix::fs::FileExt;
    big.write_all_at(b"head", 0).unwrap();
    big.write_all_at(&[5; 100_000], (4 << 30) + 12_345).unwrap();
    big.write_all_at(b"tail", (5 << 30) - 4).unwrap();
    for format in ["gnu", "pax"] {
        let output = run_in(
            dir.path(),
            "tar",
            ["--sparse", &format!("--format={format}"), "-cf", "-", "big"],
        );
        assert!(output.stdout.len() < 1 << 20, "tar did not see the holes");
        let built = built(&[output.stdout]);
        let metadata = built.summary.parts[0].bytes;
        assert!(metadata < 1 << 20, "{metadata} bytes of metadata");
        let seen = of_disk(&built);
        assert_eq!(seen["/big"].size, 5 << 30);
        let expected = of_directory(dir.path());
        assert_eq!(seen["/big"].content, expected["/big"].content);
        if judge(test, &built).is_none() {
            continue;
        }
        let disk = built.dir.path().join("disk");
        let Some(mount) = Mount::image(test, &disk, &built.dir.path().join("mnt")) else {
            continue;
        };
        let file = fs::File::open(mount.path().join("big")).unwrap();
        let mut middle = vec![0; 120_000];
        file.read_exact_at(&mut middle, 4 << 30).unwrap();
        assert!(middle[..12_345].iter().all(|byte| *byte == 0));
        assert!(middle[12_345..112_345].iter().all(|byte| *byte == 5));
        assert!(middle[112_345..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn zeros_found_by_us_read_as_zeros_in_the_kernel() {
    let mut content = vec![0u8; 10 << 20];
    for at in (0..content.len()).step_by(700_000) {
        content[at..at + 1000].fill(9);
    }
    let tar = Tar::new()
        .dir("./")
        .file("f", &content)
        .file("z", &vec![0; 1 << 20])
        .file("g", b"x");
    judge_with_overlay("holes", &[tar.finish()]);
}

#[test]
fn a_part_of_this_host_survives_the_whole_way() {
    let test = "part of this host";
    if !have(test, &["tar"]) || !is_root(test) {
        return;
    }
    let output = run_in(
        Path::new("/"),
        "tar",
        [
            "--xattrs",
            "--xattrs-include=*",
            "--format=pax",
            "--sort=name",
            "-cf",
            "-",
            "etc",
            "usr/share/zoneinfo",
        ],
    );
    // GNU tar and we give parents that no entry describes different times.
    let parents = Tar::new().dir("./").dir("usr").dir("usr/share");
    let mut archive = parents.unfinished();
    archive.extend_from_slice(&output.stdout);
    judge_with_overlay(test, &[archive]);
}

#[test]
fn a_whole_root_file_system_survives_the_whole_way() {
    let test = "whole root file system";
    let Some(path) = std::env::var_os("BULKHEAD_TEST_ROOTFS_TAR") else {
        not_run(test, "BULKHEAD_TEST_ROOTFS_TAR names no archive");
        return;
    };
    judge_with_overlay(test, &[fs::read(path).unwrap()]);
}
