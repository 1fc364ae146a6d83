//! What is shown is true.

use super::*;

#[test]
fn the_list_tells_the_truth_about_runs_that_were_killed() {
    let bench = Bench::new();
    let container = bench.named("web");
    let running = run(&container);
    assert_eq!(bench.list_with(false, &[]), ["web"]);
    let summary = bench
        .engine
        .list(&ListOptions::default())
        .unwrap()
        .remove(0);
    assert_eq!(
        (summary.state, summary.status.as_str()),
        ("running", "Up 5 minutes")
    );
    drop(running);
    assert!(
        bench.list_with(false, &[]).is_empty(),
        "nobody holds the lock: it does not run"
    );
    let summary = bench
        .engine
        .list(&ListOptions {
            all: true,
            ..Default::default()
        })
        .unwrap()
        .remove(0);
    assert_eq!(summary.state, "exited");
    assert!(
        summary.status.starts_with("Exited (137)"),
        "{}",
        summary.status
    );
    assert_eq!(bench.engine.wait(&container).unwrap().code, 137);
    bench
        .engine
        .remove("web", RemoveOptions::default())
        .unwrap();
    assert!(bench.list(&[]).is_empty());
}

#[test]
fn the_command_has_dockers_quotes() {
    let bench = Bench::new();
    bench
        .create(CreateOptions {
            command: ["sh", "-c", "sleep 1000", "it's"]
                .map(str::to_owned)
                .to_vec(),
            ..options()
        })
        .unwrap();
    let all = ListOptions {
        all: true,
        ..Default::default()
    };
    let summary = bench.engine.list(&all).unwrap().remove(0);
    assert_eq!(summary.command, "sh -c 'sleep 1000' it's");
}

#[test]
fn a_name_that_means_another_image_by_now_is_not_shown() {
    let bench = Bench::new();
    let store = bench.engine.store().unwrap();
    let import = |layer: &[u8]| {
        let options = bulkhead_image::ImportOptions {
            reference: Some("debian".parse().unwrap()),
            ..Default::default()
        };
        bulkhead_image::import(store, &mut &*layer, &options, &bulkhead_image::Quiet).unwrap()
    };
    let shown = || {
        let all = ListOptions {
            all: true,
            ..Default::default()
        };
        bench.engine.list(&all).unwrap().remove(0).image
    };
    let image = import(&[0; 1024]);
    let create = CreateImage {
        id: image.id.clone(),
        config: ImageConfig::default(),
        disk: vec!["/image".into()],
    };
    let guest = guest();
    bench
        .engine
        .create_from(&options(), &create, &guest)
        .unwrap();
    assert_eq!(shown(), "debian");
    let other = import(&[0; 2048]);
    assert_ne!(other.id, image.id);
    assert_eq!(shown(), image.id.to_string(), "the name moved on");
    bench.engine.remove_image("debian", true).unwrap();
    assert_eq!(shown(), image.id.to_string(), "the name is gone");
}

#[test]
fn filters_follow_dockers_rules() {
    let bench = Bench::new();
    let with = |name: &str, label: &str| {
        let labels = [
            (label.to_owned(), "1".to_owned()),
            ("all".to_owned(), String::new()),
        ]
        .into();
        bench
            .create(CreateOptions {
                name: Some(name.parse().unwrap()),
                labels,
                ..options()
            })
            .unwrap()
    };
    let one = with("one", "a");
    let two = with("two", "b");
    let three = with("three", "a");
    let _running = run(&one);
    record(&two, Status::Exited, Some(3));
    for (filters, expected) in [
        (vec![], vec!["three", "two", "one"]),
        (vec!["name=o"], vec!["two", "one"]),
        (vec!["name=^/one$"], vec!["one"]),
        (vec!["name=one", "name=three"], vec!["three", "one"]),
        (vec!["label=a"], vec!["three", "one"]),
        (vec!["label=a=1", "label=all"], vec!["three", "one"]),
        (vec!["label=a=2"], vec![]),
        (vec!["label=a", "label=b"], vec![]),
        (vec!["status=running"], vec!["one"]),
        (
            vec!["status=created", "status=exited"],
            vec!["three", "two"],
        ),
        (vec!["status=paused"], vec![]),
        (vec!["exited=3"], vec!["two"]),
        (vec!["exited=0"], vec![]),
        (vec!["ancestor=debian"], vec!["three", "two", "one"]),
        (vec!["ancestor=alpine"], vec![]),
        (vec!["since=one"], vec!["three", "two"]),
        (vec!["before=two"], vec!["one"]),
        (vec!["label=a", "status=running"], vec!["one"]),
    ] {
        assert_eq!(bench.list(&filters), expected, "{filters:?}");
    }
    let id = format!("id={}", three.id().short());
    assert_eq!(bench.list(&[&id]), ["three"]);
    assert_eq!(
        bench.list_with(false, &["status=exited"]),
        ["two"],
        "a status shows what does not run"
    );
    assert_eq!(bench.list_with(false, &["label=all"]), ["one"]);
    let last = ListOptions {
        last: Some(1),
        ..Default::default()
    };
    assert_eq!(bench.engine.list(&last).unwrap()[0].name.as_str(), "three");
    for bad in [
        "colour=red",
        "status=happy",
        "exited=x",
        "name=(",
        "since=nobody",
    ] {
        let options = ListOptions {
            filters: Filters::parse([bad]).unwrap(),
            ..Default::default()
        };
        assert!(bench.engine.list(&options).is_err(), "{bad}");
    }
    assert!(Filters::parse(["name"]).is_err());
}

