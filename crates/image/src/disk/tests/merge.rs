//! What an image's layers look like on top of each other.

use super::listing::{Listing, of_disk, text_at};
use super::{built, finish, try_build};
use crate::layer::testing::Tar;
use bulkhead_types::chain;

fn merged(layers: Vec<Tar>) -> Listing {
    of_disk(&built(&finish(layers)))
}

fn paths(listing: &Listing) -> Vec<&str> {
    listing.keys().map(String::as_str).collect()
}

fn complaint(layers: Vec<Tar>) -> String {
    let text = chain(&try_build(&finish(layers)).err().unwrap());
    // Without the temporary directory's name.
    text.split_once(": ").unwrap().1.to_owned()
}

#[test]
fn an_image_without_layers_is_an_empty_root() {
    let listing = merged(vec![]);
    assert_eq!(paths(&listing), ["/"]);
    assert_eq!(listing["/"].mode, 0o40755);
    assert_eq!(listing["/"].nlink, 2);
}

#[test]
fn upper_files_replace_lower_ones_and_directories_join() {
    let listing = merged(vec![
        Tar::new()
            .dir_mode("d", 0o700)
            .file("d/a", b"1")
            .file("d/b", b"2"),
        Tar::new()
            .dir_mode("d", 0o711)
            .file("d/b", b"22")
            .file("d/c", b"3"),
    ]);
    assert_eq!(paths(&listing), ["/", "/d", "/d/a", "/d/b", "/d/c"]);
    assert_eq!(listing["/d"].mode, 0o40711);
    assert!(text_at(&listing, "/d/a", b"1"));
    assert!(text_at(&listing, "/d/b", b"22"));
}

#[test]
fn whiteouts_remove_files_and_whole_directories() {
    let listing = merged(vec![
        Tar::new()
            .file("a", b"")
            .file("d/x/y", b"")
            .file("d/z", b""),
        Tar::new()
            .file(".wh.a", b"")
            .file("d/.wh.x", b"")
            .file(".wh.never", b""),
    ]);
    assert_eq!(paths(&listing), ["/", "/d", "/d/z"]);
}

#[test]
fn a_whiteout_beside_the_new_directory_hides_the_old_contents() {
    let listing = merged(vec![
        Tar::new().file("d/old", b""),
        Tar::new().dir("d").file("d/new", b"").file(".wh.d", b""),
    ]);
    assert_eq!(paths(&listing), ["/", "/d", "/d/new"]);
}

#[test]
fn opaque_directories_hide_everything_below_at_any_depth() {
    let listing = merged(vec![
        Tar::new()
            .file("d/old", b"")
            .file("d/sub/old", b"")
            .file("keep", b""),
        Tar::new()
            .dir("d")
            .file("d/sub/new", b"")
            .file("d/.wh..wh..opq", b""),
    ]);
    assert_eq!(
        paths(&listing),
        ["/", "/d", "/d/sub", "/d/sub/new", "/keep"]
    );
    let listing = merged(vec![
        Tar::new().file("a", b"").file("d/old", b""),
        Tar::new().file(".wh..wh..opq", b"").file("b", b""),
        Tar::new().file("a", b"again"),
    ]);
    assert_eq!(paths(&listing), ["/", "/a", "/b"]);
}

#[test]
fn what_was_removed_can_come_back() {
    let listing = merged(vec![
        Tar::new().file("a", b"1"),
        Tar::new().file(".wh.a", b""),
        Tar::new().file("a", b"3"),
    ]);
    assert!(text_at(&listing, "/a", b"3"));
}

#[test]
fn kinds_replace_each_other() {
    let listing = merged(vec![
        Tar::new().file("f", b"").file("d/x", b"").symlink("s", "d"),
        Tar::new().file("f/in", b"").file("d", b"").dir("s"),
    ]);
    assert_eq!(paths(&listing), ["/", "/d", "/f", "/f/in", "/s"]);
    assert_eq!(listing["/s"].mode, 0o40755);
}

