//! One Bulkhead installation for one test.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::command::{self, Finished, Running};
use crate::{image, leftovers, platform};

/// Who runs the commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// uid 0.
    Root,
    /// An ordinary user without any privilege: uid 65534 when the tests run as root.
    Ordinary,
}

/// A state directory of its own, and the user who owns it.
pub struct Bulkhead {
    user: User,
    home: tempfile::TempDir,
    binary: PathBuf,
    cache: PathBuf,
    /// Further environment for every command.
    pub env: Vec<(String, String)>,
}

const NOBODY: u32 = 65534;

impl Bulkhead {
    /// A fresh, empty installation; `None` (said loudly) when this user cannot be had here.
    pub fn new(user: User) -> Option<Self> {
        command::heed_interrupts();
        let is_root = nix::unistd::geteuid().is_root();
        if user == User::Root && !is_root {
            crate::cannot_run!("the tests were not started as root");
            return None;
        }
        let home = tempfile::Builder::new()
            .prefix("bulkhead-e2e-")
            .tempdir()
            .expect("temporary directory");
        if user == User::Ordinary && is_root {
            std::os::unix::fs::chown(home.path(), Some(NOBODY), Some(NOBODY)).expect("chown");
        }
        let (binary, cache) = if user == User::Ordinary && is_root {
            staged().clone()
        } else {
            (binary(), cache_home())
        };
        Some(Self {
            user,
            home,
            binary,
            cache,
            env: Vec::new(),
        })
    }

    /// An installation in which the image `busybox:latest` exists.
    pub fn with_busybox(user: User) -> Option<Self> {
        let b = Self::new(user)?;
        b.command(&["import", "-c", "CMD [\"sh\"]", "-", "busybox:latest"])
            .with_input(image::busybox_tar())
            .finish()
            .ok();
        Some(b)
    }

    /// Directory that the user owns; free for the test's files.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The state root.
    pub fn root(&self) -> PathBuf {
        self.home.path().join("root")
    }

    /// Who runs the commands.
    pub fn user(&self) -> User {
        self.user
    }

    /// The process for `bulkhead ARGS`, not yet started.
    pub fn process(&self, args: &[&str]) -> Command {
        self.wrapped(&[], args)
    }

    /// As [`Bulkhead::command`], for a user who may not make a user namespace and has no privilege: as on a host that
    /// forbids them, which a user namespace of the test's own is made to look like.
    pub fn without_namespaces(&self, args: &[&str]) -> Prepared {
        let forbid = "echo 0 >/proc/sys/user/max_user_namespaces && \
                      exec setpriv --ambient-caps=-all --inh-caps=-all -- \"$0\" \"$@\"";
        let id = [
            "--user",
            "--map-user=1000",
            "--map-group=1000",
            "--keep-caps",
        ];
        let mut wrapper = vec!["unshare"];
        wrapper.extend(id);
        wrapper.extend(["sh", "-c", forbid]);
        Prepared {
            process: self.wrapped(&wrapper, args),
            input: None,
        }
    }

    /// As [`Bulkhead::command`], where the files below `etc` are seen over those in /etc. For root only.
    pub fn with_etc(&self, etc: &Path, args: &[&str]) -> Prepared {
        let over = "mount -t overlay overlay -o lowerdir=\"$0\":/etc /etc && exec \"$@\"";
        let etc = etc.to_str().expect("a path in UTF-8");
        Prepared {
            process: self.wrapped(&["unshare", "--mount", "sh", "-c", over, etc], args),
            input: None,
        }
    }

    /// `WRAPPER bulkhead ARGS`.
    fn wrapped(&self, wrapper: &[&str], args: &[&str]) -> Command {
        let binary = self.binary.as_os_str();
        let mut words: Vec<&OsStr> = wrapper.iter().map(OsStr::new).collect();
        words.push(binary);
        let mut command = if self.user == User::Ordinary && nix::unistd::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            let id = NOBODY.to_string();
            command.args([
                "--reuid",
                &id,
                "--regid",
                &id,
                "--clear-groups",
                "--inh-caps=-all",
                "--",
            ]);
            command.args(&words);
            command
        } else {
            let mut command = Command::new(words.first().unwrap_or(&binary));
            command.args(words.iter().skip(1));
            command
        };
        command
            .args(args)
            .current_dir(self.home.path())
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("XDG_DATA_HOME")
            .env("HOME", self.home.path())
            .env("XDG_CACHE_HOME", &self.cache)
            .env("BULKHEAD_ROOT", self.root())
            .envs(platform::asked_for().map(|i| ("BULKHEAD_ISOLATION", i.name())))
            .envs(self.env.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        command
    }

