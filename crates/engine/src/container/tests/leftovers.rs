//! What killed processes leave behind goes.

use super::*;

#[test]
fn what_killed_creations_and_removals_left_is_swept() {
    let bench = Bench::new();
    let kept = bench.named("web");
    let half = bench
        .engine
        .root
        .container(&"a".repeat(64).parse().unwrap());
    fs::create_dir(&half).unwrap();
    fs::write(half.join("scratch.ext4"), "").unwrap();
    std::os::unix::fs::symlink("a".repeat(64), bench.dir.path().join("names/half")).unwrap();
    for cut_off in [
        format!(".removed-{}", "b".repeat(64)),
        format!("{}.removed", "c".repeat(64)),
    ] {
        let dir = bench.dir.path().join("containers").join(cut_off);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("config.json"), "{}").unwrap();
    }
    {
        // Whoever creates at this moment has an unfinished directory too.
        let _creating = bench.engine.root.creating().unwrap();
        assert_eq!(bench.engine.sweep().unwrap(), 0);
        assert!(half.exists());
    }
    assert_eq!(bench.engine.sweep().unwrap(), 3);
    assert_eq!(bench.entries("containers"), [kept.id().to_string()]);
    assert_eq!(bench.entries("names"), ["web"]);
}

#[test]
fn containers_with_rm_whose_monitor_was_killed_go_by_themselves() {
    let bench = Bench::new();
    let rm = |name: &str| {
        bench
            .create(CreateOptions {
                name: Some(name.parse().unwrap()),
                auto_remove: true,
                ..options()
            })
            .unwrap()
    };
    let (dead, running, fresh) = (rm("dead"), rm("running"), rm("fresh"));
    drop(run(&dead));
    let _run = run(&running);
    // Its name is free without anybody having looked at the list.
    let reused = rm("dead");
    assert_ne!(reused.id(), dead.id());
    drop(run(&reused));
    let mut names = bench.list(&[]);
    names.sort();
    assert_eq!(names, ["fresh", "running"]);
    assert!(fresh.dir().exists());
    assert_eq!(bench.entries("names").len(), 2);
}

#[test]
fn after_the_monitor_removed_a_container_its_name_is_given_up() {
    let bench = Bench::new();
    let container = bench
        .create(CreateOptions {
            name: Some("web".parse().unwrap()),
            auto_remove: true,
            ..options()
        })
        .unwrap();
    fs::remove_dir_all(container.dir()).unwrap();
    bench.engine.settle(&container).unwrap();
    assert!(bench.entries("names").is_empty());
    assert_eq!(
        message(bench.engine.start(&container, StartOptions::default())),
        format!("No such container: {}", container.id())
    );
}

#[test]
fn what_is_no_containers_stays_in_the_directory_of_containers() {
    let bench = Bench::new();
    let kept = bench.named("web");
    let containers = bench.dir.path().join("containers");
    let other_directories = ["lost+found", "pods", ".removed-notes", "notes.removed"];
    for name in other_directories {
        fs::create_dir(containers.join(name)).unwrap();
    }
    let files = [
        "notes",
        &"a".repeat(64),
        &format!(".removed-{}", "b".repeat(64)),
    ]
    .map(|name| containers.join(name));
    for file in &files {
        fs::write(file, "mine").unwrap();
    }
    fs::write(bench.dir.path().join("names/notes"), "mine").unwrap();
    assert_eq!(bench.engine.sweep().unwrap(), 0);
    assert_eq!(bench.list(&[]), ["web"]);
    let pruned = bench.engine.prune_containers(&Filters::default()).unwrap();
    assert_eq!(pruned.removed, [kept.id().clone()]);
    assert!(files.iter().all(|file| file.is_file()));
    assert!(
        other_directories
            .iter()
            .all(|name| containers.join(name).is_dir())
    );
    assert_eq!(bench.entries("names"), ["notes"]);
    let no_container = bench
        .engine
        .remove(&"a".repeat(64), RemoveOptions::default());
    assert_eq!(
        message(no_container),
        format!("No such container: {}", "a".repeat(64))
    );
}

/// A record that was not forced to the disk may be empty after a power cut.
#[test]
fn a_container_with_an_empty_record_was_never_finished() {
    let bench = Bench::new();
    let half = bench.named("web");
    fs::write(half.dir().join("config.json"), "").unwrap();
    assert!(bench.engine.containers().unwrap().is_empty());
    assert_eq!(bench.engine.sweep().unwrap(), 1);
    assert!(bench.entries("containers").is_empty());
    bench.named("web");
}
