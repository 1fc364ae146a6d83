//! From what a user types to a container.

use super::*;

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
