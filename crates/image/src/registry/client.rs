//! One registry's HTTP API: addresses, authentication, repetition, and errors in our own words.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{RequestBuilder, Response, StatusCode, Url};

use super::answers::retry_after;
use super::auth::Credentials;
use super::credentials::{self, Searched};
use super::error::RegistryError;
use super::hosts::{CERTS_D, is_loopback};
use super::retry::is_transient;
use super::scheme::Scheme;
use super::trouble::Trouble;
use super::trust::{Authorities, client_config, server_name};
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
    pub(super) scheme: Scheme,
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
        let host = reference.api_host();
        let insecure = options
            .insecure
            .iter()
            .any(|one| one == host || one == reference.registry());
        let lenient = insecure || is_loopback(host);
        let authorities = Authorities::of_system()
            .and_of_registry(Path::new(CERTS_D), host)
            .map_err(|source| RegistryError::Certificates {
                registry: reference.registry().to_owned(),
                source,
            })?;
        if authorities.is_empty() && !lenient {
            return Err(RegistryError::NoAuthorities {
                registry: reference.registry().to_owned(),
            });
        }
        let unverified = if lenient { server_name(host) } else { None };
        let tls = client_config(authorities, unverified)
            .map_err(|source| RegistryError::Tls { source })?;
        let builder = reqwest::Client::builder()
            .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_TIMEOUT)
            .tls_backend_preconfigured(tls);
        let builder = if is_loopback(host) {
            // A proxy's loopback is another machine.
            builder.no_proxy()
        } else {
            builder
        };
        let http = builder
            .build()
            .map_err(|source| RegistryError::Client { source })?;
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
            scheme: Scheme::new(lenient),
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
        format!("{}://{}", self.scheme.name(), self.reference.api_host())
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
                    let error = self.refusal(operation, response).await;
                    if !is_transient(status) {
                        return Err(error);
                    }
                    (error, asked)
                }
                Err(source) => {
                    // Nobody listening, or no such host: that rarely changes within seconds.
                    failed += if source.is_connect() { 2 } else { 0 };
                    let lasting = matches!(Trouble::of(&source), Trouble::Certificate(_));
                    if lasting || source.is_builder() || source.is_redirect() {
                        failed = self.retry.attempts;
                    }
                    (self.unreachable(operation, source), None)
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
        self.settle_scheme().await?;
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
}