#[test]
fn a_directory_that_a_layer_only_passes_through_keeps_its_attributes() {
    let listing = merged(vec![
        Tar::new().dir_mode("root", 0o700),
        Tar::new().file("root/x", b""),
    ]);
    assert_eq!(listing["/root"].mode, 0o40700);
    assert_eq!(listing["/root"].mtime, (1_000_000_000, 0));
}

#[test]
fn a_layer_that_passes_through_a_symbolic_link_reaches_its_target() {
    let listing = merged(vec![
        Tar::new()
            .dir("usr/lib")
            .symlink("lib", "usr/lib")
            .symlink("usr/up", "../etc")
            .dir("etc"),
        Tar::new()
            .file("lib/x", b"")
            .file("usr/up/y", b"")
            .file("lib/.wh.z", b""),
    ]);
    assert_eq!(
        paths(&listing),
        [
            "/",
            "/etc",
            "/etc/y",
            "/lib",
            "/usr",
            "/usr/lib",
            "/usr/lib/x",
            "/usr/up"
        ]
    );
    assert_eq!(listing["/lib"].mode, 0o120_777);
    // One that leads nowhere gives way.
    let listing = merged(vec![
        Tar::new().symlink("lib", "gone"),
        Tar::new().file("lib/x", b""),
    ]);
    assert_eq!(paths(&listing), ["/", "/lib", "/lib/x"]);
}

#[test]
fn hard_links_have_one_inode_and_the_right_count() {
    let listing = merged(vec![
        Tar::new()
            .file("a", b"1")
            .hard_link("d/b", "a")
            .hard_link("c", "a"),
        Tar::new().file(".wh.c", b""),
    ]);
    assert_eq!(listing["/d/b"].same_as, "/a");
    assert_eq!(listing["/a"].nlink, 2);
    assert_eq!(listing["/"].nlink, 3);
    assert_eq!(listing["/d"].nlink, 2);
}

#[test]
fn hard_links_reach_into_lower_layers() {
    let listing = merged(vec![
        Tar::new().file("usr/a", b"1").symlink("way", "usr"),
        Tar::new()
            .hard_link("b", "way/a")
            .hard_link("c", "b")
            .file("usr/a", b"2"),
    ]);
    assert_eq!(listing["/c"].same_as, "/b");
    assert!(text_at(&listing, "/b", b"1"));
    assert!(text_at(&listing, "/usr/a", b"2"));
    assert_eq!(listing["/b"].nlink, 2);
}

#[test]
fn hard_links_to_nothing_or_to_a_directory_are_named() {
    assert_eq!(
        complaint(vec![
            Tar::new().file("x", b""),
            Tar::new().hard_link("b", "gone/a")
        ]),
        "hard link \"b\" points at \"gone/a\", which does not exist"
    );
    assert_eq!(
        complaint(vec![
            Tar::new().dir("usr"),
            Tar::new().hard_link("b", "usr")
        ]),
        "hard link \"b\" points at the directory \"usr\""
    );
}

#[test]
fn more_than_a_hundred_layers_merge() {
    let mut layers = vec![Tar::new().file("common", b"0").dir("d")];
    for number in 1..130 {
        let mut layer = Tar::new().file(&format!("d/{number}"), number.to_string().as_bytes());
        if number > 2 {
            layer = layer.file(&format!("d/.wh.{}", number - 2), b"");
        }
        layers.push(layer.file("common", number.to_string().as_bytes()));
    }
    let listing = merged(layers);
    assert_eq!(paths(&listing), ["/", "/common", "/d", "/d/128", "/d/129"]);
    assert!(text_at(&listing, "/common", b"129"));
    assert!(text_at(&listing, "/d/128", b"128"));
}

#[test]
fn the_same_layer_twice_is_the_same_image() {
    let layer = Tar::new().file("a", &[3; 10_000]);
    let listing = merged(vec![layer.clone(), layer.clone()]);
    assert!(text_at(&listing, "/a", &[3; 10_000]));
}
