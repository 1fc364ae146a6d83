//! What is said about a run that goes on although something is wrong.

use bulkhead_sandbox::{DiskFault, WarnedDisk, Warning};
use oci_spec::image::ConfigBuilder;

use super::*;

#[test]
fn a_warning_names_the_disk_the_cause_and_the_remedy() {
    let bench = Bench::new();
    let config = ConfigBuilder::default()
        .volumes(vec!["/data".into()])
        .build()
        .unwrap();
    let container = create(&bench.engine, &options(), config).unwrap();
    let dir = container.dir().display();
    assert!(container.run_warnings().is_empty());
    let warning = |disk, fault| Warning { disk, fault };
    let state = State {
        warnings: vec![
            warning(WarnedDisk::Scratch, DiskFault::OutOfSpace),
            warning(WarnedDisk::Volume(0), DiskFault::OutOfSpace),
            // Nobody has made sure that the sandbox speaks of a volume that there is.
            warning(WarnedDisk::Volume(7), DiskFault::OutOfSpace),
            warning(WarnedDisk::Image, DiskFault::Io(libc::EIO)),
        ],
        ..State::created()
    };
    let bytes = serde_json::to_vec(&state).unwrap();
    fs::write(container.dir().join(STATE_FILE), bytes).unwrap();
    let full = |what: &str, place: &str| {
        format!(
            "the host's disk is full: writes to {what} failed with 'No space left on device'; free space in {place}"
        )
    };
    let own = dir.to_string();
    let expected = [
        full("the container's disk", &own),
        full("the disk of volume '/data'", &format!("{own}/volumes")),
        full("the disk of volume 7", &own),
        format!(
            "the host failed a request to the image's disk: Input/output error; \
             see {own}/sandbox.log and the host's kernel log"
        ),
    ];
    assert_eq!(container.run_warnings(), expected);
    let shown = bench.engine.inspect(&container).unwrap();
    assert_eq!(shown["Bulkhead"]["Warnings"], serde_json::json!(expected));
    assert_eq!(shown["State"]["Error"], "");
}
