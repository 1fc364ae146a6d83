//! One registry's HTTP API: addresses, authentication, repetition, and errors in our own words.

use std::sync::Mutex;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{RequestBuilder, Response, StatusCode, Url};

use super::answers::retry_after;
use super::auth::Credentials;
use super::credentials::{self, Searched};
use super::error::RegistryError;
use super::hosts::{extra_certificates, is_loopback};
use super::retry::is_transient;
use super::{RegistryOptions, RetryPolicy};
use crate::progress::Progress;
use crate::reference::Reference;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection that is silent for this long is as good as cut.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// What is to be done in the repository; decides the token's scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Pull,
    Push,
}

/// A client for one repository.
pub(super) struct Client<'a> {
    pub(super) http: reqwest::Client,
    pub(super) reference: &'a Reference,
    base: Mutex<String>,
    /// Whether HTTPS was not tried yet and may be the answer.
    may_upgrade: bool,
    pub(super) scopes: Vec<String>,
    pub(super) credentials: Option<Credentials>,
    /// Where credentials were looked for, if there are none.
    pub(super) searched: Searched,
    pub(super) authorization: Mutex<Option<HeaderValue>>,
    pub(super) retry: RetryPolicy,
    pub(super) progress: &'a dyn Progress,
}

impl<'a> Client<'a> {
    pub(super) fn new(
        reference: &'a Reference,
        access: Access,
        sources: &[String],
        options: &RegistryOptions,
        progress: &'a dyn Progress,
    ) -> Result<Self, RegistryError> {
        // A second call finds one installed, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let host = reference.api_host();
        let insecure = options
            .insecure
            .iter()
            .any(|one| one == host || one == reference.registry());
        let plain = insecure || is_loopback(host);
        let builder = || {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(SILENCE_TIMEOUT)
                .tls_danger_accept_invalid_certs(insecure);
            if is_loopback(host) {
                // A proxy's loopback is another machine.
                builder.no_proxy()
            } else {
                builder
            }
        };
        let certificates = extra_certificates(host);
        let built = builder().tls_certs_merge(certificates.clone()).build();
        let http = match built {
            // Without the system's authorities there is no client at all, which plain HTTP does not need.
            Err(_) if plain => builder().tls_certs_only(certificates).build(),
            other => other,
        };
        let http = http.map_err(|source| RegistryError::Client { source })?;
        let actions = if access == Access::Pull {
            "pull"
        } else {
            "pull,push"
        };
        let mut scopes = vec![format!("repository:{}:{actions}", reference.repository())];
        scopes.extend(
            sources
                .iter()
                .map(|repository| format!("repository:{repository}:pull")),
        );
        let found = match &options.credentials {
            Some(credentials) => credentials::Found::given(credentials),
            None => credentials::find(reference).map_err(|source| RegistryError::Credentials {
                registry: reference.registry().to_owned(),
                source,
            })?,
        };
        Ok(Self {
            http,
            reference,
            base: Mutex::new(format!("{}://{host}", if plain { "http" } else { "https" })),
            may_upgrade: plain,
            scopes,
            credentials: found.credentials,
            searched: found.searched,
            authorization: Mutex::new(None),
            retry: options.retry.clone(),
            progress,
        })
    }

    pub(super) fn registry(&self) -> String {
        self.reference.registry().to_owned()
    }

