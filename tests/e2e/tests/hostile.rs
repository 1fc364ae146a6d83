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
            ("dev", Entry::Link("../../../../dev".into())),
            ("run", Entry::Link("/proc/1/root".into())),
        ]));
        b.command(&["import", "-", "links:1"]).with_input(tar).finish().ok();
        let out = b.run(&["run", "--rm", "links:1", "echo", "alive"]);
        assert!(out.code == 0 && out.text() == "alive" || out.code == 125, "{out:?}");
        b.expect_nothing_left();
    }
}

/// A tiny archive that unfolds to terabytes is stopped by its size, not by the disk.
#[test]
fn a_compressed_bomb_is_bounded() {
    let Some(b) = Bulkhead::new(User::Root) else {
        return;
    };
    let script = "import tarfile,io,gzip,sys\n\
        class Z(io.RawIOBase):\n\
        \x20def readable(self): return True\n\
        \x20def readinto(self, b):\n\
        \x20\x20b[:] = bytes(len(b)); return len(b)\n\
        t=tarfile.TarInfo('zeros'); t.size=1<<43\n\
        out=sys.stdout.buffer\n\
        out.write(t.tobuf())\n";
    let head = bulkhead_e2e::run_tool("python3", &["-c", script])
        .ok()
        .stdout;
    let out = b
        .command(&["import", "-", "bomb:1"])
        .with_input(head)
        .finish()
        .expect_code(1);
    assert!(out.stderr.contains("zeros"), "{}", out.stderr);
    assert_eq!(b.run(&["images", "-aq"]).ok().text(), "");
}