    /// A command to be refined and started.
    pub fn command(&self, args: &[&str]) -> Prepared {
        Prepared {
            process: self.process(args),
            input: None,
        }
    }

    /// Runs `bulkhead ARGS` to its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Finished {
        self.command(args).finish()
    }

    /// `bulkhead inspect NAME` as JSON (the first element).
    #[track_caller]
    pub fn inspect(&self, name: &str) -> serde_json::Value {
        let out = self.run(&["inspect", name]).ok();
        let value: serde_json::Value =
            serde_json::from_slice(&out.stdout).expect("inspect prints JSON");
        value.get(0).cloned().expect("inspect prints an array")
    }

    /// Waits until `bulkhead logs NAME` contains `text`.
    #[track_caller]
    pub fn wait_for_log(&self, name: &str, text: &str) {
        let appeared = platform::wait_until(std::time::Duration::from_secs(30), || {
            let out = self.run(&["logs", name]);
            out.text().contains(text) || out.stderr.contains(text)
        });
        assert!(appeared, "'{text}' never appeared in the log of {name}");
    }

    /// Asserts that no process, mount or container of this installation is left.
    #[track_caller]
    pub fn expect_nothing_left(&self) {
        leftovers::expect_none(&self.root());
        let ps = self.run(&["ps", "-aq"]).ok();
        assert_eq!(ps.text(), "", "containers are left");
    }
}

impl Drop for Bulkhead {
    fn drop(&mut self) {
        leftovers::kill_all(&self.root());
    }
}

/// A command before its start.
pub struct Prepared {
    process: Command,
    input: Option<Vec<u8>>,
}

impl Prepared {
    /// Bytes for its stdin.
    pub fn with_input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// One more environment variable.
    pub fn with_env(mut self, key: &str, value: &str) -> Self {
        self.process.env(key, value);
        self
    }

    /// Starts it in the background.
    pub fn start(mut self) -> Running {
        Running::start(&mut self.process, self.input.take())
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn finish(self) -> Finished {
        self.start().finish()
    }
}

/// The binary under test: `$BULKHEAD_BIN`, else the release build of this workspace.
pub fn binary() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = std::env::var_os("BULKHEAD_BIN").map_or_else(
        || {
            let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
            workspace.join(target).join("release/bulkhead")
        },
        PathBuf::from,
    );
    path.canonicalize().unwrap_or_else(|e| {
        panic!(
            "{} is not built ({e}); `make build` builds it",
            path.display()
        )
    })
}

/// Where guest kernels and images are cached; shared by all tests, because they are made once.
pub fn cache_home() -> PathBuf {
    std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache"),
        PathBuf::from,
    )
}

/// Copies of the binaries and of the guest kernels where every user can read them, and the cache directory
/// among them: root's home and the build directory may be closed to others.
fn staged() -> &'static (PathBuf, PathBuf) {
    static STAGED: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    STAGED.get_or_init(|| {
        let binary = binary();
        let about = std::fs::metadata(&binary).expect("binary");
        let dir = std::env::temp_dir().join(format!(
            "bulkhead-e2e-staged-{}-{}-{}",
            about.ino(),
            about.len(),
            about.mtime_nsec()
        ));
        if !dir.exists() {
            let part = tempfile::tempdir().expect("temporary directory").keep();
            let readable = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&part, readable).expect("chmod");
            for name in ["bulkhead", "bulkhead-agent"] {
                let from = binary.with_file_name(name);
                std::fs::copy(&from, part.join(name))
                    .unwrap_or_else(|e| panic!("cannot copy {}: {e}", from.display()));
            }
            let kernels = cache_home().join("bulkhead/kernels");
            for entry in std::fs::read_dir(kernels).into_iter().flatten().flatten() {
                for name in ["linux", "vmlinux"] {
                    let kernel = entry.path().join(name);
                    if kernel.is_file() {
                        let to = part.join("cache/bulkhead/kernels").join(entry.file_name());
                        std::fs::create_dir_all(&to).expect("directory for a kernel");
                        std::fs::copy(kernel, to.join(name)).expect("copy a kernel");
                    }
                }
            }
            // Another test process may have been quicker: then its copy serves.
            if std::fs::rename(&part, &dir).is_err() {
                let _ = std::fs::remove_dir_all(&part);
            }
        }
        (dir.join("bulkhead"), dir.join("cache"))
    })
}
