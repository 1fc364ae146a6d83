use super::{Tar, converted, finish};
use crate::Bounds;
use crate::disk::{Found, look};

#[test]
fn a_path_is_looked_up_as_the_container_would_see_it() {
    let layers: Vec<_> = finish(vec![
        Tar::new()
            .dir("data")
            .file("gone", b"x")
            .file("data/file", b"x"),
        Tar::new()
            .file(".wh.gone", b"")
            .symlink("link", "/data/../data")
            .symlink("up", "../../data/file")
            .symlink("loop", "loop"),
    ])
    .iter()
    .map(|archive| converted(archive))
    .collect();
    let dirs: Vec<_> = layers
        .iter()
        .map(|layer| layer.dir.path().to_owned())
        .collect();
    for (path, expected) in [
        ("/", Found::Directory),
        ("/data/", Found::Directory),
        ("/data/file", Found::Other),
        ("/data/file/below", Found::Other),
        ("/data/none/below", Found::Nothing),
        ("/gone", Found::Nothing),
        ("/link", Found::Directory),
        ("/link/file", Found::Other),
        ("/up", Found::Other),
        ("/loop", Found::Nothing),
    ] {
        let found = look(&dirs, &[path.to_owned()], &Bounds::default()).unwrap();
        assert_eq!(found, [expected], "{path}");
    }
}
