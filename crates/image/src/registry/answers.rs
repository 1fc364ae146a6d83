//! What a registry's answers mean, read with bounds.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use super::client::Client;
use super::error::RegistryError;
use super::trouble::Trouble;

impl Client<'_> {
    /// The error that no answer at all means.
    pub(super) fn unreachable(&self, operation: &str, source: reqwest::Error) -> RegistryError {
        let (registry, operation) = (self.registry(), operation.to_owned());
        match Trouble::of(&source) {
            Trouble::Certificate(reason) => RegistryError::Untrusted {
                registry,
                operation,
                // A token service, or where a blob is stored, may be another host than the registry.
                host: source
                    .url()
                    .and_then(|url| url.host_str())
                    .unwrap_or_else(|| self.reference.registry())
                    .to_owned(),
                reason,
            },
            _ => RegistryError::Transport {
                registry,
                operation,
                source,
            },
        }
    }

    /// The error that an unwelcome answer means.
    pub(super) async fn refusal(&self, operation: &str, mut response: Response) -> RegistryError {
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
            StatusCode::UNAUTHORIZED if self.credentials.is_none() => {
                RegistryError::NoCredentials {
                    registry,
                    repository,
                    searched: self.searched.clone(),
                    detail,
                }
            }
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
                Err(source) => return Err(self.unreachable(&format!("read {what}"), source)),
            }
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if length > limit {
                return Err(too_long(length));
            }
        }
    }
}

/// What a registry's error document says (distribution specification, "Error codes").
pub(super) fn detail_of(body: &[u8]) -> String {
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

pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

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
