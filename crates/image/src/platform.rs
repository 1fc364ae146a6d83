//! The `os/architecture[/variant]` of an image, as `--platform` takes it.

use std::fmt;
use std::str::FromStr;

/// An operating system and a processor, in the names the Go tool chain made customary.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Platform {
    /// For example `linux`.
    pub os: String,
    /// For example `amd64`.
    pub architecture: String,
    /// For example `v8`; `None` matches any.
    pub variant: Option<String>,
}

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform '{0}': expected os/architecture[/variant], for example linux/amd64")]
pub struct ParsePlatformError(pub String);

impl Platform {
    /// What this host runs.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: None,
        }
    }

    /// Whether an image for `os`/`architecture`/`variant` will do for this platform.
    pub fn accepts(&self, os: &str, architecture: &str, variant: Option<&str>) -> bool {
        self.os == os
            && self.architecture == architecture
            && self.variant.as_deref().is_none_or(|wanted| {
                // An absent variant means the base line of the architecture.
                let base = if architecture == "arm64" { "v8" } else { "" };
                variant.unwrap_or(base) == wanted
            })
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParsePlatformError(text.chars().take(100).collect());
        let mut parts = text.split('/');
        let mut part = || parts.next().map(str::to_ascii_lowercase);
        let (os, architecture, variant, more) = (part(), part(), part(), part());
        let word = |w: &String| {
            !w.is_empty()
                && w.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        match (os, architecture, variant, more) {
            (Some(os), Some(architecture), variant, None)
                if word(&os) && word(&architecture) && variant.as_ref().is_none_or(word) =>
            {
                let architecture = match architecture.as_str() {
                    "x86_64" | "x86-64" => "amd64".to_owned(),
                    "aarch64" => "arm64".to_owned(),
                    _ => architecture,
                };
                Ok(Self {
                    os,
                    architecture,
                    variant,
                })
            }
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_parse_and_match() {
        let arm: Platform = "linux/arm64/v8".parse().unwrap();
        assert!(arm.accepts("linux", "arm64", None));
        assert!(arm.accepts("linux", "arm64", Some("v8")));
        assert!(!arm.accepts("linux", "arm64", Some("v9")));
        let any: Platform = "linux/x86_64".parse().unwrap();
        assert!(any.accepts("linux", "amd64", None));
        assert_eq!(any.to_string(), "linux/amd64");
        for bad in ["", "linux", "linux/", "a/b/c/d", "linux/a b"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
