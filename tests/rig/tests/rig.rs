//! The suite on KVM: `cargo test --workspace --test rig -- [FILE…] [TEST…]`, or `make test-kvm`.
//!
//! | variable | meaning |
//! |---|---|
//! | `BULKHEAD_RIG_KERNEL` | our kernel for the emulated machines; by default the one built last; empty for none |
//! | `BULKHEAD_RIG_LIMIT` | seconds that an emulated machine may take |
//! | `BULKHEAD_RIG_MACHINES` | emulated machines at a time; by default one for each processor, as far as memory lasts |
//! | `BULKHEAD_RIG_USERS` | `both`: every promise as root and as an ordinary user, instead of by turns |
//! | `BULKHEAD_RIG_MONITOR` | where the emulator's monitor listens, to look into a machine that hangs; for one machine |
//! | `BULKHEAD_E2E_…` | as in the end-to-end tests, with other defaults there |

use std::io::{BufRead, BufReader, Stdout, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use bulkhead_rig::report::Report;
use bulkhead_rig::share::{self, Share};
use bulkhead_rig::{binaries, hardware, machine, payload, skips};

fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).collect();
    if let Some(option) = filters.iter().find(|word| word.starts_with('-')) {
        eprintln!("rig: {option}: only names of tests to run may be given here");
        return ExitCode::from(2);
    }
    match run(&filters) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(101),
        Err(error) => {
            eprintln!("rig: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("rig:   {cause}");
                source = cause.source();
            }
            ExitCode::from(101)
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn run(filters: &[String]) -> Result<bool, Failure> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()?;
    let mut binaries = binaries::build(&workspace)?;
    let (files, filters) = files_and_tests(filters, &binaries);
    if !files.is_empty() {
        binaries.retain(|binary| files.contains(&binary.name));
    }
    let mut shares = share::all(&binaries, &filters)?;
    let start = Instant::now();
    let mut report = Report::new(std::io::stdout());
    let obstacle = hardware::obstacle();
    let is_emulated = obstacle.is_some();
    match obstacle {
        None => {
            println!(
                "rig: skipped: this host has hardware virtualization, so the suite runs on it directly"
            );
            for share in &shares {
                directly(share, &mut report)?;
            }
        }
        Some(why) => {
            println!("rig: {why}: the suite runs in emulated machines");
            let is_whole = files.is_empty() && filters.is_empty();
            if is_whole
                && std::env::var_os("BULKHEAD_RIG_USERS").is_none_or(|users| users != "both")
            {
                shares = share::one_user_each(&shares);
                println!(
                    "rig: each promise once, by turns as root and as an ordinary user (BULKHEAD_RIG_USERS=both: twice)"
                );
            }
            emulated(&workspace, &binaries, &shares, &mut report)?;
        }
    }
    let list = std::fs::read_to_string(workspace.join("tests/expected-skips"))?;
    report.compare_skips(&skips::parse(&list)?, |facility| match facility {
        skips::OUTSIDE => !is_emulated,
        // A true /dev/kvm is what the rig is for.
        skips::VIRTUALIZATION => true,
        _ => false,
    });
    Ok(report.finish(start.elapsed().as_secs_f64())?)
}

/// Tells words that name a whole file of tests from parts of tests' names.
fn files_and_tests(
    words: &[String],
    binaries: &[binaries::TestBinary],
) -> (Vec<String>, Vec<String>) {
    words
        .iter()
        .cloned()
        .partition(|word| binaries.iter().any(|binary| binary.name == *word))
}

