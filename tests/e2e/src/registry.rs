//! A real registry on loopback (Debian's docker-registry), and a proxy before it that fails on purpose.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Debian's docker-registry on a free loopback port, with storage of its own.
pub struct DockerRegistry {
    child: Child,
    /// The port it listens on.
    pub port: u16,
    storage: tempfile::TempDir,
}

const PASSWORD: &str = "auth: {htpasswd: {realm: test, path: HTPASSWD}}\n";

/// Another name of a registry with TLS; nothing but a test's own /etc/hosts knows it.
pub const TLS_NAME: &str = "registry.test";

/// bcrypt of `correct horse`, for the user `alice`.
const HTPASSWD: &str = "alice:$2b$05$OtU4p5ZxFzRTDeURNL9pzeoq9IaKCO4CRBoU2U6WqK9yP40.K/xAG\n";

impl DockerRegistry {
    /// Starts it; `None` (said loudly) when the package is missing.
    pub fn start() -> Option<Self> {
        Self::with("", false)
    }

    /// Starts it with basic authentication for `alice` / `correct horse`, and TLS with a certificate as Docker's
    /// tutorial makes it: self-signed, `CA:TRUE`, for `localhost` and [`TLS_NAME`].
    pub fn start_with_tls() -> Option<Self> {
        Self::with(PASSWORD, true)
    }

    /// The certificate, in PEM format.
    pub fn certificate(&self) -> PathBuf {
        self.storage.path().join("registry.crt")
    }

    /// Starts it with basic authentication for `alice` / `correct horse`.
    pub fn start_with_password() -> Option<Self> {
        Self::with(PASSWORD, false)
    }

    fn with(auth: &str, tls: bool) -> Option<Self> {
        if !crate::tool_exists("docker-registry") || (tls && !crate::tool_exists("openssl")) {
            return None;
        }
        let storage = tempfile::tempdir().expect("temporary directory");
        let port = free_port();
        let path = |name: &str| storage.path().join(name);
        std::fs::write(path("htpasswd"), HTPASSWD).expect("htpasswd");
        let auth = auth.replace("HTPASSWD", &path("htpasswd").to_string_lossy());
        let mut listen = format!("addr: '127.0.0.1:{port}'");
        if tls {
            let (key, crt) = (path("registry.key"), path("registry.crt"));
            certify(&key, &crt);
            // Who runs the commands may be another user.
            std::fs::set_permissions(storage.path(), std::fs::Permissions::from_mode(0o755))
                .expect("chmod");
            let (key, crt) = (key.display(), crt.display());
            listen += &format!(", tls: {{certificate: {crt}, key: {key}}}");
        }
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{{listen}}}\n{auth}",
            path("data").display()
        );
        std::fs::write(path("config.yml"), config).expect("registry configuration");
        let child = Command::new("docker-registry")
            .args([Path::new("serve"), &path("config.yml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start docker-registry");
        let registry = Self {
            child,
            port,
            storage,
        };
        let answers = crate::wait_until(Duration::from_secs(10), || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        assert!(answers, "docker-registry does not answer on port {port}");
        Some(registry)
    }

    /// `localhost:PORT/name`.
    pub fn image(&self, name: &str) -> String {
        format!("localhost:{}/{name}", self.port)
    }
}

fn certify(key: &Path, crt: &Path) {
    let names = format!("subjectAltName=DNS:localhost,DNS:{TLS_NAME}");
    let (key, crt) = (key.to_string_lossy(), crt.to_string_lossy());
    let kind = ["-newkey", "rsa:2048", "-nodes", "-sha256", "-days", "2"];
    let words = ["req", "-x509", "-subj", "/CN=test", "-addext", &names];
    let files = ["-keyout", &*key, "-out", &*crt];
    crate::run_tool("openssl", &[&words[..], &kind, &files].concat()).ok();
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What goes wrong with requests whose path contains the proxy's pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answered with this status and no body.
    Status(u16),
    /// The connection is closed after this many bytes of the answer's body.
    CutAfter(u64),
    /// One byte of the answer's body is changed.
    Corrupt,
    /// Each read of the answer is delayed, so that a test can act in the middle.
    Slow,
}

/// A proxy before a registry that injects a fault.
pub struct FaultyRegistry {
    /// The port it listens on.
    pub port: u16,
    remaining: Arc<AtomicU32>,
}

impl FaultyRegistry {
    /// Fails the first `times` matching requests, then behaves.
    pub fn before(
        upstream: &DockerRegistry,
        pattern: &'static str,
        fault: Fault,
        times: u32,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen on loopback");
        let port = listener.local_addr().expect("local address").port();
        let remaining = Arc::new(AtomicU32::new(times));
        let upstream = upstream.port;
        let left = Arc::clone(&remaining);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let left = Arc::clone(&left);
                std::thread::spawn(move || relay(connection, upstream, pattern, fault, &left));
            }
        });
        Self { port, remaining }
    }

    /// How many faults were injected so far is `times` minus this.
    pub fn remaining(&self) -> u32 {
        self.remaining.load(Ordering::SeqCst)
    }

    /// `localhost:PORT/name`.
    pub fn image(&self, name: &str) -> String {
        format!("localhost:{}/{name}", self.port)
    }
}

/// One request per connection: the answer always carries `Connection: close`.
fn relay(
    mut client: TcpStream,
    upstream: u16,
    pattern: &str,
    fault: Fault,
    left: &AtomicU32,
) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    // The record type of a TLS handshake (RFC 8446, 5.1), which servers of plain HTTP answer like this.
    if reader.fill_buf().ok()?.first() == Some(&22) {
        let answer = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
        return client.write_all(answer).ok();
    }
    let mut head = String::new();
    let mut length = 0u64;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
        if !lower.starts_with("connection:") {
            head.push_str(&line);
        }
    }
    let matches = head.lines().next()?.contains(pattern) && head.starts_with("GET");
    let faulty = matches
        && left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            .is_ok();
    if let (true, Fault::Status(status)) = (faulty, fault) {
        write!(
            client,
            "HTTP/1.1 {status} Injected\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        return Some(());
    }
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).ok()?;
    write!(server, "{head}Connection: close\r\n\r\n").ok()?;
    std::io::copy(&mut reader.take(length), &mut server).ok()?;
    let mut answer = BufReader::new(server);
    loop {
        let mut line = Vec::new();
        answer.read_until(b'\n', &mut line).ok()?;
        client.write_all(&line).ok()?;
        if line == b"\r\n" || line.is_empty() {
            break;
        }
    }
    let mut sent = 0u64;
    let mut buffer = vec![0; 16 << 10];
    loop {
        let mut count = answer.read(&mut buffer).ok()?;
        if count == 0 {
            return Some(());
        }
        if faulty {
            match fault {
                Fault::CutAfter(limit) => {
                    count = count.min(usize::try_from(limit - sent).ok()?);
                    if count == 0 {
                        return Some(());
                    }
                }
                Fault::Corrupt if sent == 0 => buffer[count / 2] ^= 0x55,
                Fault::Slow => std::thread::sleep(Duration::from_millis(100)),
                _ => {}
            }
        }
        client.write_all(&buffer[..count]).ok()?;
        sent += count as u64;
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free loopback port")
        .port()
}
