//! Credentials and tokens (distribution project, "Token Authentication Specification").

use std::collections::HashMap;

use http_auth::parser::ChallengeParser;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Url};
use serde::Deserialize;

/// What to show a registry or its token service.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User and password (or access token in its place).
    Password {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
    /// An OAuth2 refresh token, as `docker login` stores it for some registries.
    Identity(String),
}

impl std::fmt::Debug for Credentials {
    /// Never the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user})"),
            Self::Identity(_) => f.write_str("Identity"),
        }
    }
}

/// How a registry wants to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best challenge of an answer with status 401: a token reveals less than a password.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut basic = None;
        for value in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(text) = value.to_str() else { continue };
            for challenge in ChallengeParser::new(text).map_while(Result::ok) {
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                } else if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let mut params: HashMap<String, String> = challenge
                        .params
                        .iter()
                        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_unescaped()))
                        .collect();
                    if let Some(realm) = params.remove("realm") {
                        return Some(Self::Bearer {
                            realm,
                            service: params.remove("service"),
                            scope: params.remove("scope"),
                        });
                    }
                }
            }
        }
        basic
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// An `Authorization` value from a token service's answer.
pub(super) fn bearer_from_answer(body: &[u8]) -> Result<HeaderValue, String> {
    let answer: TokenAnswer =
        serde_json::from_slice(body).map_err(|e| format!("its answer is no token: {e}"))?;
    let token = answer
        .token
        .or(answer.access_token)
        .filter(|t| !t.is_empty());
    let token = token.ok_or_else(|| "its answer has no token".to_owned())?;
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| "its token is malformed".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// The request to a token service; `https` says whether the registry itself is reached securely.
pub(super) fn token_request(
    client: &reqwest::Client,
    challenge: (&str, Option<&str>),
    scopes: &[String],
    credentials: Option<&Credentials>,
    https: bool,
) -> Result<RequestBuilder, String> {
    let (realm, service) = challenge;
    let mut url = Url::parse(realm).map_err(|e| format!("its address is malformed: {e}"))?;
    match url.scheme() {
        "https" => {}
        "http" if !https || credentials.is_none() => {}
        "http" => return Err("credentials would be sent in the clear".into()),
        _ => return Err("its address is not HTTP".into()),
    }
    if let Some(Credentials::Identity(token)) = credentials {
        let mut form = Url::parse("form:").map_err(|e| e.to_string())?;
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", service.unwrap_or_default())
            .append_pair("client_id", "bulkhead")
            .append_pair("scope", &scopes.join(" "))
            .append_pair("refresh_token", token);
        let body = form.query().unwrap_or_default().to_owned();
        return Ok(client
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body));
    }
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for scope in scopes {
            query.append_pair("scope", scope);
        }
    }
    let request = client.get(url);
    Ok(match credentials {
        Some(Credentials::Password { user, password }) => request.basic_auth(user, Some(password)),
        _ => request,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
        }
        Challenge::of(&headers)
    }

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let bearer = r#"Bearer realm="https://a/token",service="s",scope="repository:x:pull""#;
        let found = challenge(&["Basic realm=\"x\"", bearer]).unwrap();
        assert_eq!(
            found,
            Challenge::Bearer {
                realm: "https://a/token".into(),
                service: Some("s".into()),
                scope: Some("repository:x:pull".into())
            }
        );
        assert_eq!(challenge(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(challenge(&["Negotiate"]), None);
        assert_eq!(challenge(&["Bearer service=\"no realm\""]), None);
        assert_eq!(challenge(&[]), None);
    }

    #[test]
    fn hostile_tokens_are_errors() {
        assert!(bearer_from_answer(br#"{"access_token":"abc"}"#).is_ok());
        for bad in [r#"{"token":"a\nb"}"#, r#"{"token":""}"#, "{}", "<html>"] {
            assert!(bearer_from_answer(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_is_not_sent_in_the_clear_on_behalf_of_a_secure_registry() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::new();
        let password = Credentials::Password {
            user: "u".into(),
            password: "p".into(),
        };
        let ask =
            |realm: &str, https| token_request(&client, (realm, None), &[], Some(&password), https);
        assert!(ask("http://a/token", true).is_err());
        assert!(ask("http://a/token", false).is_ok());
        assert!(ask("https://a/token", true).is_ok());
        assert!(ask("file:///etc/passwd", true).is_err());
        assert!(!format!("{password:?}").contains("\"p\""));
    }
}
