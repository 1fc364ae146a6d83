//! What is special about some hosts.

use std::fs;
use std::path::Path;

/// Whether a host is this machine, where nobody listens in.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => host.split(':').next().unwrap_or(host),
    };
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Authorities that Docker's users keep per registry in `/etc/docker/certs.d/HOST/*.crt`.
pub(super) fn extra_certificates(host: &str) -> Vec<reqwest::Certificate> {
    let dir = Path::new("/etc/docker/certs.d").join(host);
    let files = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let pems = files
        .filter(|path| path.extension().is_some_and(|e| e == "crt"))
        .filter_map(|path| fs::read(path).ok());
    pems.flat_map(|pem| reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.9.9.9",
            "[::1]:5000",
            "[::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.example.org",
            "128.0.0.1",
            "example.org:5000",
            "[::2]:1",
            "127.0.0.1.nip.io",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
