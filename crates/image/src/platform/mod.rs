//! The `os/architecture[/variant]` of an image, as `--platform` takes it.

mod variant;

use std::fmt;
use std::str::FromStr;

use bulkhead_types::GuestText;
use oci_spec::image::{Descriptor, ImageConfiguration};
use serde::{Deserialize, Serialize};

/// An operating system and a processor, in the names the Go tool chain made customary.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Platform {
    /// For example `linux`.
    pub os: String,
    /// For example `amd64`.
    pub architecture: String,
    /// For example `v8`; what `None` means is told at [`Platform::rank`].
    pub variant: Option<String>,
}

/// Characters of a word of a platform that are kept where an image states it; the longest known has eight. A longer one
/// fits nothing, cut or not.
const WORD_MAX: usize = 64;

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

    /// What this host runs, with the level of its processor where the architecture has levels; for messages.
    pub fn host_in_full() -> Self {
        Self {
            variant: variant::of_host(),
            ..Self::host()
        }
    }

    /// How well an image for `os`/`architecture`/`variant` fits: 0 is best, `None` is not at all.
    ///
    /// Without a variant this platform means the best that this host's processor runs, where the architecture is the
    /// host's own, and the architecture's base line elsewhere. A variant means itself and what it is compatible with
    /// (`linux/amd64/v3` takes v3, then v2, then v1, which is what `linux/amd64` means for an image).
    pub fn rank(&self, os: &str, architecture: &str, variant: Option<&str>) -> Option<usize> {
        if self.os != os || self.architecture != architecture {
            return None;
        }
        let host = match &self.variant {
            None if self.architecture == Self::host().architecture => variant::of_host(),
            _ => None,
        };
        let wanted = self.variant.as_deref().or(host.as_deref());
        let offered = variant::canonical(architecture, variant);
        variant::compatible(architecture, wanted)
            .iter()
            .position(|one| *one == offered)
    }

    /// Whether an image for `os`/`architecture`/`variant` will do for this platform.
    pub fn accepts(&self, os: &str, architecture: &str, variant: Option<&str>) -> bool {
        self.rank(os, architecture, variant).is_some()
    }

    /// Whether the image with this configuration will do. Most configurations leave the variant out even where the
    /// image's index has one, so one without it counts by its architecture alone, as in Docker.
    pub fn accepts_image(&self, config: &ImageConfiguration) -> bool {
        let image = Self::of_image(config);
        match &image.variant {
            Some(variant) => self.accepts(&image.os, &image.architecture, Some(variant)),
            None => self.os == image.os && self.architecture == image.architecture,
        }
    }

    /// The platform that an entry of an index states.
    pub(crate) fn of_entry(entry: &Descriptor) -> Option<Self> {
        entry.platform().as_ref().map(|platform| {
            Self::stated(
                &platform.os().to_string(),
                &platform.architecture().to_string(),
                platform.variant().as_deref(),
            )
        })
    }

    /// What the image with this configuration says that it runs on.
    pub fn of_image(config: &ImageConfiguration) -> Self {
        Self::stated(
            &config.os().to_string(),
            &config.architecture().to_string(),
            config.variant().as_deref(),
        )
    }

    /// A platform in the words of an image, which end up in messages: each at most [`WORD_MAX`] characters, cleaned.
    fn stated(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let word = |text: &str| String::from(GuestText::start(text, WORD_MAX)).to_ascii_lowercase();
        let variant = variant.filter(|variant| !variant.is_empty()).map(word);
        let (architecture, variant) = customary(word(architecture), variant);
        Self {
            os: word(os),
            architecture,
            variant,
        }
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
                let (architecture, variant) = customary(architecture, variant);
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

/// Other names of architectures, as containerd takes them from users, indexes and images alike (platforms,
/// database.go).
fn customary(architecture: String, variant: Option<String>) -> (String, Option<String>) {
    match architecture.as_str() {
        "x86_64" | "x86-64" => ("amd64".to_owned(), variant),
        "aarch64" => ("arm64".to_owned(), variant),
        "i386" => ("386".to_owned(), None),
        "armhf" => ("arm".to_owned(), Some("v7".to_owned())),
        "armel" => ("arm".to_owned(), Some("v6".to_owned())),
        _ => (architecture, variant),
    }
}

impl TryFrom<String> for Platform {
    type Error = ParsePlatformError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> Self {
        platform.to_string()
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

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn platforms_parse_and_match() {
        let arm = platform("linux/arm64/v8");
        assert!(arm.accepts("linux", "arm64", None));
        assert!(arm.accepts("linux", "arm64", Some("v8")));
        assert!(!arm.accepts("linux", "arm64", Some("v9")));
        let any = platform("linux/x86_64");
        assert!(any.accepts("linux", "amd64", None));
        assert_eq!(any.to_string(), "linux/amd64");
        assert_eq!(platform("linux/armhf").to_string(), "linux/arm/v7");
        for bad in ["", "linux", "linux/", "a/b/c/d", "linux/a b"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_explicit_variant_takes_what_is_compatible_best_first() {
        let v3 = platform("linux/amd64/v3");
        let rank = |variant| v3.rank("linux", "amd64", variant);
        assert_eq!(rank(Some("v4")), None);
        assert_eq!(rank(Some("v3")), Some(0));
        assert_eq!(rank(Some("v2")), Some(1));
        assert_eq!(rank(Some("v1")), Some(2));
        assert_eq!(rank(None), Some(2));
        let v1 = platform("linux/amd64/v1");
        assert!(v1.accepts("linux", "amd64", None));
        assert!(!v1.accepts("linux", "amd64", Some("v2")));
        let arm = platform("linux/arm/v6");
        assert!(arm.accepts("linux", "arm", Some("v5")));
        assert!(!arm.accepts("linux", "arm", Some("v7")));
        assert!(!arm.accepts("linux", "arm", None), "plain arm is v7");
    }

    #[test]
    fn the_hosts_architecture_always_takes_plain_images() {
        let host = Platform::host();
        let plain = host.rank("linux", &host.architecture, None);
        assert!(plain.is_some());
        if host.architecture == "amd64" {
            assert_eq!(plain, host.rank("linux", "amd64", Some("v1")));
            assert!(!host.accepts("linux", "amd64", Some("v5")));
        }
    }
}
