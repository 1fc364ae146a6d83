//! What `rm` and `prune` take and leave.

use super::*;

#[test]
fn a_running_container_is_not_removed_without_force() {
    let bench = Bench::new();
    let container = bench.named("web");
    let running = run(&container);
    let refused = bench.engine.remove("web", RemoveOptions::default());
    assert_eq!(refused.as_ref().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(
        message(refused),
        "cannot remove container \"/web\": container is running: stop the container before removing or force remove"
    );
    assert!(container.dir().exists());
    drop(running);
    bench
        .engine
        .remove("web", RemoveOptions::default())
        .unwrap();
    assert!(bench.entries("containers").is_empty() && bench.entries("names").is_empty());
    assert_eq!(
        message(bench.engine.remove("web", RemoveOptions::default())),
        "No such container: web"
    );
}

/// A sandbox that answers nobody: a process that holds the container's lock and stands in its state, and no socket.
#[test]
fn force_kills_what_runs_and_removes_it() {
    let bench = Bench::new();
    let container = bench.named("web");
    let mut held = run(&container);
    // Only a process with a name of ours is killed.
    let mut sandbox = std::os::unix::process::CommandExt::arg0(
        &mut std::process::Command::new("sleep"),
        "bulkhead: sandbox web",
    )
    .arg("1000")
    .stdin(held.file.take().unwrap())
    .spawn()
    .unwrap();
    std::mem::forget(held);
    let mut state = bulkhead_sandbox::read_state(container.dir()).unwrap();
    state.pid = sandbox.id().cast_signed();
    let state = serde_json::to_vec(&state).unwrap();
    fs::write(container.dir().join(STATE_FILE), state).unwrap();

    let refused = bench.engine.remove("web", RemoveOptions::default());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(
        sandbox.try_wait().unwrap().is_none(),
        "without force it lives"
    );
    let force = RemoveOptions { force: true };
    bench.engine.remove("web", force).unwrap();
    let end = sandbox.wait().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&end),
        Some(libc::SIGKILL)
    );
    assert!(bench.entries("containers").is_empty() && bench.entries("names").is_empty());
}

#[test]
fn a_container_with_a_damaged_record_hides_nobody_and_can_be_removed() {
    let bench = Bench::new();
    let damaged = bench.named("bad");
    bench.named("good");
    fs::write(damaged.dir().join("config.json"), "{").unwrap();
    assert_eq!(bench.list(&[]), ["good"]);
    let error = bench.engine.container("bad").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("damaged container configuration"),
        "{error}"
    );
    bench
        .engine
        .remove(damaged.id().as_str(), RemoveOptions::default())
        .unwrap();
    assert_eq!(bench.entries("names"), ["good"]);
    bench.named("bad");
}

#[test]
fn a_record_of_a_newer_version_is_not_misread() {
    let bench = Bench::new();
    let container = bench.named("web");
    fs::write(container.dir().join("config.json"), "{\"version\": 99}").unwrap();
    assert!(message(bench.engine.container("web")).contains("version 99"));
}

#[test]
fn pruning_takes_what_does_not_run_and_matches() {
    let bench = Bench::new();
    let (exited, running) = (bench.named("exited"), bench.named("running"));
    bench.named("created");
    record(&exited, Status::Exited, Some(0));
    let _run = run(&running);
    let none = bench
        .engine
        .prune_containers(&Filters::parse(["until=24h"]).unwrap())
        .unwrap();
    assert_eq!(none, PruneReport::default());
    let none = bench
        .engine
        .prune_containers(&Filters::parse(["label=x"]).unwrap())
        .unwrap();
    assert!(none.removed.is_empty());
    let report = bench
        .engine
        .prune_containers(&Filters::parse(["label!=x"]).unwrap())
        .unwrap();
    assert_eq!(report.removed.len(), 2);
    assert!(report.reclaimed > 0);
    assert_eq!(bench.list(&[]), ["running"]);
    assert!(
        bench
            .engine
            .prune_containers(&Filters::parse(["name=x"]).unwrap())
            .is_err()
    );
}

/// Its end was on record, so people saw that it had ended, but `rm` and `start` took it for running.
#[test]
fn a_run_that_takes_its_last_steps_is_waited_for() {
    let bench = Bench::new();
    let container = bench.named("web");
    let run = run(&container);
    record(&container, Status::Exited, Some(0));
    let ender = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(120));
        drop(run);
    });
    bench
        .engine
        .remove("web", RemoveOptions::default())
        .expect("it has ended");
    ender.join().unwrap();
    assert!(bench.list(&[]).is_empty());
}

/// What cannot be read may need any image, and an image that was imported cannot be had again.
#[test]
fn an_unreadable_or_newer_record_protects_every_image() {
    let bench = Bench::new();
    let store = bench.engine.store().unwrap();
    let image = bulkhead_image::import(
        store,
        &mut [0_u8; 1024].as_slice(),
        &bulkhead_image::ImportOptions {
            reference: Some("kept:1".parse().unwrap()),
            ..Default::default()
        },
        &bulkhead_image::Quiet,
    )
    .unwrap();
    let container = bench.named("web");
    let file = container.dir().join("config.json");
    let good = fs::read_to_string(&file).unwrap();
    let newer = good.replacen("\"version\":1", "\"version\":999", 1);
    assert_ne!(good, newer);
    for (record, remedy) in [
        ("{", "repair the file"),
        (newer.as_str(), "the bulkhead that wrote it"),
    ] {
        fs::write(&file, record).unwrap();
        for text in ["kept:1", image.id.short().as_str()] {
            let refused = bench.engine.remove_image(text, true).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Conflict);
            assert!(
                refused.to_string().contains(container.id().short()),
                "{refused}"
            );
            let hint = refused.hint().unwrap();
            assert!(
                hint.contains(remedy) && hint.contains(container.id().short()),
                "{hint}"
            );
        }
        bench
            .engine
            .prune_images(false, &Filters::default())
            .unwrap_err();
        bench
            .engine
            .prune_images(true, &Filters::default())
            .unwrap_err();
        bench.engine.image("kept:1").unwrap();
    }
    let force = RemoveOptions { force: true };
    bench.engine.remove(container.id().short(), force).unwrap();
    bench.engine.remove_image("kept:1", false).unwrap();
}
