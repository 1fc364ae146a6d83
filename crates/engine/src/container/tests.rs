//! Containers on disk, end to end but for the guest: a run is acted by a lock and a state file, which
//! is all that the engine believes in.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use bulkhead_platform::{KernelImage, KernelKind};
use bulkhead_sandbox::{LOCK_FILE, STATE_FILE, State, Status, is_running};
use bulkhead_types::{ByteSize, Digest, ExitStatus, Isolation, Signal};
use jiff::{SignedDuration, Timestamp};
use nix::fcntl::{FcntlArg, fcntl};
use oci_spec::image::{Config as ImageConfig, ConfigBuilder};
use tempfile::TempDir;

use super::create::CreateImage;
use super::*;
use crate::guest::Guest;
use crate::{Engine, EngineConfig, Environment, Error, ErrorKind};

struct Bench {
    dir: TempDir,
    engine: Engine,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path());
        Self { dir, engine }
    }

    fn create(&self, options: CreateOptions) -> Result<Container, Error> {
        create(&self.engine, &options, ImageConfig::default())
    }

    fn named(&self, name: &str) -> Container {
        self.create(CreateOptions {
            name: Some(name.parse().unwrap()),
            ..options()
        })
        .unwrap()
    }

    fn entries(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path().join(dir)).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    fn list(&self, filters: &[&str]) -> Vec<String> {
        self.list_with(true, filters)
    }

    fn list_with(&self, all: bool, filters: &[&str]) -> Vec<String> {
        let options = ListOptions {
            all,
            filters: Filters::parse(filters).unwrap(),
            ..Default::default()
        };
        self.engine
            .list(&options)
            .unwrap()
            .into_iter()
            .map(|c| c.name.to_string())
            .collect()
    }
}

fn open(root: &Path) -> Engine {
    let environment = Environment {
        uid: 1000,
        ..Default::default()
    };
    Engine::open(EngineConfig {
        root: Some(root.to_owned()),
        config_file: None,
        environment,
    })
    .unwrap()
}

fn options() -> CreateOptions {
    CreateOptions {
        image: "debian".to_owned(),
        command: vec!["sh".to_owned(), "-c".to_owned(), "true".to_owned()],
        disk: Some(ByteSize(32 << 20)),
        ..Default::default()
    }
}

fn create(
    engine: &Engine,
    options: &CreateOptions,
    config: ImageConfig,
) -> Result<Container, Error> {
    let image = CreateImage {
        id: Digest::from_bytes([7; 32]),
        config,
        disk: vec!["/image".into()],
    };
    let guest = Guest {
        isolation: Isolation::UserMode,
        kernel: kernel(),
        initramfs: "/initramfs".into(),
    };
    engine.create_from(options, &image, &guest)
}

fn kernel() -> KernelImage {
    KernelImage {
        path: "/kernel".into(),
        kind: KernelKind::Tuned,
        modules: None,
        libraries: Vec::new(),
    }
}

/// A run: the lock is held as long as this lives.
struct Run {
    file: Option<File>,
    dir: PathBuf,
}

impl Drop for Run {
    fn drop(&mut self) {
        drop(self.file.take());
        // Another test's thread may be between fork and exec, with a copy of the descriptor.
        while self.dir.exists() && is_running(&self.dir).unwrap() {
            std::thread::yield_now();
        }
    }
}

fn run(container: &Container) -> Run {
    let file = File::create(container.dir().join(LOCK_FILE)).unwrap();
    let lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    record(container, Status::Running, None);
    Run {
        file: Some(file),
        dir: container.dir().to_owned(),
    }
}

fn record(container: &Container, status: Status, code: Option<u8>) {
    let ago = Timestamp::now() - SignedDuration::from_secs(300);
    let state = State {
        status,
        started_at: (status != Status::Created).then_some(ago),
        finished_at: (status == Status::Exited).then_some(ago),
        exit: code.map(ExitStatus::exited),
        ..State::created()
    };
    fs::write(
        container.dir().join(STATE_FILE),
        serde_json::to_vec(&state).unwrap(),
    )
    .unwrap();
}

fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().to_string()
}

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
fn containers_are_found_by_id_name_and_unique_prefix() {
    let bench = Bench::new();
    let container = bench.named("web");
    let engine = &bench.engine;
    let id = container.id().to_string();
    for reference in [id.as_str(), "web", "/web", &id[..12], &id[..20]] {
        assert_eq!(
            engine.container(reference).unwrap().id(),
            container.id(),
            "{reference}"
        );
    }
    assert_eq!(message(engine.container("nope")), "No such container: nope");
    assert_eq!(
        engine.container("../web").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        engine.container("").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    // Sixteen prefixes of one digit: among 17 containers two share one.
    for _ in 0..16 {
        bench.create(options()).unwrap();
    }
    let shared = "0123456789abcdef"
        .chars()
        .map(String::from)
        .find(|digit| {
            bench
                .entries("containers")
                .iter()
                .filter(|id| id.starts_with(digit))
                .count()
                > 1
        })
        .unwrap();
    assert_eq!(
        message(engine.container(&shared)),
        format!("multiple IDs found with provided prefix: {shared}")
    );
}

#[test]
fn a_name_that_looks_like_a_prefix_wins_over_the_prefix() {
    let bench = Bench::new();
    let first = bench.create(options()).unwrap();
    let short = first.id().short().to_owned();
    let second = bench.named(&short);
    assert_eq!(bench.engine.container(&short).unwrap().id(), second.id());
}

#[test]
fn a_lost_name_index_is_rebuilt_from_the_records() {
    let bench = Bench::new();
    let container = bench.named("web");
    fs::remove_file(bench.dir.path().join("names/web")).unwrap();
    assert_eq!(bench.engine.container("web").unwrap().id(), container.id());
    assert_eq!(bench.entries("names"), ["web"]);
}

#[test]
fn a_name_is_used_once_and_the_message_is_dockers() {
    let bench = Bench::new();
    let first = bench.named("web");
    let again = bench.create(CreateOptions {
        name: Some("web".parse().unwrap()),
        ..options()
    });
    assert_eq!(again.as_ref().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(
        message(again),
        format!(
            "Conflict. The container name \"/web\" is already in use by container \"{}\". \
             You have to remove (or rename) that container to be able to reuse that name.",
            first.id()
        )
    );
    assert_eq!(
        bench.entries("containers").len(),
        1,
        "the failed attempt left nothing"
    );
    bench
        .engine
        .remove("web", RemoveOptions::default())
        .unwrap();
    bench.named("web");
}

#[test]
fn of_many_who_create_the_same_name_at_once_one_succeeds() {
    let bench = Bench::new();
    bench.create(options()).unwrap();
    let root = bench.dir.path();
    let created: usize = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(move || {
                    let flags = CreateOptions {
                        name: Some("web".parse().unwrap()),
                        ..options()
                    };
                    create(&open(root), &flags, ImageConfig::default()).is_ok()
                })
            })
            .collect();
        tries
            .into_iter()
            .map(|t| usize::from(t.join().unwrap()))
            .sum()
    });
    assert_eq!(created, 1);
    assert_eq!(bench.entries("containers").len(), 2);
    assert_eq!(bench.list(&["name=^web$"]), ["web"]);
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
        .remove(
            "web",
            RemoveOptions {
                force: true,
                volumes: true,
            },
        )
        .unwrap();
    assert!(bench.entries("containers").is_empty() && bench.entries("names").is_empty());
    assert_eq!(
        message(bench.engine.remove("web", RemoveOptions::default())),
        "No such container: web"
    );
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
fn the_name_of_a_half_made_container_can_be_had_at_once() {
    let bench = Bench::new();
    let half = bench
        .engine
        .root
        .container(&"a".repeat(64).parse().unwrap());
    fs::create_dir(&half).unwrap();
    std::os::unix::fs::symlink("a".repeat(64), bench.dir.path().join("names/web")).unwrap();
    let container = bench.named("web");
    assert_eq!(bench.engine.container("web").unwrap().id(), container.id());
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

#[test]
fn cpus_that_cannot_be_had_are_a_warning() {
    let bench = Bench::new();
    let warnings = |cpus| {
        bench
            .create(CreateOptions { cpus, ..options() })
            .unwrap()
            .warnings()
            .len()
    };
    assert_eq!(warnings(None), 0);
    assert_eq!(warnings(Some(1.0)), 0);
    assert_eq!(warnings(Some(0.5)), 1);
}
