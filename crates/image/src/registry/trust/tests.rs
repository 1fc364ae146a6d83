//! Certificates made by openssl, valid for ten years from the end of 2026:
//!
//! | file | what |
//! |---|---|
//! | `self.crt` | `req -x509 … -addext subjectAltName=DNS:registry.test`: self-signed, and `CA:TRUE` |
//! | `twin.crt` | made by the same words: same names, another key |
//! | `authority.crt`, `issued.crt` | an authority, and what it issued to `registry.test` |

use std::time::Duration;

use rustls::pki_types::ServerName;

use super::*;

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn own() -> CertificateDer<'static> {
    certificate(include_str!("testdata/self.crt"))
}

fn twin() -> CertificateDer<'static> {
    certificate(include_str!("testdata/twin.crt"))
}

fn authority() -> CertificateDer<'static> {
    certificate(include_str!("testdata/authority.crt"))
}

fn issued() -> CertificateDer<'static> {
    certificate(include_str!("testdata/issued.crt"))
}

fn name(text: &str) -> ServerName<'static> {
    ServerName::try_from(text.to_owned()).unwrap()
}

/// The first of January of a year.
fn year(year: u64) -> UnixTime {
    let days = (year - 1970) * 365 + (year - 1969) / 4;
    UnixTime::since_unix_epoch(Duration::from_secs(days * 86_400))
}

fn trust(trusted: &[CertificateDer<'static>], unverified: Option<&str>) -> Trust {
    let mut authorities = Authorities::none();
    for one in trusted {
        authorities.add(one.clone()).unwrap();
    }
    let provider = Arc::new(ring::default_provider());
    Trust::new(authorities, unverified.map(name), &provider).unwrap()
}

fn judge(
    trust: &Trust,
    shown: &CertificateDer<'_>,
    host: &str,
    now: UnixTime,
) -> Result<(), Error> {
    trust
        .verify_server_cert(shown, &[], &name(host), &[], now)
        .map(|_| ())
}

#[test]
fn a_self_signed_authority_among_the_trusted_is_trusted_as_a_server() {
    let trust = trust(&[authority(), own()], None);
    judge(&trust, &own(), "registry.test", year(2030)).unwrap();
}

#[test]
fn a_servers_certificate_among_the_trusted_needs_no_authority() {
    let trust = trust(&[issued()], None);
    judge(&trust, &issued(), "registry.test", year(2030)).unwrap();
}

#[test]
fn an_authority_vouches_for_what_it_issued() {
    let trust = trust(&[authority()], None);
    judge(&trust, &issued(), "registry.test", year(2030)).unwrap();
}

#[test]
fn a_trusted_certificate_is_still_for_its_name_only() {
    for shown in [own(), issued()] {
        let trust = trust(std::slice::from_ref(&shown), None);
        let error = judge(&trust, &shown, "other.test", year(2030)).unwrap_err();
        assert!(
            matches!(
                error,
                Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })
            ),
            "{error:?}"
        );
    }
}

#[test]
fn a_trusted_certificate_is_still_for_its_days_only() {
    for shown in [own(), issued()] {
        let trust = trust(std::slice::from_ref(&shown), None);
        let late = judge(&trust, &shown, "registry.test", year(2040)).unwrap_err();
        assert!(
            matches!(
                late,
                Error::InvalidCertificate(CertificateError::ExpiredContext { .. })
            ),
            "{late:?}"
        );
        let early = judge(&trust, &shown, "registry.test", year(2020)).unwrap_err();
        assert!(
            matches!(
                early,
                Error::InvalidCertificate(CertificateError::NotValidYetContext { .. })
            ),
            "{early:?}"
        );
    }
}

#[test]
fn only_the_very_bytes_are_trusted() {
    let trust = trust(&[own(), authority()], None);
    judge(&trust, &twin(), "registry.test", year(2030)).unwrap_err();
    let mut changed = own().to_vec();
    *changed.last_mut().unwrap() ^= 1;
    judge(&trust, &changed.into(), "registry.test", year(2030)).unwrap_err();
}

#[test]
fn unverified_means_one_host_and_not_what_it_refers_to() {
    let trust = trust(&[authority()], Some("registry.test"));
    judge(&trust, &twin(), "registry.test", year(2040)).unwrap();
    judge(&trust, &twin(), "token.test", year(2030)).unwrap_err();
    judge(&trust, &own(), "token.test", year(2030)).unwrap_err();
    // Neither does having no authorities open a door.
    let nobody = super::tests::trust(&[], Some("registry.test"));
    judge(&nobody, &twin(), "registry.test", year(2030)).unwrap();
    judge(&nobody, &issued(), "token.test", year(2030)).unwrap_err();
}

#[test]
fn a_signature_is_skipped_only_for_what_no_verified_server_gets_by_with() {
    let garbage = CertificateDer::from(vec![0x30, 0x00]);
    let lenient = trust(&[authority()], Some("registry.test"));
    assert!(lenient.is_beyond_checking(&garbage));
    assert!(!lenient.is_beyond_checking(&own()));
    judge(&lenient, &garbage, "token.test", year(2030)).unwrap_err();
    assert!(!trust(&[authority()], None).is_beyond_checking(&garbage));
}

#[test]
fn dockers_directory_is_read_per_registry() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().join("registry.test:5000");
    std::fs::create_dir(&here).unwrap();
    std::fs::write(here.join("ca.crt"), include_str!("testdata/self.crt")).unwrap();
    std::fs::write(here.join("client.key"), "no certificate, and not read").unwrap();
    let read = |host| Authorities::none().and_of_registry(dir.path(), host);
    assert_eq!(read("registry.test:5000").unwrap().certificates, [own()]);
    assert!(read("registry.test").unwrap().is_empty());
}

#[test]
fn a_file_without_a_certificate_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("host/ca.crt");
    std::fs::create_dir(dir.path().join("host")).unwrap();
    let damaged = include_str!("testdata/self.crt").replace("MII", "MIX");
    for content in ["", "not PEM", damaged.as_str()] {
        std::fs::write(&file, content).unwrap();
        let error = Authorities::none()
            .and_of_registry(dir.path(), "host")
            .unwrap_err();
        assert!(error.to_string().contains("host/ca.crt"), "{error}");
    }
}

#[test]
fn a_hosts_name_is_without_its_port() {
    for (host, expected) in [
        ("registry.test:5000", "registry.test"),
        ("localhost", "localhost"),
        ("127.0.0.1:5000", "127.0.0.1"),
        ("[::1]:5000", "::1"),
    ] {
        assert_eq!(server_name(host), Some(name(expected)), "{host}");
    }
}
