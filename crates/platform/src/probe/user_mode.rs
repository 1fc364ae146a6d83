//! Would the user-mode platform work? It needs a kernel, ptrace, and executable shared memory.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use bulkhead_types::{Isolation, chain};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::PlatformReport;
use crate::kernel::{KernelKind, KernelSearch, find_kernel};

/// Less free shared memory than this cannot hold a small guest.
const SMALL: u64 = 64 << 20;

pub(super) fn probe(search: &KernelSearch) -> PlatformReport {
    let mut obstacles = Vec::new();
    let mut remedies = Vec::new();
    let mut notes = vec!["a compartment has one CPU".to_owned()];
    if !cfg!(target_arch = "x86_64") {
        obstacles.push("user-mode kernels exist for x86-64 only".to_owned());
    }
    match find_kernel(Isolation::UserMode, search) {
        Ok(kernel) if kernel.kind == KernelKind::Distribution => notes.push(format!(
            "{} is a distribution's kernel and starts ten times slower than ours: run 'make kernel'",
            kernel.path.display()
        )),
        Ok(kernel) => notes.push(format!("guest kernel: {}", kernel.path.display())),
        Err(error) => {
            obstacles.push(chain(&error));
            remedies.push(error.remedy());
        }
    }
    if let Some(obstacle) = ptrace_scope(fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope")) {
        obstacles.push(obstacle);
        remedies.push(
            "set kernel.yama.ptrace_scope to 2 or less in /etc/sysctl.d and reboot".to_owned(),
        );
    }
    if let Err(error) = executable_memory() {
        obstacles.push(format!(
            "shared memory cannot be mapped executable, which guest programs need: {}",
            chain(&error)
        ));
    }
    shared_memory(&mut notes);
    PlatformReport {
        isolation: Isolation::UserMode,
        obstacles,
        remedies,
        notes,
    }
}

/// Yama's level 3 forbids ptrace to everybody, for good; below it a parent may trace its children.
fn ptrace_scope(setting: io::Result<String>) -> Option<String> {
    let level = setting.ok()?.trim().parse::<u32>().ok()?;
    (level >= 3).then(|| {
        "kernel.yama.ptrace_scope is 3: no process may trace another, which the guest kernel does to run programs"
            .to_owned()
    })
}

/// Attempts what the guest kernel does with its memory file.
fn executable_memory() -> io::Result<()> {
    // SAFETY: a live C string and a valid flag.
    let fd = unsafe { libc::memfd_create(c"probe".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor just made, owned by nobody else.
    let mut file = fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.write_all(&[0; 4096])?;
    // SAFETY: a fresh mapping of one page that nobody else refers to.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping made above.
    unsafe { libc::munmap(address, 4096) };
    Ok(())
}

/// /dev/shm matters only where the jail can have no tmpfs of its own.
fn shared_memory(notes: &mut Vec<String>) {
    match statvfs("/dev/shm") {
        Err(error) => notes.push(format!(
            "/dev/shm: {error}; needed only where namespaces are forbidden"
        )),
        Ok(status) => {
            if status.flags().contains(FsFlags::ST_NOEXEC) {
                notes.push(
                    "/dev/shm is mounted noexec; it serves only where namespaces are forbidden"
                        .to_owned(),
                );
            }
            let free = status.blocks_available() * status.fragment_size();
            if free < SMALL {
                notes.push(format!("/dev/shm has only {} MiB left", free >> 20));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_strictest_ptrace_scope_is_an_obstacle() {
        for allowed in ["0\n", "1\n", "2\n"] {
            assert_eq!(ptrace_scope(Ok(allowed.to_owned())), None);
        }
        assert!(
            ptrace_scope(Ok("3\n".to_owned()))
                .is_some_and(|reason| reason.contains("ptrace_scope is 3"))
        );
        assert_eq!(ptrace_scope(Err(io::ErrorKind::NotFound.into())), None);
    }

    #[test]
    fn executable_shared_memory_works_where_tests_run() {
        executable_memory().expect("memfd can be mapped executable");
    }

    #[test]
    fn a_missing_kernel_is_an_obstacle_and_what_to_do_is_said_once() {
        let report = probe(&KernelSearch::default());
        assert!(!report.works());
        let says = |lines: &[String]| lines.iter().any(|line| line.contains("make kernel"));
        assert!(says(&report.remedies), "{report:?}");
        assert!(!says(&report.obstacles), "{report:?}");
    }
}
