//! Every kind of entry, with everything it says, arrives in the tree.

use crate::layer::LayerError;
use crate::layer::Limits;
use crate::layer::testing::{Tar, converted, try_convert};
use crate::layer::tree::{Attributes, Child, Content, LayerInode, LayerTree, Target};

fn child<'t>(tree: &'t LayerTree, path: &str) -> &'t Child {
    let mut directory = 0;
    let mut found = None;
    for name in path.split('/') {
        let child = tree
            .children(directory)
            .and_then(|children| children.get(name.as_bytes()))
            .unwrap_or_else(|| panic!("no {path}"));
        if let Some(Target::Inode(id)) = child.target {
            directory = id;
        }
        found = Some(child);
    }
    found.unwrap()
}

fn inode<'t>(tree: &'t LayerTree, path: &str) -> &'t LayerInode {
    match child(tree, path).target {
        Some(Target::Inode(id)) => &tree.inodes[id as usize],
        ref other => panic!("{path} is {other:?}"),
    }
}

fn exists(tree: &LayerTree, path: &str) -> bool {
    let (parent, name) = path.rsplit_once('/').map_or(("", path), |split| split);
    let directory = match parent {
        "" => 0,
        _ => match child(tree, parent).target {
            Some(Target::Inode(id)) => id,
            _ => return false,
        },
    };
    tree.children(directory)
        .is_some_and(|children| children.contains_key(name.as_bytes()))
}

#[test]
fn modes_owners_times_and_device_numbers_are_kept() {
    let archive = Tar::new()
        .with(b'0', "suid", b"x", |header| {
            header.set_mode(0o104_755);
            header.set_uid(1000);
            header.set_gid(0o7777777);
        })
        .dir_mode("tmp", 0o1777)
        .device(b'3', "null", 1, 3)
        .device(b'4', "disk", 259, 1_000_000)
        .with(b'6', "pipe", b"", |_| {})
        .symlink("link", "../x/y")
        .finish();
    let tree = converted(&archive).tree();
    let suid = inode(&tree, "suid");
    assert_eq!(
        (
            suid.attributes.mode,
            suid.attributes.uid,
            suid.attributes.gid
        ),
        (0o4755, 1000, 0o7777777)
    );
    assert_eq!(suid.attributes.mtime, 1_000_000_000);
    assert_eq!(inode(&tree, "tmp").attributes.mode, 0o1777);
    assert_eq!(inode(&tree, "link").attributes.mode, 0o777);
    assert_eq!(inode(&tree, "null").content, Content::CharDevice(1, 3));
    assert_eq!(
        inode(&tree, "disk").content,
        Content::BlockDevice(259, 1_000_000)
    );
    assert_eq!(inode(&tree, "pipe").content, Content::Fifo);
    assert_eq!(
        inode(&tree, "link").content,
        Content::Symlink(b"../x/y"[..].into())
    );
}

