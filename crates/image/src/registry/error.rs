//! What can go wrong between here and a registry.

use bulkhead_types::Digest;

use super::credentials::{CredentialsError, Searched};
use super::trouble::Trouble;
use super::trust::CertificatesError;
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
    /// A certificate that is not trusted.
    #[error("cannot reach {registry} to {operation}: the certificate of {host} {reason}")]
    Untrusted {
        /// Host.
        registry: String,
        /// What was tried.
        operation: String,
        /// Whose certificate it is; another host where the registry refers to one.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of certificates for this registry that cannot be used.
    #[error("cannot speak to {registry}")]
    Certificates {
        /// Host.
        registry: String,
        /// Why.
        #[source]
        source: CertificatesError,
    },
    /// No authority is known that could vouch for any registry.
    #[error("cannot speak to {registry}: this host knows no certificate authorities")]
    NoAuthorities {
        /// Host.
        registry: String,
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
    #[error("cannot set up the HTTP client")]
    Client {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// TLS could not be set up.
    #[error("cannot set up TLS")]
    Tls {
        /// Why.
        #[source]
        source: rustls::Error,
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
            | Self::Untrusted { .. }
            | Self::Cut { .. }
            | Self::BlobNotFound { .. } => ErrorKind::Unavailable,
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => ErrorKind::Corrupt,
            Self::Document {
                source: ManifestError::NoPlatform { .. },
                ..
            } => ErrorKind::NotFound,
            Self::Document { .. }
            | Self::Protocol { .. }
            | Self::NoTag(_)
            | Self::Certificates { .. }
            | Self::NoAuthorities { .. } => ErrorKind::InvalidInput,
            Self::Client { .. } | Self::Tls { .. } | Self::Runtime { .. } => ErrorKind::Internal,
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
            Self::Untrusted { .. } => Some(
                "put its authority's certificate, or its own, into /etc/docker/certs.d/REGISTRY/ca.crt, or name the registry in insecure-registries of the configuration",
            ),
            Self::Certificates { .. } => {
                Some("put a certificate in PEM format there, or remove the file")
            }
            Self::NoAuthorities { .. } => {
                Some("install the system's, Debian's package ca-certificates")
            }
            Self::Document {
                source: ManifestError::NoPlatform { .. },
                ..
            } => Some("choose one with --platform"),
            Self::Store(error) => error.hint(),
            _ => None,
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
