//! The state directory is its owner's alone, whatever mode it had before.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use bulkhead_e2e::{Bulkhead, User};

/// Neither root nor the ordinary user of these tests.
const STRANGER: u32 = 65_533;

/// Whether somebody else can do it.
fn stranger_can(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command
        .args(args)
        .uid(STRANGER)
        .gid(STRANGER)
        .current_dir("/");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

/// Every directory from `/` to this one lets others pass, so that only the state directory's own modes keep them out.
fn open_way(dir: &Path) {
    for above in dir.ancestors().skip(1) {
        let mode = std::fs::metadata(above).unwrap().mode();
        if mode & 0o005 != 0o005 {
            let open = std::fs::Permissions::from_mode(mode & 0o7777 | 0o055);
            std::fs::set_permissions(above, open).unwrap();
        }
    }
}

fn files(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            files(&path, found);
        }
        found.push(path);
    }
}

fn nobody_else_enters(b: &Bulkhead, what: &str) {
    let mut found = Vec::new();
    files(&b.root(), &mut found);
    for needed in ["locks/content", "locks/index", "image/index.json"] {
        assert!(found.contains(&b.root().join(needed)), "{what}: {needed}");
    }
    for path in found {
        let text = path.to_str().unwrap();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        if meta.is_symlink() {
            continue;
        }
        assert!(
            !stranger_can("flock", &["-s", "-n", text, "true"]),
            "{what}: {text} can be locked"
        );
        assert!(
            !stranger_can("test", &["-r", text]),
            "{what}: {text} can be read"
        );
    }
}

fn promise(user: User) {
    let Some(b) = Bulkhead::new(user) else {
        return;
    };
    if !nix::unistd::geteuid().is_root() {
        bulkhead_e2e::cannot_run!("another user's processes can be started by root only");
        return;
    }
    let home = std::fs::metadata(b.home()).unwrap();
    std::fs::create_dir_all(b.root()).unwrap();
    for dir in b.root().ancestors().take_while(|dir| *dir != b.home()) {
        std::os::unix::fs::chown(dir, Some(home.uid()), Some(home.gid())).unwrap();
    }
    std::fs::set_permissions(b.root(), std::fs::Permissions::from_mode(0o755)).unwrap();
    open_way(&b.root());
    let tar = bulkhead_e2e::busybox_tar();
    b.command(&["import", "-", "i:1"])
        .with_input(tar)
        .finish()
        .ok();
    b.run(&["create", "--name", "cc", "i:1", "true"]).ok();
    assert!(
        stranger_can("test", &["-x", b.root().to_str().unwrap()]),
        "the way is not open"
    );
    nobody_else_enters(&b, "new");

    // As an older version left it: open directories, locks that anybody could open.
    let open = |name: &str, mode| {
        let path = b.root().join(name);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for name in [
        "image",
        "layers",
        "disks",
        "tmp",
        "partial",
        "locks",
        "names",
        "containers",
        "cache",
    ] {
        open(name, 0o755);
    }
    open("locks/content", 0o644);
    let lock = b.root().join("locks/content");
    let lock = lock.to_str().unwrap();
    assert!(
        stranger_can("flock", &["-s", "-n", lock, "true"]),
        "this test cannot see a lock"
    );
    b.run(&["tag", "i:1", "i:2"]).ok();
    b.run(&["create", "i:1", "true"]).ok();
    nobody_else_enters(&b, "older");
}

#[test]
fn a_state_directory_that_others_could_enter_is_closed_for_root() {
    promise(User::Root);
}

#[test]
fn a_state_directory_that_others_could_enter_is_closed_for_a_user() {
    promise(User::Ordinary);
}

/// Somebody prepares a state directory in a place where everybody may write, and root takes it.
fn prepared_by_a_stranger(b: &Bulkhead) {
    std::fs::create_dir_all(b.root()).unwrap();
    let mode = |mode| {
        std::fs::set_permissions(b.root(), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open_way(&b.root());
    mode(0o1777);
    for piece in ["locks", "layers"] {
        let path = b.root().join(piece);
        assert!(stranger_can("mkdir", &["-p", path.to_str().unwrap()]));
    }
    let index = b.root().join("locks/index");
    let index = index.to_str().unwrap();
    assert!(stranger_can("touch", &[index]));
    let import = || {
        b.command(&["import", "-", "i:1"])
            .with_input(bulkhead_e2e::busybox_tar())
            .finish()
    };
    import()
        .expect_code(1)
        .says("is writable by others (mode 1777)")
        .says("chmod 0700");
    mode(0o755);
    let stranger = STRANGER.to_string();
    for verb in [&["images"][..], &["ps"], &["create", "i:1"]] {
        b.run(verb)
            .expect_code(1)
            .says("belongs to user")
            .says(&stranger)
            .says("chown");
    }
    // Only the lock is left to be theirs.
    for piece in ["locks", "layers"] {
        std::os::unix::fs::chown(b.root().join(piece), Some(0), Some(0)).unwrap();
    }
    import().expect_code(1).says("locks/index belongs to user");
    std::os::unix::fs::chown(index, Some(0), Some(0)).unwrap();
    import().ok();
}

#[test]
fn a_state_directory_that_a_stranger_prepared_is_refused() {
    if let Some(b) = Bulkhead::new(User::Root) {
        prepared_by_a_stranger(&b);
    }
}
