//! Images on disk: import, load, save, tag, rmi, prune, and what other tools make of the store.

use std::path::Path;

use bulkhead_e2e::{Bulkhead, User, busybox_tar, each_user, layer, run_tool, tool_exists};

each_user! {
    images_are_listed_tagged_and_removed(b) {
        let table = b.run(&["images"]).ok().text();
        for column in ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"] {
            assert!(table.lines().next().unwrap().contains(column), "{table}");
        }
        assert!(table.contains("busybox"), "{table}");
        b.run(&["tag", "busybox", "registry.example/team/box:v1"]).ok();
        assert_eq!(b.run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok().text().lines().count(), 2);
        let id = b.run(&["images", "-q", "--no-trunc", "busybox"]).ok().text();
        assert!(id.starts_with("sha256:"), "{id}");
        b.run(&["run", "--rm", &id[7..19], "true"]).ok();
        assert!(b.run(&["rmi", "registry.example/team/box:v1"]).ok().text().starts_with("Untagged:"));
        b.run(&["rmi", "no-such"]).expect_code(1).says("No such image: no-such");
        b.run(&["create", "--name", "user", "busybox"]).ok();
        b.run(&["rmi", "busybox"]).expect_code(1).says("is using");
        b.run(&["rm", "user"]).ok();
        assert!(b.run(&["rmi", "busybox"]).ok().text().contains("Deleted: sha256:"));
        assert_eq!(b.run(&["images", "-q"]).ok().text(), "");
        let left: Vec<_> = files(&b.root().join("image/blobs"));
        assert!(left.is_empty(), "blobs are left: {left:?}");
        assert!(files(&b.root().join("layers")).is_empty() && files(&b.root().join("disks")).is_empty());
    }

    configuration_given_at_import_is_honoured(b) {
        b.command(&["import", "-c", "ENTRYPOINT [\"echo\",\"entry\"]", "-c", "CMD [\"command\"]", "-c", "ENV A=b",
            "-c", "WORKDIR /tmp", "-c", "USER user", "-", "configured:v1"])
            .with_input(busybox_tar()).finish().ok();
        assert_eq!(b.run(&["run", "--rm", "configured:v1"]).ok().text(), "entry command");
        assert_eq!(b.run(&["run", "--rm", "configured:v1", "other"]).ok().text(), "entry other");
        assert_eq!(b.run(&["run", "--rm", "--entrypoint", "sh", "configured:v1", "-c", "pwd; id -un; echo $A"]).ok().text(), "/tmp\nuser\nb");
        let config = &b.inspect("configured:v1")["Config"];
        assert_eq!(config["WorkingDir"], "/tmp");
        assert!(b.run(&["history", "configured:v1"]).ok().text().contains("IMAGE"));
    }

    archives_of_every_kind_come_back_equal(b) {
        let id = b.run(&["images", "-q", "--no-trunc", "busybox"]).ok().text();
        for format in ["docker-archive", "oci-archive", "oci-dir"] {
            let name = format!("out.{format}");
            b.run(&["save", "--format", format, "-o", &name, "busybox"]).ok();
            let other = Bulkhead::new(b.user()).unwrap();
            let path = b.home().join(&name);
            make_readable(b.home());
            other.run(&["load", "-i", path.to_str().unwrap()]).ok();
            assert_eq!(other.run(&["run", "--rm", "busybox", "echo", "loaded"]).ok().text(), "loaded");
            assert_eq!(other.run(&["images", "-q", "--no-trunc", "busybox"]).ok().text(), id, "{format}");
        }
        let archive = b.run(&["save", "busybox"]).ok().stdout;
        let other = Bulkhead::new(b.user()).unwrap();
        let out = other.command(&["load"]).with_input(archive).finish().ok();
        assert!(out.text().contains("Loaded image: busybox:latest"), "{}", out.text());
    }

    load_says_which_image_loses_its_name_and_what_it_expects(b) {
        b.run(&["tag", "busybox", "team/box:1"]).ok();
        b.run(&["tag", "busybox", "team/box:2"]).ok();
        let archive = b.run(&["save", "team/box"]).ok().stdout;
        b.command(&["import", "-", "team/box:2"]).with_input(busybox_tar()).finish().ok();
        let moved = b.run(&["images", "-q", "--no-trunc", "team/box:2"]).ok().text();
        let out = b.command(&["load"]).with_input(archive).finish().ok().text();
        let mut lines: Vec<&str> = out.lines().collect();
        lines.sort_unstable();
        let renamed = format!("The image team/box:2 already exists, renaming the old one with ID {moved} to empty string");
        assert_eq!(lines, ["Loaded image: team/box:1", "Loaded image: team/box:2", renamed.as_str()]);

        b.command(&["load"]).with_input(b"hello".to_vec()).finish().expect_code(1)
            .says("no tar archive").says("docker-archive or an OCI layout");
    }

    skopeo_and_umoci_read_the_store(b) {
        if !(tool_exists("skopeo") && tool_exists("umoci")) { return; }
        make_readable(b.home());
        let info: serde_json::Value = serde_json::from_slice(&b.run(&["info", "--format", "json"]).ok().stdout).unwrap();
        let store = info["ImageStore"].as_str().unwrap().to_owned();
        let index: serde_json::Value =
            serde_json::from_slice(&std::fs::read(Path::new(&store).join("index.json")).unwrap()).unwrap();
        let name = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap().to_owned();
        let target = tempfile::tempdir().unwrap();
        let at = |n: &str| target.path().join(n).to_str().unwrap().to_owned();
        run_tool("skopeo", &["inspect", &format!("oci:{store}:{name}")]).ok();
        run_tool("skopeo", &["copy", "-q", &format!("oci:{store}:{name}"), &format!("docker-archive:{}:copied:v1", at("a.tar"))]).ok();
        run_tool("umoci", &["unpack", "--rootless", "--image", &format!("{store}:{name}"), &at("bundle")]).ok();
        assert!(Path::new(&at("bundle/rootfs/bin/busybox")).exists());
        let archive = std::fs::read(at("a.tar")).unwrap();
        b.command(&["load"]).with_input(archive).finish().ok();
        assert_eq!(b.run(&["run", "--rm", "copied:v1", "echo", "x"]).ok().text(), "x");
    }

    unused_images_are_pruned_and_used_ones_are_not(b) {
        b.command(&["import", "-"]).with_input(layer(&[("f", bulkhead_e2e::Entry::File(0o644, b"dangling".to_vec()))])).finish().ok();
        assert_eq!(b.run(&["images", "-q", "--filter", "dangling=true"]).ok().text().lines().count(), 1);
        b.run(&["create", "--name", "keeps", "busybox"]).ok();
        let pruned = b.run(&["image", "prune", "-f"]).ok().text();
        assert!(pruned.contains("Total reclaimed space"), "{pruned}");
        b.run(&["image", "prune", "-a", "-f"]).ok();
        assert_eq!(b.run(&["images", "-q"]).ok().text().lines().count(), 1);
        b.run(&["start", "-a", "keeps"]);
        b.run(&["rm", "keeps"]).ok();
    }
}

