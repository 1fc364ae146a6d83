//! Archives and images made to harm: each is refused with a message that names the entry, and
//! nothing of it is left.

use bulkhead_e2e::{Bulkhead, Entry, User, each_user, layer};

each_user! {
    hostile_layers_are_refused_by_name(b) {
        let cases: [(&str, Vec<(&str, Entry)>); 4] = [
            ("../escape", vec![("../escape", Entry::File(0o644, vec![1]))]),
            ("a/../../escape", vec![("a/../../escape", Entry::File(0o644, vec![1]))]),
            ("outside", vec![("h", Entry::HardLink("../../outside".into()))]),
            ("nowhere", vec![("h", Entry::HardLink("nowhere".into()))]),
        ];
        let before = b.run(&["images", "-aq"]).ok().text();
        for (named, entries) in cases {
            b.command(&["import", "-", "bad:1"]).with_input(layer(&entries)).finish().expect_code(1).says(named);
        }
        b.command(&["import", "-", "bad:2"]).with_input("not a tar at all ".repeat(100)).finish().expect_code(1);
        let mut truncated = bulkhead_e2e::busybox_tar();
        truncated.truncate(truncated.len() / 2);
        b.command(&["import", "-", "bad:3"]).with_input(truncated).finish().expect_code(1);
        assert_eq!(b.run(&["images", "-aq"]).ok().text(), before);
        b.command(&["load"]).with_input("garbage").finish().expect_code(1);
        let tmp = b.root().join("tmp");
        let left: Vec<_> = std::fs::read_dir(&tmp).map(|d| d.flatten().collect()).unwrap_or_default();
        assert!(left.is_empty(), "left in {}: {left:?}", tmp.display());
    }

    links_in_the_image_lead_nowhere_outside(b) {
        let mut tar = bulkhead_e2e::busybox_tar();
        tar.truncate(tar.len() - 1024);
        tar.extend(layer(&[
            ("proc", Entry::Link("/tmp".into())),
            ("run", Entry::Link("/proc/1/root".into())),
        ]));
        b.command(&["import", "-", "links:1"]).with_input(tar).finish().ok();
        let out = b.run(&["run", "--rm", "links:1", "echo", "alive"]).ok();
        assert_eq!(out.text(), "alive");
        b.expect_nothing_left();
    }

    a_dev_that_leads_to_itself_is_named(b) {
        let mut tar = bulkhead_e2e::busybox_tar();
        tar.truncate(tar.len() - 1024);
        tar.extend(layer(&[("dev", Entry::Link("../../../../dev".into()))]));
        b.command(&["import", "-", "loop:1"]).with_input(tar).finish().ok();
        b.run(&["run", "--rm", "loop:1", "echo", "alive"]).expect_code(125).says("/dev");
        b.expect_nothing_left();
    }
}

/// A file of 300 GiB of zeros, in an archive whose first 64 MiB are 64 KiB of gzip: it is stopped by what it says of its
/// size, and not by the disk or by its own end.
#[test]
fn a_compressed_bomb_is_bounded() {
    let Some(b) = Bulkhead::new(User::Root) else {
        return;
    };
    let script = "import gzip, sys, tarfile\n\
        head = tarfile.TarInfo('zeros'); head.size = 300 << 30\n\
        sys.stdout.buffer.write(gzip.compress(head.tobuf() + bytes(64 << 20)))\n";
    let bomb = bulkhead_e2e::run_tool("python3", &["-c", script])
        .ok()
        .stdout;
    assert!(bomb.len() < 1 << 20, "{} bytes", bomb.len());
    b.command(&["import", "-", "bomb:1"])
        .with_input(bomb)
        .finish()
        .expect_code(1)
        .says("\"zeros\" exceeds the limit of 274877906944 bytes");
    assert_eq!(b.run(&["images", "-aq"]).ok().text(), "");
    let tmp = b.root().join("tmp");
    let left = std::fs::read_dir(&tmp).map_or(0, Iterator::count);
    assert_eq!(left, 0, "something is left in {}", tmp.display());
}
