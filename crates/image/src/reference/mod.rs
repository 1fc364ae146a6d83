//! Image references by Docker's rules: `debian` means `docker.io/library/debian:latest`.
//!
//! The grammar is that of the distribution project's `reference` package. It is parsed by hand
//! because every `run` parses one and compiling the equivalent regular expression takes longer
//! than the whole rest of the lookup.

mod grammar;

use std::fmt;
use std::str::FromStr;

use bulkhead_types::{Digest, GuestText};
use serde::{Deserialize, Serialize};

use grammar::{is_component, is_registry, is_tag, split_registry};

const HUB: &str = "docker.io";
const HUB_NAMESPACE: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// What an identifier begins with. As the name of a repository it would make `sha256:HEX` a tag, which whoever makes an
/// archive can give to any image, and which would be found in the place of the image that has this identifier.
const DIGEST_ALGORITHM: &str = "sha256";
/// Longest repository name, registry included (reference.go, `NameTotalLengthMax`).
const NAME_MAX: usize = 255;

/// A text that is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Outside the grammar.
    #[error("invalid reference format: '{reference}': {reason}")]
    Format {
        /// What was given, shortened to 200 characters.
        reference: GuestText,
        /// Which part is wrong.
        reason: &'static str,
    },
    /// Docker's own words for the commonest mistake.
    #[error("invalid reference format: repository name ({repository}) must be lowercase")]
    Uppercase {
        /// The offending repository.
        repository: GuestText,
    },
    /// `sha256:HEX` is the identifier of an image and never a name; Docker's words too.
    #[error(
        "'{reference}': refusing to create an ambiguous tag using digest algorithm as name: sha256:HEX is the ID of an image"
    )]
    DigestAlgorithm {
        /// What was given, shortened to 200 characters.
        reference: GuestText,
    },
}

