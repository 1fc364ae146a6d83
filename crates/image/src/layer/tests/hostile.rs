//! What an archive must not do, it is told clearly that it may not.

use std::io::{self, Read};

use crate::layer::testing::{Tar, complaint, complaint_within, try_convert};
use crate::layer::{LayerError, Limits, convert};
use bulkhead_types::chain;

#[test]
fn names_that_would_leave_the_layer_are_refused() {
    assert_eq!(
        complaint(&Tar::new().file("../../etc/passwd", b"x").finish()),
        "entry \"../../etc/passwd\" has an unacceptable name: \"..\" is not allowed in a name"
    );
    assert!(
        complaint(&Tar::new().file("a/../../b", b"").finish()).contains("\"..\" is not allowed")
    );
    assert!(
        complaint(
            &Tar::new()
                .pax(&[("path", b"../x")])
                .file("ok", b"")
                .finish()
        )
        .contains("\"..\"")
    );
    assert!(
        complaint(&Tar::new().file("a/.wh...", b"").finish()).contains("reserved for whiteouts")
    );
    assert!(
        complaint(
            &Tar::new()
                .pax(&[("path", b"a\0b")])
                .file("ok", b"")
                .finish()
        )
        .contains("NUL")
    );
}

#[test]
fn hard_links_that_would_leave_the_layer_are_refused() {
    assert_eq!(
        complaint(&Tar::new().hard_link("x", "../../etc/shadow").finish()),
        "hard link \"x\" to \"../../etc/shadow\" leaves the layer or names nothing: \"..\" is not allowed in a name"
    );
    assert!(complaint(&Tar::new().hard_link("x", "").finish()).contains("names no file"));
    assert!(complaint(&Tar::new().hard_link("x", "/").finish()).contains("names no file"));
}

#[test]
fn hard_links_to_directories_are_refused() {
    assert_eq!(
        complaint(&Tar::new().dir("d").hard_link("x", "d").finish()),
        "hard link \"x\" points at the directory \"d\""
    );
}

#[test]
fn parents_that_are_no_directories_are_refused() {
    assert_eq!(
        complaint(&Tar::new().file("f", b"").file("f/x", b"").finish()),
        "cannot place entry \"f/x\": \"f\" is not a directory"
    );
    assert_eq!(
        complaint(
            &Tar::new()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/x", b"")
                .finish()
        ),
        "cannot place entry \"a/x\": too many levels of symbolic links at \"a\""
    );
    assert!(
        complaint(
            &Tar::new()
                .symlink("a", "gone/../b")
                .file("a/x", b"")
                .finish()
        )
        .ends_with("the symbolic link \"gone\" leads nowhere")
    );
}

#[test]
fn the_root_cannot_be_replaced() {
    for kind in [b'0', b'1', b'2', b'3', b'6'] {
        assert_eq!(
            complaint(&Tar::new().with(kind, "./", b"", |_| {}).finish()),
            "entry \"./\" would replace the root directory"
        );
    }
}

#[test]
fn an_archive_cut_anywhere_is_noticed() {
    let whole = Tar::new()
        .pax(&[("path", b"some/name"), ("SCHILY.xattr.user.a", b"b")])
        .file("x", &[7; 1500])
        .with(b'L', "././@LongLink", &[b'n'; 150], |_| {})
        .file("y", b"z")
        .unfinished();
    // Between two entries an archive may end.
    let ends = [1024 + 512 + 1536];
    for end in (1..whole.len() - 512).filter(|end| end % 61 == 0 || (end + 1) % 512 < 3) {
        if ends.contains(&end) {
            continue;
        }
        let text = complaint(&whole[..end]);
        assert!(
            text.starts_with("archive is truncated at byte"),
            "{end}: {text}"
        );
    }
    let text = complaint(&Tar::new().file("etc/big", &[1; 5000]).unfinished()[..3000]);
    assert_eq!(
        text,
        "archive is truncated at byte 3000, within the content of \"etc/big\""
    );
}

#[test]
fn garbage_is_no_archive() {
    assert_eq!(
        complaint(&[b'x'; 2048]),
        "archive has no valid tar header at byte 0"
    );
    let mut archive = Tar::new().file("a", b"1").file("b", b"2").finish();
    archive[1024 + 3] ^= 1;
    assert_eq!(
        complaint(&archive),
        "archive has no valid tar header at byte 1024"
    );
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    let bad = |change: fn(&mut tar::Header)| {
        complaint(&Tar::new().with(b'3', "dev", b"", change).finish())
    };
    assert_eq!(
        bad(|h| h.set_device_major(4096).unwrap()),
        "entry \"dev\" has an invalid device number"
    );
    assert_eq!(
        bad(|h| h.as_gnu_mut().unwrap().dev_minor.fill(0xff)),
        "entry \"dev\" has an invalid device number"
    );
    assert_eq!(
        bad(|h| h.as_old_mut().mode.copy_from_slice(b"hello!!!")),
        "entry \"dev\" has an invalid mode"
    );
    let pax =
        |key, value: &[u8]| complaint(&Tar::new().pax(&[(key, value)]).file("f", b"").finish());
    assert_eq!(
        pax("uid", b"4294967296"),
        "entry \"f\" has an invalid owner"
    );
    assert_eq!(pax("gid", b"-1"), "entry \"f\" has an invalid group");
    assert_eq!(
        pax("mtime", b"soon"),
        "entry \"f\" has an invalid modification time"
    );
    assert_eq!(pax("size", b"1e9"), "entry \"f\" has an invalid size");
}

