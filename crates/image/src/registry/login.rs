//! Answering a registry's challenge: with a password, or with a token that a service gives for it.

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Response, StatusCode};

use super::answers::retry_after;
use super::auth::{Challenge, Credentials, bearer_from_answer, token_request};
use super::client::Client;
use super::error::RegistryError;
use super::retry::is_transient;

/// Enough for any token, in bytes.
const TOKEN_MAX: u64 = 1 << 20;

impl Client<'_> {
    /// Answers a challenge; `false` where there is nothing to answer with.
    pub(super) async fn authenticate(&self, response: &Response) -> Result<bool, RegistryError> {
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

    pub(super) async fn token(
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
                    let body = self.body(response, "token", TOKEN_MAX).await?;
                    return bearer_from_answer(&body).map_err(failure);
                }
                Ok(response) if is_transient(response.status()) => {
                    let asked = retry_after(&response);
                    (self.refusal("get a token", response).await, asked)
                }
                Ok(response) => return Err(self.refusal("get a token", response).await),
                Err(source) => {
                    let operation = format!("get a token from {realm}");
                    (self.unreachable(&operation, source), None)
                }
            };
            if matches!(error, RegistryError::Untrusted { .. }) {
                return Err(error);
            }
            failed += 1;
            self.pause(failed, (error, asked)).await?;
        }
    }
}