    /// An address in the repository, for example `manifests/latest`.
    pub(super) fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.base(), self.reference.repository())
    }

    pub(super) fn base(&self) -> String {
        self.base.lock().map_or_else(
            |poisoned| poisoned.into_inner().clone(),
            |base| base.clone(),
        )
    }

    /// Whether a request to `url` may carry the registry's credentials: only the registry itself.
    pub(super) fn is_home(&self, url: &Url) -> bool {
        Url::parse(&self.base()).is_ok_and(|base| base.origin() == url.origin())
    }

    /// A `Location` made absolute.
    pub(super) fn locate(&self, response: &Response) -> Result<Url, RegistryError> {
        let protocol = |reason| RegistryError::Protocol {
            registry: self.registry(),
            reason,
        };
        let location = response
            .headers()
            .get("location")
            .and_then(|v| v.to_str().ok());
        let location = location.ok_or_else(|| protocol("an answer lacks its location"))?;
        response
            .url()
            .join(location)
            .map_err(|_| protocol("a location is malformed"))
    }

    /// Sends what `build` makes until it is answered with a status that no repetition changes.
    /// Statuses in `accept` are returned, all others are errors.
    pub(super) async fn send(
        &self,
        operation: &str,
        accept: &[u16],
        build: &(dyn Fn(&reqwest::Client) -> RequestBuilder + Sync),
    ) -> Result<Response, RegistryError> {
        let mut failed = 0;
        let mut refreshed = false;
        loop {
            let error = match self.send_once(build).await {
                Ok(response) if accept.contains(&response.status().as_u16()) => {
                    return Ok(response);
                }
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && !refreshed => {
                    refreshed = true;
                    if self.authenticate(&response).await? {
                        continue;
                    }
                    return Err(self.refusal(operation, response).await);
                }
                Ok(response) => {
                    let (status, asked) = (response.status(), retry_after(&response));
                    let transient = is_transient(status);
                    let error = self.refusal(operation, response).await;
                    // How Go's servers and nginx answer HTTP on a port that speaks HTTPS.
                    if status == StatusCode::BAD_REQUEST && self.to_https() {
                        continue;
                    }
                    if !transient {
                        return Err(error);
                    }
                    (error, asked)
                }
                Err(source) => {
                    if self.upgrade(&source) {
                        continue;
                    }
                    // Nobody listening, or no such host: that rarely changes within seconds.
                    failed += if source.is_connect() { 2 } else { 0 };
                    if source.is_builder() || source.is_redirect() {
                        failed = self.retry.attempts;
                    }
                    let operation = operation.to_owned();
                    (
                        RegistryError::Transport {
                            registry: self.registry(),
                            operation,
                            source,
                        },
                        None,
                    )
                }
            };
            failed += 1;
            self.pause(failed, error).await?;
        }
    }

    /// Waits before another attempt, or gives the error back.
    pub(super) async fn pause(
        &self,
        failed: u32,
        (error, asked): (RegistryError, Option<Duration>),
    ) -> Result<(), RegistryError> {
        let Some(pause) = self.retry.pause_after(failed, asked) else {
            return Err(error);
        };
        self.progress.message(&format!(
            "{error}; trying again in {:.1} s",
            pause.as_secs_f32()
        ));
        tokio::time::sleep(pause).await;
        Ok(())
    }

    async fn send_once(
        &self,
        build: &(dyn Fn(&reqwest::Client) -> RequestBuilder + Sync),
    ) -> Result<Response, reqwest::Error> {
        let mut request = build(&self.http).build()?;
        if self.is_home(request.url())
            && let Some(value) = self
                .authorization
                .lock()
                .map(|a| a.clone())
                .unwrap_or_default()
        {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        self.http.execute(request).await
    }

    /// A loopback or insecure registry that does not speak HTTP may speak HTTPS.
    fn upgrade(&self, error: &reqwest::Error) -> bool {
        if !self.may_upgrade || error.is_connect() || error.is_timeout() || error.is_body() {
            return false;
        }
        // Only an answer that is no HTTP at all hints at TLS; a cut connection does not.
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            if cause.to_string().contains("invalid HTTP version") {
                return self.to_https();
            }
            source = cause.source();
        }
        false
    }

    /// Speaks HTTPS from now on; `false` where it does already.
    fn to_https(&self) -> bool {
        if !self.may_upgrade {
            return false;
        }
        let Ok(mut base) = self.base.lock() else {
            return false;
        };
        let Some(rest) = base.strip_prefix("http://") else {
            return false;
        };
        *base = format!("https://{rest}");
        true
    }
}
