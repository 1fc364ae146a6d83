//! HTTPS or plain HTTP: chosen once for a registry, by what it speaks, for every request.
//!
//! The API of a registry is reached over HTTPS. Of one on loopback, or named as insecure, a first connection tells
//! whether it speaks TLS at all; only an answer that is no TLS makes it HTTP. One that hangs up, or is slow, says nothing.

use reqwest::Url;
use tokio::sync::OnceCell;

use super::client::Client;
use super::trouble::Trouble;

const HTTPS: &str = "https";
const HTTP: &str = "http";

/// The scheme of a registry's addresses.
pub(super) struct Scheme(OnceCell<&'static str>);

impl Scheme {
    /// HTTPS, or what the registry speaks where plain HTTP is allowed too.
    pub(super) fn new(may_be_http: bool) -> Self {
        Self(match may_be_http {
            true => OnceCell::new(),
            false => OnceCell::new_with(Some(HTTPS)),
        })
    }

    /// As far as it is known.
    pub(super) fn name(&self) -> &'static str {
        self.0.get().copied().unwrap_or(HTTPS)
    }
}

impl Client<'_> {
    /// Finds out which scheme it is, the first time. Of several requests at once one asks and the others wait.
    pub(super) async fn settle_scheme(&self) -> Result<(), reqwest::Error> {
        let ask = || async {
            let url = format!("{HTTPS}://{}/v2/", self.reference.api_host());
            match self.http.get(&url).send().await {
                Ok(_) => Ok(HTTPS),
                // A redirection may have led to somebody else, who says nothing about the registry.
                Err(error)
                    if Trouble::of(&error) == Trouble::PlainHttp
                        && error.url().map(Url::origin)
                            == Url::parse(&url).ok().map(|url| url.origin()) =>
                {
                    Ok(HTTP)
                }
                Err(error) => Err(error),
            }
        };
        self.scheme.0.get_or_try_init(ask).await.map(|_| ())
    }
}
