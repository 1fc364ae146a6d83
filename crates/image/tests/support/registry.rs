//! Debian's docker-registry on a free loopback port.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Registry {
    child: Child,
    pub host: String,
    _dir: tempfile::TempDir,
}

/// `user:sesame`, as htpasswd -B writes it.
const HTPASSWD: &str = "user:$2b$05$/09YZwasWSlb70bxKD8hWeC45a//h4VBL0ZpvLBggcsy8dqk4NKNW\n";

impl Registry {
    pub fn start() -> Self {
        Self::start_with(false)
    }

    /// Wants user `user` with password `sesame`.
    pub fn start_with_password() -> Self {
        Self::start_with(true)
    }

    fn start_with(password: bool) -> Self {
        // Another process may take the port between asking and using it: then try another.
        for _ in 0..5 {
            if let Some(registry) = Self::try_start(password) {
                return registry;
            }
        }
        panic!("docker-registry does not come up");
    }

    fn try_start(password: bool) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let host = format!("127.0.0.1:{port}");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {0}/data}}, delete: {{enabled: true}}}}\nhttp: {{addr: {host}}}\n",
            dir.path().display()
        );
        if password {
            std::fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
            config += &format!(
                "auth: {{htpasswd: {{realm: test, path: {}/htpasswd}}}}\n",
                dir.path().display()
            );
        }
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let spawned = Command::new("docker-registry")
            .args(["serve", file.to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                panic!(
                    "docker-registry IS MISSING: this test needs it (apt-get install docker-registry)"
                )
            }
            Err(e) => panic!("cannot run docker-registry: {e}"),
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if TcpStream::connect(&host).is_ok() {
                return Some(Self {
                    child,
                    host,
                    _dir: dir,
                });
            }
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        None
    }

    /// A familiar name in this registry.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
