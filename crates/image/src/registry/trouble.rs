//! Why there is no connection, in words a person understands.

use std::error::Error;

use jiff::Timestamp;
use rustls::CertificateError;
use rustls::pki_types::UnixTime;

use super::trust::is_authority_as_server;

/// Why there is no connection, as far as the remedy differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The host has no address.
    Name,
    /// Nobody listens.
    Refused,
    /// Something answers that does not speak TLS.
    PlainHttp,
    /// Something shows a certificate that is not trusted; what is wrong with it, as the end of a sentence.
    Certificate(String),
    Other,
}

impl Trouble {
    pub(super) fn of(error: &reqwest::Error) -> Self {
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(current) = next {
            match current.downcast_ref::<rustls::Error>() {
                Some(rustls::Error::InvalidMessage(_)) => return Self::PlainHttp,
                Some(rustls::Error::InvalidCertificate(wrong)) => {
                    return Self::Certificate(fault(wrong));
                }
                _ => {}
            }
            let io = current.downcast_ref::<std::io::Error>();
            if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
                return Self::Refused;
            }
            // The client's own name for it; there is no type.
            if current.to_string() == "dns error" {
                return Self::Name;
            }
            // An error inside an I/O error is no source of it.
            let inside = io.and_then(std::io::Error::get_ref);
            next = match inside {
                Some(inside) => Some(inside),
                None => current.source(),
            };
        }
        Self::Other
    }

    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Name => Some("check the registry's name, and /etc/resolv.conf"),
            Self::Refused => Some("nothing listens there: check the registry's name and port"),
            Self::PlainHttp => Some(
                "a registry that speaks plain HTTP must be named in insecure-registries of the configuration, unless it is on loopback",
            ),
            Self::Certificate(_) | Self::Other => None,
        }
    }
}

/// What is wrong with a certificate, to stand behind "the certificate of HOST".
fn fault(error: &CertificateError) -> String {
    use CertificateError as E;
    match error {
        E::UnknownIssuer => "was issued by an authority that is not known here".into(),
        E::ExpiredContext { not_after, .. } => format!("has expired on {}", day(*not_after)),
        E::Expired => "has expired".into(),
        E::NotValidYetContext { not_before, .. } => {
            format!("is valid from {} on only", day(*not_before))
        }
        E::NotValidYet => "is not valid yet".into(),
        E::NotValidForNameContext {
            expected,
            presented,
        } => names(&expected.to_str(), presented),
        E::NotValidForName => "is for another name".into(),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => "is not one for servers".into(),
        E::BadEncoding | E::UnhandledCriticalExtension => "cannot be read".into(),
        E::BadSignature => "has a signature that is wrong".into(),
        E::Revoked => "was revoked".into(),
        E::Other(other) if is_authority_as_server(other.0.as_ref()) => {
            "is that of an authority, and not among those that are trusted here".into()
        }
        other => format!("is not acceptable: {other}"),
    }
}

fn names(expected: &str, presented: &[String]) -> String {
    // rustls says what kind of name each is: DnsName("example.org"), IpAddress(10.0.0.1).
    let plain = presented.iter().map(|one| {
        let inside = one.split_once('(').map_or(one.as_str(), |(_, rest)| rest);
        inside.trim_end_matches(')').trim_matches('"').to_owned()
    });
    // A server's own words, on their way to a terminal.
    let plain: Vec<String> = plain
        .map(|name| name.chars().filter(|c| !c.is_control()).take(100).collect())
        .take(5)
        .collect();
    match plain.is_empty() {
        true => format!("is for no name at all (a subjectAltName is needed), not for {expected}"),
        false => format!("is for {}, not for {expected}", plain.join(", ")),
    }
}

fn day(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(
        |_| "a day beyond reckoning".into(),
        |time| time.strftime("%Y-%m-%d").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_said_in_words() {
        use std::time::Duration;

        use rustls::pki_types::ServerName;
        let day = |days: u64| UnixTime::since_unix_epoch(Duration::from_secs(days * 86_400));
        let (time, not_after) = (day(20_000), day(19_000));
        assert_eq!(
            fault(&CertificateError::ExpiredContext { time, not_after }),
            "has expired on 2022-01-08"
        );
        let not_before = day(21_000);
        assert_eq!(
            fault(&CertificateError::NotValidYetContext { time, not_before }),
            "is valid from 2027-07-01 on only"
        );
        let named = |presented: &[&str]| {
            fault(&CertificateError::NotValidForNameContext {
                expected: ServerName::try_from("a.test").unwrap(),
                presented: presented.iter().map(|&one| one.to_owned()).collect(),
            })
        };
        assert_eq!(
            named(&["DnsName(\"b.test\")", "IpAddress(10.0.0.1)"]),
            "is for b.test, 10.0.0.1, not for a.test"
        );
        assert!(named(&[]).contains("subjectAltName"));
        assert!(!named(&["DnsName(\"\u{1b}[2J\")"]).contains('\u{1b}'));
    }

    #[test]
    fn only_a_server_without_tls_is_answered_with_advice_about_http() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .unwrap();
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .build()
            .unwrap();
        let get = |address| {
            runtime
                .block_on(client.get(format!("https://{address}/v2/")).send())
                .unwrap_err()
        };
        let error = get(address);
        assert_eq!(Trouble::of(&error), Trouble::PlainHttp, "{error:?}");
        server.join().unwrap();
        assert_eq!(Trouble::of(&get(address)), Trouble::Refused);
    }
}
