//! What `create` makes and refuses.

use super::*;

#[test]
fn a_created_container_is_complete_on_disk_and_read_back_equal() {
    let bench = Bench::new();
    let container = bench
        .create(CreateOptions {
            name: Some("web".parse().unwrap()),
            memory: Some(ByteSize(64 << 20)),
            tmpfs: vec!["/run".into()],
            ..options()
        })
        .unwrap();
    let spec = &container.record().sandbox;
    assert_eq!(spec.process.args, ["sh", "-c", "true"]);
    assert_eq!(spec.memory_limit, Some(ByteSize(64 << 20)));
    assert!(
        spec.memory.0 > 64 << 20,
        "the guest needs memory beyond the limit"
    );
    assert_eq!(
        fs::metadata(spec.scratch.as_ref().unwrap()).unwrap().len(),
        32 << 20
    );
    let read = open(bench.dir.path()).container("web").unwrap();
    assert_eq!(read.record(), container.record());
    assert_eq!(read.state().unwrap().status, Status::Created);
}

#[test]
fn volumes_of_the_image_are_disks_of_the_container() {
    let bench = Bench::new();
    let config = ConfigBuilder::default()
        .volumes(vec!["/var/lib/db".into(), "/cache".into()])
        .build()
        .unwrap();
    let flags = CreateOptions {
        tmpfs: vec!["/cache".into()],
        read_only: true,
        ..options()
    };
    let container = create(&bench.engine, &flags, config).unwrap();
    let spec = &container.record().sandbox;
    assert_eq!(spec.scratch, None, "a read-only root needs no disk");
    assert_eq!(spec.volumes.len(), 1);
    assert_eq!(spec.volumes[0].target, "/var/lib/db");
    assert!(spec.volumes[0].path.is_file());
    bench
        .engine
        .remove(container.id().as_str(), RemoveOptions::default())
        .unwrap();
    assert!(bench.entries("containers").is_empty());
}

#[test]
fn bad_options_are_refused_before_anything_is_made() {
    let bench = Bench::new();
    let bad = [
        CreateOptions {
            memory: Some(ByteSize(1)),
            ..options()
        },
        CreateOptions {
            disk: Some(ByteSize(1)),
            ..options()
        },
        CreateOptions {
            cpus: Some(1e9),
            ..options()
        },
        CreateOptions {
            cap_add: vec!["FLY".into()],
            ..options()
        },
        CreateOptions {
            ulimits: vec!["x".into()],
            ..options()
        },
        CreateOptions {
            tmpfs: vec!["x".into()],
            ..options()
        },
        CreateOptions {
            workdir: Some("x".into()),
            ..options()
        },
        CreateOptions {
            hostname: Some("-".into()),
            ..options()
        },
        CreateOptions {
            env: vec!["=x".into()],
            ..options()
        },
        CreateOptions {
            command: vec![],
            ..options()
        },
    ];
    for flags in bad {
        let error = bench.create(flags.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{flags:?}: {error}");
    }
    assert!(bench.entries("containers").is_empty());
    assert!(bench.entries("names").is_empty());
}

#[test]
fn a_part_of_a_cpu_is_the_guests_to_limit_and_what_cannot_be_had_is_a_warning() {
    let bench = Bench::new();
    let created = |cpus| {
        let container = bench.create(CreateOptions { cpus, ..options() }).unwrap();
        let limit = container.record().sandbox.cpu_limit_nanos;
        (limit, container.warnings().len())
    };
    assert_eq!(created(None), (0, 0));
    assert_eq!(created(Some(1.0)), (0, 0));
    assert_eq!(created(Some(0.5)), (500_000_000, 0));
    if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1) {
        assert_eq!(created(Some(2.0)), (0, 1));
    }
}