#[test]
fn pax_overrides_what_a_header_cannot_hold() {
    let archive = Tar::new()
        .pax(&[
            ("path", b"a/long-name"),
            ("uid", b"4000000000"),
            ("gid", b"3000000000"),
            ("mtime", b"-1.5"),
            ("size", b"3"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\n=\0"),
            ("SCHILY.xattr.user.empty", b""),
        ])
        .with(b'0', "short", b"abc", |header| header.set_size(0))
        .pax(&[("linkpath", b"a/long-name")])
        .symlink("s", "x")
        .file("after", b"")
        .finish();
    let tree = converted(&archive).tree();
    let file = inode(&tree, "a/long-name");
    assert!(matches!(file.content, Content::File { size: 3, .. }));
    assert_eq!(
        (file.attributes.uid, file.attributes.gid),
        (4_000_000_000, 3_000_000_000)
    );
    assert_eq!(
        (file.attributes.mtime, file.attributes.mtime_nsec),
        (-2, 500_000_000)
    );
    let xattrs: Vec<(&[u8], &[u8])> = file
        .attributes
        .xattrs
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    assert_eq!(
        xattrs,
        [
            (&b"security.capability"[..], &b"\x01\0\0\x02\n=\0"[..]),
            (&b"user.empty"[..], &b""[..])
        ]
    );
    assert_eq!(
        inode(&tree, "s").content,
        Content::Symlink(b"a/long-name"[..].into())
    );
    assert!(inode(&tree, "after").attributes.xattrs.is_empty());
}

#[test]
fn gnu_long_names_and_links_and_binary_numbers_are_read() {
    let name = format!("{}/{}", "d".repeat(200), "n".repeat(200));
    let archive = Tar::new()
        .with(
            b'L',
            "././@LongLink",
            format!("{name}\0").as_bytes(),
            |_| {},
        )
        .with(b'0', "short", b"1", |header| header.set_uid(0xffff_0000))
        .with(
            b'K',
            "././@LongLink",
            format!("{name}\0").as_bytes(),
            |_| {},
        )
        .hard_link("hard", "x")
        .finish();
    let tree = converted(&archive).tree();
    assert_eq!(inode(&tree, &name).attributes.uid, 0xffff_0000);
    assert_eq!(child(&tree, &name).target, child(&tree, "hard").target);
}

#[test]
fn ustar_names_are_joined_from_prefix_and_name() {
    let mut header = tar::Header::new_ustar();
    header
        .set_path(format!("{}/{}", "p".repeat(90), "n".repeat(90)))
        .unwrap();
    header.set_mode(0o600);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let tree = converted(&Tar::new().raw(header, b"").finish()).tree();
    assert!(exists(
        &tree,
        &format!("{}/{}", "p".repeat(90), "n".repeat(90))
    ));
}

#[test]
fn the_root_entry_describes_the_root() {
    let tree = converted(&Tar::new().dir_mode("./", 0o700).finish()).tree();
    assert_eq!(tree.inodes[0].attributes.mode, 0o700);
    assert!(matches!(
        tree.inodes[0].content,
        Content::Directory {
            implicit: false,
            ..
        }
    ));
}

#[test]
fn missing_parents_come_into_being() {
    let tree = converted(&Tar::new().file("/a/b/c", b"").finish()).tree();
    let a = inode(&tree, "a");
    assert_eq!(a.attributes, Attributes::implicit());
    assert!(matches!(
        a.content,
        Content::Directory { implicit: true, .. }
    ));
    // An entry that comes later describes it, and keeps what is in it.
    let tree = converted(&Tar::new().file("a/b/c", b"").dir_mode("a", 0o711).finish()).tree();
    assert_eq!(inode(&tree, "a").attributes.mode, 0o711);
    assert!(matches!(
        inode(&tree, "a").content,
        Content::Directory {
            implicit: false,
            ..
        }
    ));
    assert!(exists(&tree, "a/b/c"));
}

#[test]
fn later_entries_win() {
    let tree = converted(
        &Tar::new()
            .file("x", b"old")
            .hard_link("y", "x")
            .symlink("x", "target")
            .dir("d")
            .file("d/in", b"")
            .file("d", b"now a file")
            .file("e", b"")
            .dir("e")
            .file("e/in", b"")
            .finish(),
    )
    .tree();
    assert!(matches!(inode(&tree, "x").content, Content::Symlink(_)));
    assert!(matches!(
        inode(&tree, "y").content,
        Content::File { size: 3, .. }
    ));
    assert!(matches!(
        inode(&tree, "d").content,
        Content::File { size: 10, .. }
    ));
    assert!(exists(&tree, "e/in"));
    // Nothing of the replaced objects is kept in the index.
    assert_eq!(tree.inodes.len(), 6);
}

#[test]
fn whiteouts_speak_about_lower_layers_wherever_they_stand() {
    for archive in [
        Tar::new()
            .file("d/.wh.x", b"")
            .file("d/x", b"new")
            .file("d/.wh..wh..opq", b""),
        Tar::new()
            .file("d/.wh..wh..opq", b"")
            .file("d/x", b"new")
            .file("d/.wh.x", b""),
    ] {
        let tree = converted(&archive.finish()).tree();
        let x = child(&tree, "d/x");
        assert!(x.whiteout && matches!(x.target, Some(Target::Inode(_))));
        assert!(matches!(
            inode(&tree, "d").content,
            Content::Directory { opaque: true, .. }
        ));
    }
    let tree = converted(&Tar::new().file(".wh.gone", b"").finish()).tree();
    assert_eq!(
        *child(&tree, "gone"),
        Child {
            whiteout: true,
            target: None
        }
    );
}

#[test]
fn hard_links_share_an_inode_also_over_symbolic_links_in_the_way() {
    let tree = converted(
        &Tar::new()
            .file("real/f", b"1")
            .symlink("way", "real")
            .hard_link("h", "/way/./f")
            .symlink("s", "gone")
            .hard_link("s2", "s")
            .hard_link("f2", "h")
            .finish(),
    )
    .tree();
    assert_eq!(child(&tree, "h").target, child(&tree, "real/f").target);
    assert_eq!(child(&tree, "f2").target, child(&tree, "real/f").target);
    assert_eq!(child(&tree, "s2").target, child(&tree, "s").target);
}

#[test]
fn hard_links_to_lower_layers_are_left_for_the_merge() {
    let tree = converted(
        &Tar::new()
            .hard_link("a", "./usr/x")
            .hard_link("b", "a")
            .finish(),
    )
    .tree();
    let lower = Some(Target::LowerLink(b"usr/x"[..].into()));
    assert_eq!(child(&tree, "a").target, lower);
    assert_eq!(child(&tree, "b").target, lower);
}

#[test]
fn parents_that_are_symbolic_links_are_followed_inside_the_layer() {
    let tree = converted(
        &Tar::new()
            .dir("usr/lib")
            .symlink("lib", "usr/lib")
            .file("lib/a", b"")
            .symlink("etc", "../../../../escape")
            .file("etc/passwd", b"")
            .symlink("abs", "/usr")
            .file("abs/b", b"")
            .finish(),
    )
    .tree();
    assert!(exists(&tree, "usr/lib/a"));
    assert!(exists(&tree, "escape/passwd"));
    assert!(exists(&tree, "usr/b"));
}

#[test]
fn attributes_that_no_guest_takes_are_dropped_and_counted() {
    let converted = converted(
        &Tar::new()
            .pax(&[
                ("SCHILY.xattr.user.kept", b"1"),
                ("SCHILY.xattr.com.apple.quarantine", b"1"),
                ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ])
            .file("f", b"")
            .finish(),
    );
    assert_eq!(converted.summary.dropped_xattrs, 3);
    assert_eq!(inode(&converted.tree(), "f").attributes.xattrs.len(), 1);
}

#[test]
fn bookkeeping_of_other_engines_is_passed_over() {
    let tree = converted(
        &Tar::new()
            .with(b'g', "pax_global_header", b"", |_| {})
            .file(".wh..wh.aufs", b"")
            .dir(".wh..wh.plnk")
            .file(".wh..wh.plnk/1.2", b"x")
            .file("f", b"")
            .finish(),
    )
    .tree();
    assert_eq!(tree.children(0).unwrap().len(), 1);
}

#[test]
fn an_archive_needs_no_end_marker_and_no_entry() {
    assert!(try_convert(&Tar::new().file("a", b"1").unfinished(), &Limits::default()).is_ok());
    assert!(try_convert(&Tar::new().finish(), &Limits::default()).is_ok());
    let empty = converted(b"");
    assert_eq!((empty.summary.entries, empty.summary.data_bytes), (0, 0));
    assert!(empty.tree().children(0).unwrap().is_empty());
}

#[test]
fn an_entry_without_a_name_is_the_root() {
    let archive = Tar::new().dir_mode("", 0o711).file("after", b"1").finish();
    let tree = converted(&archive).tree();
    assert_eq!(tree.inodes[0].attributes.mode, 0o711);
    assert!(exists(&tree, "after"));
    let error = try_convert(&Tar::new().file("", b"1").finish(), &Limits::default());
    assert!(matches!(error, Err(LayerError::ReplacesRoot { .. })));
}

#[test]
fn the_stream_is_read_to_its_end() {
    let mut archive = Tar::new().file("a", b"1").finish();
    archive.resize(100_000, 7);
    let mut reader = std::io::Cursor::new(&archive);
    let dir = tempfile::TempDir::new().unwrap();
    let summary = crate::layer::convert(&mut reader, dir.path(), &Limits::default()).unwrap();
    assert_eq!(reader.position(), 100_000);
    assert_eq!(summary.archive_bytes, 100_000);
}
