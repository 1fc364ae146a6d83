//! Registries, by the OCI distribution specification 1.1 and Docker's token authentication.
//!
//! Everything that a registry sends is hostile until its digest is checked: documents are read with
//! a bound, blobs only as long as their descriptor says, and credentials go to the registry and to
//! the token service that it names, never to where it redirects.

mod answers;
mod auth;
mod client;
mod credentials;
mod documents;
mod download;
mod error;
mod hosts;
mod login;
mod pull;
mod push;
mod retry;
mod scheme;
mod trouble;
mod trust;
mod upload;

pub use auth::Credentials;
pub use credentials::{CredentialsError, Searched};
pub use error::RegistryError;
pub use pull::{PullOptions, pull};
pub use push::{PushSummary, push};
pub use retry::RetryPolicy;
pub use trust::CertificatesError;

/// How to speak to registries.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// `host[:port]` of registries that may speak plain HTTP, or show any certificate over HTTPS. Those on
    /// loopback may always.
    pub insecure: Vec<String>,
    /// Credentials to use instead of those that `docker login` and its kin wrote.
    pub credentials: Option<Credentials>,
    /// When to give up.
    pub retry: RetryPolicy,
}

/// Runs a future to its end on a runtime of its own. In a thread of its own too, because the caller
/// may be inside another runtime, which forbids blocking.
fn block_on<T, F>(future: impl FnOnce() -> F + Send) -> Result<T, RegistryError>
where
    T: Send,
    F: Future<Output = Result<T, RegistryError>>,
{
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| RegistryError::Runtime { source })?;
        runtime.block_on(future())
    };
    std::thread::scope(|scope| match scope.spawn(run).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
