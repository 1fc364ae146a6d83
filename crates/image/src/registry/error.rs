//! What can go wrong between here and a registry.

use std::error::Error;

use bulkhead_types::Digest;

use super::credentials::{CredentialsError, Searched};
use crate::kind::ErrorKind;
use crate::manifest::ManifestError;
use crate::store::StoreError;

/// A failed `pull` or `push`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// 401, and nothing to answer it with.
    #[error("{registry} wants credentials for {repository}, and {searched}{}", said(.detail))]
    NoCredentials {
        /// Host.
        registry: String,
        /// Repository.
        repository: String,
        /// Where they were looked for.
        searched: Searched,
        /// What the registry said.
        detail: String,
    },
    /// 401 in spite of credentials.
    #[error("{registry} wants other credentials for {repository}{}", said(.detail))]
    Unauthorized {
        /// Host.
        registry: String,
        /// Repository.
        repository: String,
        /// What the registry said.
        detail: String,
    },
    /// 403.
    #[error("{registry} denies access to {repository}{}", said(.detail))]
    Denied {
        /// Host.
        registry: String,
        /// Repository.
        repository: String,
        /// What the registry said.
        detail: String,
    },
    /// 404 for a manifest.
    #[error("{reference} does not exist in the registry, or only for those who log in{}", said(.detail))]
    NotFound {
        /// Familiar form.
        reference: String,
        /// What the registry said.
        detail: String,
    },
    /// 404 for a blob that the manifest names.
    #[error("{registry} does not have blob {digest} that the manifest of {repository} names")]
    BlobNotFound {
        /// Host.
        registry: String,
        /// Repository.
        repository: String,
        /// The blob.
        digest: Digest,
    },
    /// 429, still after waiting.
    #[error("{registry} limits the rate of requests{}", said(.detail))]
    RateLimited {
        /// Host.
        registry: String,
        /// What the registry said.
        detail: String,
    },
    /// 5xx, still after trying again, or any other status that makes no sense.
    #[error("{registry} answers with status {status} to {operation}{}", said(.detail))]
    Status {
        /// Host.
        registry: String,
        /// HTTP status.
        status: u16,
        /// What was tried.
        operation: String,
        /// What the registry said.
        detail: String,
    },
    /// No connection, or one that broke before the answer came.
    #[error("cannot reach {registry} to {operation}")]
    Transport {
        /// Host.
        registry: String,
        /// What was tried.
        operation: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The connection was cut while a blob came in, again and again. What came is kept.
    #[error(
        "the connection to {registry} was cut after {received} of {expected} bytes of blob {digest}"
    )]
    Cut {
        /// Host.
        registry: String,
        /// The blob.
        digest: Digest,
        /// Bytes here.
        received: u64,
        /// Bytes of the blob.
        expected: u64,
        /// Why; absent where the registry simply stopped sending.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// Content differs from its digest.
    #[error("digest mismatch of {what} from {registry}: expected {expected}, got {actual}")]
    DigestMismatch {
        /// Host.
        registry: String,
        /// Which content.
        what: String,
        /// The digest that names it.
        expected: Digest,
        /// The digest that it has.
        actual: Digest,
    },
    /// A blob or manifest is longer or shorter than its descriptor says.
    #[error("size mismatch of {what} from {registry}: expected {expected} bytes, got {actual}")]
    SizeMismatch {
        /// Host.
        registry: String,
        /// Which content.
        what: String,
        /// Bytes.
        expected: u64,
        /// Bytes, as far as they were counted.
        actual: u64,
    },
    /// A manifest, index or configuration that is not acceptable.
    #[error("{reference} is not an image that can be used")]
    Document {
        /// Familiar form.
        reference: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// The registry does not follow its own protocol.
    #[error("{registry} does not follow the protocol: {reason}")]
    Protocol {
        /// Host.
        registry: String,
        /// In which way.
        reason: &'static str,
    },
    /// The token service did not give a token.
    #[error("cannot get a token for {registry} from {realm}: {reason}")]
    Token {
        /// Host.
        registry: String,
        /// The token service.
        realm: String,
        /// Why.
        reason: String,
    },
    /// A credentials file or a credential helper failed.
    #[error("cannot read the credentials for {registry}")]
    Credentials {
        /// Host.
        registry: String,
        /// Why.
        #[source]
        source: CredentialsError,
    },
    /// The image to push has no such name.
    #[error("{0} cannot be pushed: a name with a tag is needed")]
    NoTag(String),
    /// The HTTP client could not be set up.
    #[error(
        "cannot set up the HTTPS client (it needs the system's certificate authorities: Debian's package ca-certificates)"
    )]
    Client {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The event loop could not be set up.
    #[error("cannot start an event loop")]
    Runtime {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RegistryError {
    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoCredentials { .. }
            | Self::Unauthorized { .. }
            | Self::Token { .. }
            | Self::Credentials { .. } => ErrorKind::Unauthorized,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::RateLimited { .. } => ErrorKind::RateLimited,
            Self::Status { .. }
            | Self::Transport { .. }
            | Self::Cut { .. }
            | Self::BlobNotFound { .. } => ErrorKind::Unavailable,
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => ErrorKind::Corrupt,
            Self::Document {
                source: ManifestError::NoPlatform { .. },
                ..
            } => ErrorKind::NotFound,
            Self::Document { .. } | Self::Protocol { .. } | Self::NoTag(_) => {
                ErrorKind::InvalidInput
            }
            Self::Client { .. } | Self::Runtime { .. } => ErrorKind::Internal,
            Self::Store(error) => error.kind(),
        }
    }

    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoCredentials { .. } => Some(
                "log in with `docker login`, `podman login` or `skopeo login`: what they write is used",
            ),
            Self::Unauthorized { .. } => {
                Some("log in again with `docker login`, `podman login` or `skopeo login`")
            }
            Self::Credentials { .. } => Some(
                "log in again with `docker login`, or check the file and the helper that it names",
            ),
            Self::Cut { .. } => Some("pull again: it continues where it stopped"),
            Self::RateLimited { .. } => Some("wait, or log in for a higher limit"),
            Self::Transport { source, .. } => Trouble::of(source).hint(),
            Self::Document {
                source: ManifestError::NoPlatform { .. },
                ..
            } => Some("choose one with --platform"),
            Self::Store(error) => error.hint(),
            _ => None,
        }
    }
}

/// Why there is no connection, as far as the remedy differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The host has no address.
    Name,
    /// Nobody listens.
    Refused,
    /// Something answers that does not speak TLS.
    PlainHttp,
    /// Something answers with a certificate that nobody vouches for.
    Certificate,
    Other,
}

impl Trouble {
    fn of(error: &reqwest::Error) -> Self {
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(current) = next {
            match current.downcast_ref::<rustls::Error>() {
                Some(rustls::Error::InvalidMessage(_)) => return Self::PlainHttp,
                Some(rustls::Error::InvalidCertificate(_)) => return Self::Certificate,
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

    fn hint(self) -> Option<&'static str> {
        match self {
            Self::Name => Some("check the registry's name, and /etc/resolv.conf"),
            Self::Refused => Some("nothing listens there: check the registry's name and port"),
            Self::PlainHttp => Some(
                "a registry that speaks plain HTTP must be named in insecure-registries of the configuration, unless it is on loopback",
            ),
            Self::Certificate => Some(
                "put the certificate of its authority into /etc/docker/certs.d/REGISTRY/ca.crt, or name it in insecure-registries of the configuration",
            ),
            Self::Other => None,
        }
    }
}

fn said(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(": {detail}")
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

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