/// A repository in a registry, with a tag, a digest or both.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and optional port, for example `docker.io` or `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path in the registry, for example `library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; a reference without tag and digest was given `latest` when parsed.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of a manifest or index.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether `text`, which this reference was parsed from, names a repository alone: Docker's commands complete it
    /// with `latest`, or take every tag of it.
    pub fn is_name_only(&self, text: &str) -> bool {
        let stated = |tag: &str| text.ends_with(&format!(":{tag}"));
        self.digest.is_none() && !self.tag().is_some_and(stated)
    }

    /// The same repository at a digest, without a tag.
    pub fn at(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// Registry and repository as a user writes them: `debian`, `localhost:5000/x`.
    pub fn familiar_name(&self) -> String {
        if self.registry == HUB {
            let short = self.repository.strip_prefix(HUB_NAMESPACE);
            // `library/a/b` is not official and would be misread without its prefix.
            match short {
                Some(short) if !short.contains('/') => short.to_owned(),
                _ => self.repository.clone(),
            }
        } else {
            format!("{}/{}", self.registry, self.repository)
        }
    }

    /// The reference as a user writes it: `debian:bookworm`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// Registry and repository without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Host and port that answer for this registry; Docker Hub's API lives elsewhere than its name.
    pub fn api_host(&self) -> &str {
        if self.registry == HUB {
            "registry-1.docker.io"
        } else {
            &self.registry
        }
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |reason| ReferenceError::Format {
            reference: GuestText::start(text, 200),
            reason,
        };
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad("a repository name cannot be 64 hex digits"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|_| bad("only sha256 digests of 64 hex digits"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it belongs to a port.
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest.get(slash..).and_then(|last| last.find(':')) {
            Some(colon) => {
                let (name, tag) = rest.split_at(slash + colon);
                (name, Some(tag.strip_prefix(':').unwrap_or(tag)))
            }
            None => (rest, None),
        };
        if name.is_empty() {
            return Err(bad("the repository name is empty"));
        }
        let (registry, repository) = split_registry(name);
        if registry == HUB && repository.strip_prefix(HUB_NAMESPACE) == Some(DIGEST_ALGORITHM) {
            return Err(ReferenceError::DigestAlgorithm {
                reference: GuestText::start(text, 200),
            });
        }
        if repository.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ReferenceError::Uppercase {
                repository: GuestText::start(&repository, 200),
            });
        }
        if !is_registry(&registry) {
            return Err(bad("the registry is no host name"));
        }
        if registry.len() + 1 + repository.len() > NAME_MAX {
            return Err(bad("the repository name is longer than 255 characters"));
        }
        if !repository.split('/').all(is_component) {
            return Err(bad("the repository name has a bad component"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("the tag is malformed"));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self {
            registry,
            repository,
            tag,
            digest,
        })
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for Reference {
    /// The full form, registry included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.name()))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_expand_as_dockers_do() {
        for (short, full, familiar) in [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            (
                "debian:bookworm",
                "docker.io/library/debian:bookworm",
                "debian:bookworm",
            ),
            (
                "docker.io/debian",
                "docker.io/library/debian:latest",
                "debian:latest",
            ),
            (
                "index.docker.io/library/debian",
                "docker.io/library/debian:latest",
                "debian:latest",
            ),
            ("me/app", "docker.io/me/app:latest", "me/app:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            (
                "localhost:5000/x",
                "localhost:5000/x:latest",
                "localhost:5000/x:latest",
            ),
            (
                "localhost:5000/a/b:1.0",
                "localhost:5000/a/b:1.0",
                "localhost:5000/a/b:1.0",
            ),
            ("[::1]:5000/x:y", "[::1]:5000/x:y", "[::1]:5000/x:y"),
            (
                "ghcr.io/o/r__x-y.z",
                "ghcr.io/o/r__x-y.z:latest",
                "ghcr.io/o/r__x-y.z:latest",
            ),
            ("HOST/x", "HOST/x:latest", "HOST/x:latest"),
        ] {
            let parsed: Reference = short.parse().unwrap();
            assert_eq!(parsed.to_string(), full);
            assert_eq!(parsed.familiar(), familiar);
            assert_eq!(
                familiar.parse::<Reference>().unwrap(),
                parsed,
                "familiar form reads back"
            );
        }
    }

    #[test]
    fn a_digest_needs_no_tag_and_may_have_one() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let parsed: Reference = format!("debian@{digest}").parse().unwrap();
        assert_eq!(parsed.tag(), None);
        assert_eq!(parsed.familiar(), format!("debian@{digest}"));
        let parsed: Reference = format!("debian:12@{digest}").parse().unwrap();
        assert_eq!(parsed.tag(), Some("12"));
        assert_eq!(parsed.digest().unwrap().to_string(), digest);
    }

    #[test]
    fn an_identifier_is_no_name() {
        let hex = "a".repeat(64);
        for bad in [
            format!("sha256:{hex}"),
            format!("docker.io/library/sha256:{hex}"),
            format!("index.docker.io/sha256:{hex}"),
            format!("library/sha256:{hex}"),
            format!("sha256@sha256:{hex}"),
            "sha256:abc".to_owned(),
            "sha256".to_owned(),
        ] {
            let parsed = bad.parse::<Reference>();
            assert!(
                matches!(parsed, Err(ReferenceError::DigestAlgorithm { .. })),
                "{bad}: {parsed:?}"
            );
        }
        for good in ["me/sha256:1", "localhost/sha256:1", "sha256x:1"] {
            assert!(good.parse::<Reference>().is_ok(), "{good}");
        }
    }

    #[test]
    fn texts_outside_the_grammar_are_refused() {
        for bad in [
            "",
            ":",
            "a:",
            ":tag",
            "/a",
            "a/",
            "a//b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "a b",
            "a:b c",
            "a@",
            "a@sha256:00",
            "a@md5:00",
            "a:-x",
            "é",
            "a:é",
            "..",
            "../a",
            "a/../b",
            "localhost:99999/x",
            "localhost:/x",
            "-host.x/y",
            "[::1/x",
            "a:b:c",
            "http://x/y",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
        assert!("a".repeat(64).parse::<Reference>().is_err());
        assert!("z".repeat(256).parse::<Reference>().is_err());
        assert!(
            format!("a:{}", "t".repeat(129))
                .parse::<Reference>()
                .is_err()
        );
        assert!(matches!(
            "Debian".parse::<Reference>(),
            Err(ReferenceError::Uppercase { .. })
        ));
    }
}