#[test]
fn what_does_not_run_cannot_be_signalled_but_can_be_stopped() {
    let bench = Bench::new();
    let container = bench.named("web");
    assert_eq!(
        message(bench.engine.kill(&container, "web", Signal::TERM)),
        format!(
            "cannot kill container: web: container {} is not running",
            container.id()
        )
    );
    assert_eq!(
        bench
            .engine
            .stop(&container, StopOptions::default())
            .unwrap(),
        None
    );
    assert_eq!(bench.engine.wait(&container).unwrap().code, 0);
    let exec = ExecOptions {
        command: vec!["id".into()],
        ..Default::default()
    };
    let error = bench
        .engine
        .exec(&container, &exec, Default::default(), Default::default())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("container {} is not running", container.id())
    );
}

#[test]
fn inspect_has_dockers_shape() {
    let bench = Bench::new();
    let config = ConfigBuilder::default()
        .cmd(vec!["ignored".into()])
        .exposed_ports(vec!["80/tcp".into()])
        .volumes(vec!["/data".into()])
        .build()
        .unwrap();
    let flags = CreateOptions {
        name: Some("web".parse().unwrap()),
        env: vec!["A=1".into()],
        ulimits: vec!["nofile=5:-1".into()],
        tmpfs: vec!["/run:size=1m".into()],
        cap_drop: vec!["ALL".into()],
        stop_signal: Some(Signal::INT),
        ..options()
    };
    let container = create(&bench.engine, &flags, config).unwrap();
    record(&container, Status::Exited, Some(3));
    let json = bench.engine.inspect(&container).unwrap();
    let at = |pointer: &str| {
        json.pointer(pointer)
            .unwrap_or_else(|| panic!("{pointer} in {json:#}"))
            .clone()
    };
    assert_eq!(at("/Id"), container.id().as_str());
    assert_eq!(at("/Name"), "/web");
    assert_eq!((at("/Path"), at("/Args/1")), ("sh".into(), "true".into()));
    assert_eq!(
        (at("/State/Status"), at("/State/ExitCode")),
        ("exited".into(), 3.into())
    );
    assert_eq!(
        (at("/State/Running"), at("/State/Pid")),
        (false.into(), 0.into())
    );
    assert_ne!(at("/State/FinishedAt"), "0001-01-01T00:00:00Z");
    assert_eq!(at("/Config/Cmd/0"), "sh");
    assert!(at("/Config/Entrypoint").is_null());
    assert_eq!(at("/Config/Env/0"), "A=1");
    assert_eq!(at("/Config/StopSignal"), "SIGINT");
    assert!(at("/Config/ExposedPorts/80~1tcp").is_object());
    assert_eq!(
        at("/HostConfig/Ulimits/0"),
        serde_json::json!({"Name": "nofile", "Soft": 5, "Hard": -1})
    );
    assert_eq!(at("/HostConfig/Tmpfs/~1run"), "size=1m");
    assert_eq!(at("/HostConfig/CapDrop/0"), "ALL");
    assert_eq!(at("/Mounts/0/Destination"), "/data");
    assert_eq!(at("/Mounts/1/Type"), "tmpfs");
    assert_eq!(
        json.as_object().unwrap().keys().next().unwrap(),
        "Id",
        "keys keep their order"
    );
}
