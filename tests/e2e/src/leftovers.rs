//! What a compartment may leave behind: processes, mounts, locks. Found by the state root's path or
//! by ancestry, never by trusting what Bulkhead says about itself.

use std::collections::HashMap;
use std::path::Path;

/// A process, as /proc shows it.
#[derive(Debug, Clone)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// Parent.
    pub parent: i32,
    /// Arguments joined by blanks; the short name in brackets when there are none.
    pub line: String,
}

/// Every process that was started for the state root, with all of their descendants.
pub fn sandbox_processes(root: &Path) -> Vec<Process> {
    let all = processes();
    let needle = root.to_string_lossy().into_owned();
    let environment = format!("BULKHEAD_ROOT={needle}");
    let me = std::process::id().cast_signed();
    let mut found: HashMap<i32, Process> = all
        .iter()
        .filter(|p| p.pid != me)
        .filter(|p| {
            p.line.contains(&needle)
                || std::fs::read(format!("/proc/{}/environ", p.pid))
                    .is_ok_and(|e| e.split(|b| *b == 0).any(|v| v == environment.as_bytes()))
        })
        .map(|p| (p.pid, p.clone()))
        .collect();
    loop {
        let more: Vec<Process> = all
            .iter()
            .filter(|p| found.contains_key(&p.parent) && !found.contains_key(&p.pid))
            .cloned()
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more.into_iter().map(|p| (p.pid, p)));
    }
    found.into_values().collect()
}

fn processes() -> Vec<Process> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<i32>().ok())
        else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let Some((head, tail)) = stat.rsplit_once(')') else {
            continue;
        };
        let mut fields = tail.split_whitespace();
        if fields.next() == Some("Z") {
            continue;
        }
        let parent = fields.next().and_then(|f| f.parse().ok()).unwrap_or(0);
        let args = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut line = String::from_utf8_lossy(&args).replace('\0', " ");
        if line.is_empty() {
            line = format!("[{}]", head.split_once('(').map_or("", |(_, name)| name));
        }
        all.push(Process { pid, parent, line });
    }
    all
}

/// What a compartment leaves to end after its command has returned, ends within two seconds.
const GONE_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// Panics when a process or a mount of the state root is left and does not go.
#[track_caller]
pub fn expect_none(root: &Path) {
    let mut left = Vec::new();
    let gone = crate::wait_until(crate::guard(GONE_WITHIN), || {
        left = sandbox_processes(root);
        left.is_empty()
    });
    assert!(gone, "processes are left: {left:#?}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let root = root.to_string_lossy();
    let left: Vec<_> = mounts
        .lines()
        .filter(|line| line.contains(&*root))
        .collect();
    assert!(left.is_empty(), "mounts are left: {left:#?}");
}

/// Ends whatever a failed test left running.
pub fn kill_all(root: &Path) {
    for process in sandbox_processes(root) {
        // SAFETY: kill(2) has no memory effects.
        unsafe { libc::kill(process.pid, libc::SIGKILL) };
    }
}
