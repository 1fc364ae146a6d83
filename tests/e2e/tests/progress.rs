//! Progress on a terminal: it fits, and what a command says in the end is still to be read.

use std::time::Duration;

use bulkhead_e2e::{
    Bulkhead, DockerRegistry, Entry, Fault, FaultyRegistry, Terminal, each_user, layer, screen,
};

each_user! {
    /// The names were drawn over: nobody saw what was loaded.
    load_on_a_terminal_says_what_it_loaded(b) {
        let (busybox, other) = ("Loaded image: busybox:latest", "Loaded image: other:1");
        b.command(&["import", "-", "other:1"]).with_input(tar(400_000)).finish().ok();
        let file = b.home().join("both.tar");
        let file = file.to_str().unwrap();
        b.run(&["save", "-o", file, "busybox", "other:1"]).ok();
        b.run(&["rmi", "-f", "busybox", "other:1"]).ok();
        let mut t = Terminal::start(b.process(&["load", "-i", file]));
        assert_eq!(t.wait(), 0);
        let rows = settled(&t, other, 80);
        for said in [busybox, other] {
            assert!(rows.iter().any(|row| row == said), "{said}: {rows:#?}");
        }
        assert_always_fits(&t.shown(), 80);
    }

    progress_fits_a_terminal_of_any_width(b) {
        let Some(registry) = DockerRegistry::start() else { return };
        let image = published(b, &registry);
        for columns in [60, 80, 100] {
            let proxy = FaultyRegistry::before(&registry, "/blobs/", Fault::Slow, 1000);
            let name = proxy.image("slow:1");
            let mut t = Terminal::start_with_columns(b.process(&["pull", &name]), columns);
            t.expect("Downloading");
            assert_eq!(t.wait(), 0);
            let rows = settled(&t, &format!("{name}\r\n"), columns.into());
            assert_always_fits(&t.shown(), columns.into());
            assert_eq!(rows.iter().filter(|row| row.contains(": ") && row.contains("Pull complete")).count(), 1, "{rows:#?}");
            b.run(&["rmi", "-f", &name]).ok();
        }
        let mut t = Terminal::start(b.process(&["pull", &image]));
        assert_eq!(t.wait(), 0);
        let file = b.home().join("one.tar");
        let file = file.to_str().unwrap();
        b.run(&["save", "-o", file, &image]).ok();
        b.run(&["rmi", "-f", &image]).ok();
        let mut t = Terminal::start_with_columns(b.process(&["load", "-i", file]), 60);
        assert_eq!(t.wait(), 0);
        t.expect("Loaded image");
        assert_always_fits(&t.shown(), 60);
    }

    progress_fits_a_terminal_that_becomes_narrower(b) {
        let Some(registry) = DockerRegistry::start() else { return };
        published(b, &registry);
        let proxy = FaultyRegistry::before(&registry, "/blobs/", Fault::Slow, 1000);
        let mut t = Terminal::start_with_columns(b.process(&["pull", &proxy.image("slow:1")]), 100);
        t.expect("Downloading");
        t.resize(24, 60);
        // A frame that was being drawn meanwhile is of the old width.
        std::thread::sleep(Duration::from_millis(500));
        let before = t.shown().len();
        assert_eq!(t.wait(), 0);
        t.expect("Downloaded newer image");
        let shown = t.shown();
        let after = shown.get(before..).unwrap();
        let frame = after.find('\r').expect("it was drawn after the resize");
        assert!(after.contains("Downloading"), "it was over before the resize");
        assert_always_fits(&after[frame..], 60);
    }

    /// A bar of another make was shown until the first news came.
    progress_is_drawn_one_way_from_the_first_frame(b) {
        let file = b.home().join("one.tar");
        std::fs::write(&file, tar(400_000)).unwrap();
        let mut t = Terminal::start(b.process(&["import", file.to_str().unwrap(), "one:1"]));
        assert_eq!(t.wait(), 0);
        t.expect("sha256:");
        assert_always_fits(&t.shown(), 80);
        for strange in ["\u{2591}", "\u{2588}", "0/0"] {
            assert!(!t.shown().contains(strange), "{strange}: {:?}", t.shown());
        }
    }
}

/// A layer with so many bytes that do not compress.
fn tar(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    std::io::Read::read_exact(
        &mut std::fs::File::open("/dev/urandom").unwrap(),
        &mut noise,
    )
    .unwrap();
    layer(&[("noise", Entry::File(0o644, noise))])
}

/// An image with one layer, in the registry and nowhere else.
fn published(b: &Bulkhead, registry: &DockerRegistry) -> String {
    let image = registry.image("slow:1");
    b.command(&["import", "-", &image])
        .with_input(tar(400_000))
        .finish()
        .ok();
    b.run(&["push", &image]).ok();
    b.run(&["rmi", "-f", &image]).ok();
    image
}

/// The screen once `last` was shown.
fn settled(t: &Terminal, last: &str, columns: usize) -> Vec<String> {
    t.expect(last);
    screen(&t.shown(), columns)
}

/// As [`assert_fits`], at every moment: what is drawn next hides that something did not fit.
fn assert_always_fits(shown: &str, columns: usize) {
    for (at, _) in shown.match_indices('\r') {
        if !shown[at..].starts_with("\r\n") {
            assert_fits(&screen(&shown[..at], columns), columns);
        }
    }
    assert_fits(&screen(shown, columns), columns);
}

/// Every row is one that something was meant to have: a rest that wrapped has no beginning.
fn assert_fits(rows: &[String], columns: usize) {
    let known = [
        "rootfs: ",
        "Loaded image: ",
        "Digest: sha256:",
        "Status: ",
        "Using default tag",
        "localhost:",
        "sha256:",
    ];
    for (n, row) in rows.iter().enumerate() {
        let item = row.split(": ").next().unwrap_or_default();
        let layer = item.len() == 12 && item.bytes().all(|b| b.is_ascii_hexdigit());
        let named =
            known.iter().any(|known| row.starts_with(known)) || row.contains(": Pulling from ");
        // What the command itself says may be longer than the terminal is wide.
        let rest = n > 0 && rows[n - 1].chars().count() == columns && !rows[n - 1].contains('[');
        assert!(layer || named || rest, "{row:?} of {rows:#?}");
    }
}