#[test]
fn unknown_types_are_named() {
    assert_eq!(
        complaint(&Tar::new().with(b'M', "part", b"", |_| {}).finish()),
        "entry \"part\" has the unsupported type 'M'"
    );
}

#[test]
fn a_symbolic_link_needs_a_target() {
    assert_eq!(
        complaint(&Tar::new().symlink("s", "").finish()),
        "symbolic link \"s\" has an invalid target"
    );
}

#[test]
fn bombs_are_bounded_and_the_entry_is_named() {
    let limits = Limits {
        max_bytes: 10_000,
        max_file_bytes: 1 << 20,
        max_entries: 5,
        max_path: 100,
        max_xattr_bytes: 20,
        max_extension_bytes: 1000,
        max_sparse_segments: 3,
        sparse_files: true,
        ..Limits::default()
    };
    let refused = |tar: Tar| complaint_within(&tar.finish(), &limits);
    assert_eq!(
        refused(Tar::new().with(b'0', "big", b"", |header| header.set_size(20_000))),
        "entry \"big\" exceeds the limit of 10000 bytes"
    );
    assert_eq!(
        refused(Tar::new().file("a/b/c/d/e/f/g", b"")),
        "entry \"a/b/c/d/e/f/g\" exceeds the limit of 5 entries"
    );
    assert_eq!(
        refused((0..6).fold(Tar::new(), |tar, _| tar.file(".wh.x", b""))),
        "entry \".wh.x\" exceeds the limit of 5 entries"
    );
    assert!(
        refused(Tar::new().pax(&[("path", &[b'a'; 101])]).file("f", b""))
            .contains("longer than 100 bytes")
    );
    assert_eq!(
        refused(
            Tar::new()
                .pax(&[("SCHILY.xattr.user.a", &[0; 21])])
                .file("f", b"")
        ),
        "entry \"f\" exceeds the limit of 20 bytes of extended attributes"
    );
    assert_eq!(
        refused(Tar::new().pax(&[("comment", &[0; 1000])]).file("f", b"")),
        "entry \"PaxHeaders/x\" exceeds the limit of 1000 bytes of extended header"
    );
    assert_eq!(
        refused(
            Tar::new()
                .pax(&[
                    ("GNU.sparse.realsize", b"9999999999"),
                    ("GNU.sparse.map", b"0,0")
                ])
                .file("s", b"")
        ),
        "entry \"s\" exceeds the limit of 1048576 bytes in one file"
    );
    assert_eq!(
        refused(
            Tar::new()
                .pax(&[
                    ("GNU.sparse.realsize", b"9"),
                    ("GNU.sparse.map", b"0,0,1,0,2,0,3,0")
                ])
                .file("s", b"")
        ),
        "entry \"s\" exceeds the limit of 3 sparse segments"
    );
    let mut trailing = Tar::new().file("a", b"").finish();
    trailing.resize(20_000, 0);
    assert!(complaint_within(&trailing, &limits).contains("limit of 10000 bytes"));
}

#[test]
fn a_source_that_fails_is_told_apart_from_a_bad_archive() {
    struct Cut(Vec<u8>);
    impl Read for Cut {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Err(io::Error::from(io::ErrorKind::ConnectionReset));
            }
            let count = self.0.len().min(buffer.len()).min(100);
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            Ok(count)
        }
    }
    let dir = tempfile::TempDir::new().unwrap();
    let source = Cut(Tar::new().file("a", &[1; 1000]).unfinished());
    let error = convert(source, dir.path(), &Limits::default()).unwrap_err();
    assert!(
        matches!(error, LayerError::Read { offset: 1536, .. }),
        "{error:?}"
    );
    assert!(chain(&error).starts_with("cannot read the archive at byte 1536: "));
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let dir = tempfile::TempDir::new().unwrap();
    let gone = dir.path().join("gone");
    let error = convert(&Tar::new().finish()[..], &gone, &Limits::default()).unwrap_err();
    assert!(chain(&error).starts_with(&format!("cannot create {}/data: ", gone.display())));
}

#[test]
fn deep_trees_do_not_exhaust_the_stack() {
    let name = "a/".repeat(2000) + "b";
    let archive = Tar::new()
        .pax(&[("path", name.as_bytes())])
        .file("x", b"")
        .finish();
    let converted = try_convert(&archive, &Limits::default()).unwrap();
    assert_eq!(converted.tree().inodes.len(), 2002);
}
