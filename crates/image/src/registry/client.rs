//! One registry's HTTP API: addresses, authentication, repetition, and errors in our own words.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use bulkhead_types::Digest;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::auth::{Challenge, Credentials, bearer_from_answer, token_request};
use super::error::RegistryError;
use super::retry::is_transient;
use super::{RegistryOptions, RetryPolicy};
use crate::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, MANIFEST_MAX, OCI_INDEX, OCI_MANIFEST};
use crate::progress::Progress;
use crate::reference::Reference;

/// Enough for any error message or token.
const ANSWER_MAX: u64 = 1 << 20;
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
    http: reqwest::Client,
    pub(super) reference: &'a Reference,
    base: Mutex<String>,
    /// Whether HTTPS was not tried yet and may be the answer.
    may_upgrade: bool,
    scopes: Vec<String>,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<HeaderValue>>,
    pub(super) retry: RetryPolicy,
    pub(super) progress: &'a dyn Progress,
}

/// A manifest as it came.
pub(super) struct RawManifest {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
    pub(super) content_type: Option<String>,
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
        let http = reqwest::Client::builder()
            .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_TIMEOUT)
            .tls_danger_accept_invalid_certs(insecure)
            .tls_certs_merge(extra_certificates(host))
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
        let credentials = match &options.credentials {
            Some(credentials) => Some(credentials.clone()),
            None => Credentials::from_docker_config(reference)?,
        };
        Ok(Self {
            http,
            reference,
            base: Mutex::new(format!("{}://{host}", if plain { "http" } else { "https" })),
            may_upgrade: plain,
            scopes,
            credentials,
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

    fn base(&self) -> String {
        self.base.lock().map_or_else(
            |poisoned| poisoned.into_inner().clone(),
            |base| base.clone(),
        )
    }

    /// Whether a request to `url` may carry the registry's credentials: only the registry itself.
    fn is_home(&self, url: &Url) -> bool {
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

    /// Answers a challenge; `false` where there is nothing to answer with.
    async fn authenticate(&self, response: &Response) -> Result<bool, RegistryError> {
        if !self.is_home(response.url()) {
            return Ok(false);
        }
        let value = match (Challenge::of(response.headers()), &self.credentials) {
            (Some(Challenge::Basic), Some(Credentials::Password { user, password })) => {
                // reqwest encodes it; a request that is never sent is the way to it.
                let request = self
                    .http
                    .get(self.base())
                    .basic_auth(user, Some(password))
                    .build();
                request
                    .ok()
                    .and_then(|request| request.headers().get(AUTHORIZATION).cloned())
            }
            (
                Some(Challenge::Bearer {
                    realm,
                    service,
                    scope,
                }),
                credentials,
            ) => Some(
                self.token(&realm, service.as_deref(), scope, credentials.as_ref())
                    .await?,
            ),
            _ => None,
        };
        let found = value.is_some();
        if let Ok(mut authorization) = self.authorization.lock() {
            *authorization = value;
        }
        Ok(found)
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<String>,
        credentials: Option<&Credentials>,
    ) -> Result<HeaderValue, RegistryError> {
        let failure = |reason: String| RegistryError::Token {
            registry: self.registry(),
            realm: realm.chars().take(200).collect(),
            reason,
        };
        let mut scopes = self.scopes.clone();
        scopes.extend(scope.filter(|scope| !self.scopes.contains(scope)));
        let https = self.base().starts_with("https:");
        let mut failed = 0;
        loop {
            let request = token_request(&self.http, (realm, service), &scopes, credentials, https)
                .map_err(failure)?;
            let (error, asked) = match request.send().await {
                Ok(response) if response.status() == StatusCode::OK => {
                    let body = self.body(response, "token", ANSWER_MAX).await?;
                    return bearer_from_answer(&body).map_err(failure);
                }
                Ok(response) if is_transient(response.status()) => {
                    let asked = retry_after(&response);
                    (self.refusal("get a token", response).await, asked)
                }
                Ok(response) => return Err(self.refusal("get a token", response).await),
                Err(source) => {
                    let operation = format!("get a token from {realm}");
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
            self.pause(failed, (error, asked)).await?;
        }
    }

    /// The error that an unwelcome answer means.
    async fn refusal(&self, operation: &str, mut response: Response) -> RegistryError {
        let status = response.status();
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > 64 << 10 {
                break;
            }
        }
        let (registry, repository, detail) = (
            self.registry(),
            self.reference.repository().to_owned(),
            detail_of(&body),
        );
        match status {
            StatusCode::UNAUTHORIZED => RegistryError::Unauthorized {
                registry,
                repository,
                detail,
            },
            StatusCode::FORBIDDEN => RegistryError::Denied {
                registry,
                repository,
                detail,
            },
            StatusCode::TOO_MANY_REQUESTS => RegistryError::RateLimited { registry, detail },
            _ => RegistryError::Status {
                registry,
                status: status.as_u16(),
                operation: operation.to_owned(),
                detail,
            },
        }
    }

    /// Reads a whole answer, but not more than `limit` bytes.
    pub(super) async fn body(
        &self,
        mut response: Response,
        what: &str,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let too_long = |actual| RegistryError::SizeMismatch {
            registry: self.registry(),
            what: what.to_owned(),
            expected: limit,
            actual,
        };
        if let Some(length) = response.content_length().filter(|length| *length > limit) {
            return Err(too_long(length));
        }
        let mut bytes = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => return Ok(bytes),
                Err(source) => {
                    let operation = format!("read {what}");
                    return Err(RegistryError::Transport {
                        registry: self.registry(),
                        operation,
                        source,
                    });
                }
            }
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if length > limit {
                return Err(too_long(length));
            }
        }
    }

    /// Gets the manifest or index that a tag or digest names; repeated when cut.
    pub(super) async fn manifest(&self, tag_or_digest: &str) -> Result<RawManifest, RegistryError> {
        let operation = format!("get manifest {tag_or_digest}");
        let mut failed = 0;
        loop {
            let accept = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", ");
            let build = |http: &reqwest::Client| {
                http.request(Method::GET, self.url(&format!("manifests/{tag_or_digest}")))
                    .header(ACCEPT, &accept)
            };
            let response = self.send(&operation, &[200, 404], &build).await?;
            if response.status() == StatusCode::NOT_FOUND {
                let body = self
                    .body(response, "error", ANSWER_MAX)
                    .await
                    .unwrap_or_default();
                return Err(RegistryError::NotFound {
                    reference: self.reference.familiar(),
                    detail: detail_of(&body),
                });
            }
            let header = |name| {
                response
                    .headers()
                    .get(name)
                    .and_then(|v: &HeaderValue| v.to_str().ok())
            };
            let content_type = header(CONTENT_TYPE.as_str()).map(|text| {
                text.split(';')
                    .next()
                    .unwrap_or(text)
                    .trim()
                    .to_ascii_lowercase()
            });
            let promised: Option<Digest> =
                header("docker-content-digest").and_then(|text| text.parse().ok());
            let bytes = match self.body(response, "manifest", MANIFEST_MAX).await {
                Ok(bytes) => bytes,
                Err(error @ RegistryError::Transport { .. }) => {
                    failed += 1;
                    self.pause(failed, (error, None)).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let digest = Digest::from_bytes(Sha256::digest(&bytes).into());
            let expected = tag_or_digest.parse::<Digest>().ok().or(promised);
            if let Some(expected) = expected.filter(|expected| *expected != digest) {
                let what = format!("manifest {tag_or_digest}");
                return Err(RegistryError::DigestMismatch {
                    registry: self.registry(),
                    what,
                    expected,
                    actual: digest,
                });
            }
            return Ok(RawManifest {
                bytes,
                digest,
                content_type,
            });
        }
    }
}

/// What a registry's error document says (distribution specification, "Error codes").
fn detail_of(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        errors: Vec<One>,
        #[serde(default)]
        details: String,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
        return String::new();
    };
    let mut text = answer.details;
    if let Some(first) = answer.errors.first() {
        text = if first.message.is_empty() {
            first.code.to_ascii_lowercase()
        } else {
            first.message.clone()
        };
    }
    // It goes to a terminal.
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// Whether a host is this machine, where nobody listens in.
fn is_loopback(host: &str) -> bool {
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
fn extra_certificates(host: &str) -> Vec<reqwest::Certificate> {
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

    #[test]
    fn a_registrys_words_are_shortened_and_harmless() {
        let body = format!(
            "{{\"errors\":[{{\"code\":\"X\",\"message\":\"a\\u001b[31m{}\"}}]}}",
            "b".repeat(1000)
        );
        let text = detail_of(body.as_bytes());
        assert!(text.starts_with("a[31mb") && text.len() == 300);
        assert_eq!(
            detail_of(br#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#),
            "name_unknown"
        );
        assert_eq!(detail_of(b"<html>"), "");
    }
}