/// Layers merge in the guest as the OCI specification says: whiteouts, opaque directories, links.
#[test]
fn layers_merge_as_overlay_would() {
    let Some(b) = Bulkhead::with_busybox(User::Root) else {
        return;
    };
    if !tool_exists("umoci") {
        return;
    }
    use bulkhead_e2e::Entry::{Directory, File, HardLink, Link};
    let work = tempfile::tempdir().unwrap();
    let at = |n: &str| work.path().join(n).to_str().unwrap().to_owned();
    b.run(&["save", "--format", "oci-dir", "-o", &at("oci"), "busybox"])
        .ok();
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(at("oci/index.json")).unwrap()).unwrap();
    let name = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
        .as_str()
        .unwrap()
        .to_owned();
    let image = format!("{}:{name}", at("oci"));
    let layers: [&[(&str, bulkhead_e2e::Entry)]; 3] = [
        &[
            ("d", Directory(0o755)),
            ("d/gone", File(0o644, b"1".to_vec())),
            ("d/stays", File(0o640, b"2".to_vec())),
            ("o", Directory(0o755)),
            ("o/hidden", File(0o644, b"3".to_vec())),
            ("hard1", File(0o600, b"linked".to_vec())),
            ("hard2", HardLink("hard1".into())),
        ],
        &[
            ("d/.wh.gone", File(0, vec![])),
            ("o/.wh..wh..opq", File(0, vec![])),
            ("o/new", File(0o644, b"4".to_vec())),
        ],
        &[
            ("d/stays", File(0o4755, b"changed".to_vec())),
            ("s", Link("d/stays".into())),
            ("etc/.wh.not-executable", File(0, vec![])),
        ],
    ];
    for (number, entries) in layers.iter().enumerate() {
        let path = at(&format!("{number}.tar"));
        std::fs::write(&path, layer(entries)).unwrap();
        run_tool("umoci", &["raw", "add-layer", "--image", &image, &path]).ok();
    }
    b.run(&["load", "-i", &at("oci")]).ok();
    let script = "ls -A /d /o; cat /s; stat -c '%a %h' /d/stays /hard1; cat /hard2; echo; test -e /etc/not-executable || echo gone";
    let out = b
        .run(&["run", "--rm", "busybox", "sh", "-c", script])
        .ok()
        .text();
    assert_eq!(
        out,
        "/d:\nstays\n\n/o:\nnew\nchanged4755 1\n600 2\nlinked\ngone"
    );
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .flat_map(|e| {
            if e.path().is_dir() {
                files(&e.path())
            } else {
                vec![e.path()]
            }
        })
        .filter(|p| !p.to_string_lossy().ends_with("lock"))
        .collect()
}

/// Other tools run as root, and the other installation's user is the same: only the temporary
/// directory's own mode stands in the way.
fn make_readable(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
}
