//! The suite on KVM: `cargo test -p bulkhead-rig --test kvm -- [FILE…] [TEST…]`, or `make test-kvm`.
//!
//! | variable | meaning |
//! |---|---|
//! | `BULKHEAD_RIG_KERNEL` | our kernel for the emulated machine; by default the one built last; empty for none |
//! | `BULKHEAD_RIG_LIMIT` | seconds that the emulated machine may take |
//! | `BULKHEAD_RIG_MONITOR` | where the emulator's monitor listens, to look into a machine that hangs; by default nowhere |
//! | `BULKHEAD_E2E_…` | as in the end-to-end tests, with other defaults there |

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use bulkhead_rig::{binaries, hardware, payload, report::Report};

/// In the emulated machine a loop of 200 rounds does this part of them.
const SCALE: &str = "0.03";
/// A machine inside an emulated machine is this much slower than what the tests' deadlines were made for.
const PATIENCE: &str = "10";
/// Of the emulated machine, in mebibytes: one test wants a container with more than 4 GiB.
const MEMORY: &str = "6656";
/// A machine writes something every ten seconds; one that does not for so long stands still. The emulator is to blame
/// for that and not what it emulates, as for a machine whose own kernel dies, so another machine goes on; a test that
/// hangs in a machine that lives fails.
const SILENCE: Duration = Duration::from_secs(150);
/// How many at most. A file of tests that ends two of them is not the emulator's fault.
const MACHINES: usize = 4;
/// What the rig exits with when the machine died: tests/rig/run.sh.
const DIED: i32 = 125;
/// Longest time for the whole, in seconds.
const LIMIT: &str = "3300";

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
    let filters = &filters[..];
    let start = Instant::now();
    let mut report = Report::new(std::io::stdout());
    match hardware::obstacle() {
        None => {
            println!(
                "rig: skipped: this host has hardware virtualization, so the suite runs on it directly"
            );
            for binary in &binaries {
                directly(binary, filters, &mut report)?;
            }
        }
        Some(why) => {
            println!("rig: {why}: the suite runs in an emulated machine");
            emulated(&workspace, &binaries, filters, &mut report)?;
        }
    }
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

fn directly(
    binary: &binaries::TestBinary,
    filters: &[String],
    report: &mut Report<impl std::io::Write>,
) -> Result<(), Failure> {
    report.line(&format!("@@ begin {}", binary.name))?;
    // One pipe for both, so that lines keep their order.
    let (reader, writer) = std::io::pipe()?;
    let mut child = Command::new(&binary.path)
        .args(filters)
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
    filters: &[String],
    report: &mut Report<impl std::io::Write>,
) -> Result<(), Failure> {
    // Made outside, where there is a network, and given to the tests inside.
    bulkhead_e2e::debian_archive(&[]);
    let directory = tempfile::Builder::new()
        .prefix("bulkhead-rig-payload-")
        .tempdir()?;
    let (bulkhead, cache) = (bulkhead_e2e::binary(), bulkhead_e2e::cache_home());
    let ours = match std::env::var_os("BULKHEAD_RIG_KERNEL") {
        None => payload::newest_kernel(&cache.join("bulkhead/kernels")),
        Some(path) if path.is_empty() => None,
        Some(path) => Some(path.into()),
    };
    let systems = [rig_system(workspace)?, PathBuf::from("/")];
    payload::make(
        directory.path(),
        binaries,
        &payload::Sources {
            workspace,
            bulkhead: &bulkhead,
            kernel: ours.as_deref(),
            cache: &cache,
            systems: &systems,
        },
    )?;
    let mut left = binaries;
    let mut last = None;
    for _ in 0..MACHINES {
        payload::list(directory.path(), left)?;
        let Some(Lost { file, how }) = machine(workspace, directory.path(), filters, report)?
        else {
            return Ok(());
        };
        if last.as_ref() == Some(&file) {
            report.trouble(format!("two emulated machines ended in {file}"));
            return Ok(());
        }
        println!("rig: the emulated machine {how} in {file}: once more from there in another one");
        let done = left.iter().take_while(|b| b.name != file).count();
        left = &left[done..];
        last = Some(file);
    }
    report.trouble(format!("{MACHINES} emulated machines were lost"));
    Ok(())
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

/// A machine that did not come to its end.
struct Lost {
    /// The file of tests that it was in.
    file: String,
    how: &'static str,
}

/// Runs one machine, to its end or until it is lost.
fn machine(
    workspace: &Path,
    payload: &Path,
    filters: &[String],
    report: &mut Report<impl std::io::Write>,
) -> Result<Option<Lost>, Failure> {
    let setting = |name: &str, default: &str| {
        format!(
            "{name}={}",
            std::env::var(name).unwrap_or_else(|_| default.to_owned())
        )
    };
    let script = PathBuf::from(workspace).join("tests/rig/run.sh");
    let mut child = Command::new(script)
        .args([
            "--timeout",
            &std::env::var("BULKHEAD_RIG_LIMIT").unwrap_or_else(|_| LIMIT.into()),
        ])
        .args(["--memory", MEMORY, "--payload"])
        .arg(payload)
        .args(["--", "env"])
        .arg(setting("BULKHEAD_E2E_SCALE", SCALE))
        .arg(setting("BULKHEAD_E2E_PATIENCE", PATIENCE))
        .arg(setting("BULKHEAD_E2E_ISOLATION", "kvm"))
        .args(["sh", "/payload/suite.sh"])
        .args(filters)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let (sender, lines) = std::sync::mpsc::channel();
    let output = child.stdout.take().ok_or("the machine has no output")?;
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    loop {
        match lines.recv_timeout(SILENCE) {
            Ok(line) => report.line(&String::from_utf8_lossy(&line))?,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                if let Some(file) = report.forget_binary() {
                    let script = i32::try_from(child.id())?;
                    // SAFETY: kill(2) has no memory effects; the child is ours and not reaped yet.
                    unsafe { libc::kill(script, libc::SIGTERM) };
                    child.wait()?;
                    let how = "stood still";
                    return Ok(Some(Lost { file, how }));
                }
            }
        }
    }
    let status = child.wait()?;
    if status.code() == Some(DIED)
        && let Some(file) = report.forget_binary()
    {
        return Ok(Some(Lost { file, how: "died" }));
    }
    if !status.success() {
        report.trouble(format!("the emulated machine ended with {status}"));
    }
    Ok(None)
}