fn directly(share: &Share, report: &mut Report<impl Write>) -> Result<(), Failure> {
    let Share { binary, tests } = share;
    report.line(&format!("@@ begin {} {}", binary.name, tests.len()))?;
    // One pipe for both, so that lines keep their order.
    let (reader, writer) = std::io::pipe()?;
    let mut child = Command::new(&binary.path)
        .arg("--exact")
        .args(tests)
        .arg(format!(
            "--test-threads={}",
            std::thread::available_parallelism()?
        ))
        .current_dir(&binary.directory)
        .env("BULKHEAD_E2E_ISOLATION", "kvm")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()?;
    for line in BufReader::new(reader).split(b'\n') {
        report.line(&String::from_utf8_lossy(&line?))?;
    }
    let code = child.wait()?.code().unwrap_or(-1);
    report.line(&format!("@@ end {} {code}", binary.name))?;
    Ok(())
}

fn emulated(
    workspace: &Path,
    binaries: &[binaries::TestBinary],
    shares: &[Share],
    report: &mut Report<Stdout>,
) -> Result<(), Failure> {
    // Made outside, where there is a network, and given to the tests inside.
    bulkhead_e2e::debian_archive(&[]);
    let directory = tempfile::Builder::new()
        .prefix("bulkhead-rig-payload-")
        .tempdir()?;
    let (content, disk) = (
        directory.path().join("content"),
        directory.path().join("disk"),
    );
    let (bulkhead, cache) = (bulkhead_e2e::binary(), bulkhead_e2e::cache_home());
    let ours = match std::env::var_os("BULKHEAD_RIG_KERNEL") {
        None => payload::newest_kernel(&cache.join("bulkhead/kernels")),
        Some(path) if path.is_empty() => None,
        Some(path) => Some(path.into()),
    };
    let systems = [rig_system(workspace)?, PathBuf::from("/")];
    payload::make(
        &content,
        binaries,
        &payload::Sources {
            workspace,
            bulkhead: &bulkhead,
            kernel: ours.as_deref(),
            cache: &cache,
            systems: &systems,
        },
    )?;
    let made = Command::new(workspace.join("tests/rig/disk.sh"))
        .args([&content, &disk])
        .status()?;
    if !made.success() {
        return Err("the payload's disk cannot be made".into());
    }
    let (one, two) = share::by_processors(shares);
    let disk = &disk;
    let run = |processors: usize, share: Vec<Share>, mut report: Report<Stdout>| {
        move || {
            let plan = machine::Plan {
                workspace,
                disk,
                processors,
            };
            machine::run(plan, &share, &mut report).map(|()| report)
        }
    };
    let mut reports = std::thread::scope(|scope| {
        let dealt = share::deal(&one, machines()).into_iter();
        let running: Vec<_> = dealt
            .map(|share| scope.spawn(run(1, share, Report::new(std::io::stdout()))))
            .collect();
        let ended = running.into_iter().map(|machine| machine.join());
        ended.collect::<Vec<_>>()
    });
    if !two.is_empty() {
        let mut first = run(2, two.clone(), Report::of_a_first_try(std::io::stdout()))()?;
        let again = share::named(&two, &first.forget_failures());
        reports.push(Ok(Ok(first)));
        if !again.is_empty() {
            println!("rig: a second try, in another machine of several processors");
            reports.push(Ok(run(2, again, Report::new(std::io::stdout()))()));
        }
    }
    for other in reports {
        report.add(other.map_err(|_| "a machine's thread panicked")??);
    }
    Ok(())
}

/// Emulated machines at a time.
fn machines() -> usize {
    let asked = std::env::var("BULKHEAD_RIG_MACHINES").ok();
    asked
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            let memory = hardware::free_memory_mib() / machine::MEMORY;
            processors.min(usize::try_from(memory).unwrap_or(1)).max(1)
        })
}

/// Below which directory the kernel of the emulated machine lies.
fn rig_system(workspace: &Path) -> Result<PathBuf, Failure> {
    let found = Command::new(workspace.join("tests/rig/kernel.sh"))
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8(found.stdout)?;
    let (system, _) = text
        .trim()
        .rsplit_once(' ')
        .ok_or("the rig has no kernel")?;
    Ok(system.into())
}
