//! The configuration as the engine uses it: validated, defaults filled in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_image::Bounds;
use bulkhead_types::{ByteSize, Isolation};

use super::written::Written;
use super::{EngineConfig, SettingsError};
use crate::container::limits::{MIN_DISK, MIN_MEMORY};

/// Validated configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// State directory, where a configuration file names one.
    pub root: Option<PathBuf>,
    /// `host[:port]` of registries spoken to over plain HTTP; loopback needs no entry.
    pub insecure_registries: Vec<String>,
    /// Platform for containers that name none; `None` takes the best that works.
    pub isolation: Option<Isolation>,
    /// What containers start with where the host refuses walls that separate them.
    pub jail: JailStrength,
    /// Guest memory of a container without `--memory`.
    pub memory: ByteSize,
    /// Virtual CPUs of a container without `--cpus`, where the platform can have several.
    pub cpus: u32,
    /// Size of the writable disk of a container without `--disk`.
    pub disk_size: ByteSize,
    /// Guest kernel that replaces the search.
    pub kernel: Option<PathBuf>,
    /// Agent binary that replaces the search.
    pub agent: Option<PathBuf>,
    /// Keys that detach a client from a terminal, in Docker's notation.
    pub detach_keys: String,
    /// Time between the stop signal and the kill.
    pub stop_timeout: Duration,
    /// Limits of container logs.
    pub log: LogLimits,
    /// What one image may cost the host while it is taken in.
    pub images: Bounds,
}

/// How much of a container's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// Bytes on disk for one container, over both of its log files.
    pub max_size: ByteSize,
}

/// What a container starts with where the host refuses walls that separate compartments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JailStrength {
    /// Not at all.
    Full,
    /// With the walls that are left, and a warning at each start.
    Weakened,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: None,
            insecure_registries: Vec::new(),
            isolation: None,
            jail: JailStrength::Full,
            memory: ByteSize(512 << 20),
            cpus: 1,
            disk_size: ByteSize(10 << 30),
            kernel: None,
            agent: None,
            detach_keys: "ctrl-p,ctrl-q".to_owned(),
            stop_timeout: Duration::from_secs(10),
            log: LogLimits {
                max_size: ByteSize(32 << 20),
            },
            images: Bounds::default(),
        }
    }
}

/// A log file smaller than this would rotate on almost every write.
const MIN_LOG: ByteSize = ByteSize(64 << 10);

impl Settings {
    /// Reads the configuration files that apply: the one given, or the machine's and the user's; then the
    /// environment, which wins over them.
    pub(crate) fn load(config: &EngineConfig) -> Result<Self, SettingsError> {
        let mut settings = Self::from_files(config)?;
        if let Some(name) = &config.environment.isolation {
            let isolation = name.parse::<Isolation>();
            settings.isolation = Some(isolation.map_err(|error| SettingsError::Variable {
                variable: "BULKHEAD_ISOLATION",
                reason: error.to_string(),
            })?);
        }
        Ok(settings)
    }

    fn from_files(config: &EngineConfig) -> Result<Self, SettingsError> {
        if let Some(path) = &config.config_file {
            let written = read(path)?.ok_or_else(|| SettingsError::Read {
                path: path.clone(),
                source: nix::errno::Errno::ENOENT.into(),
            })?;
            return Self::validate(&written, path);
        }
        let environment = &config.environment;
        let files = [environment.system_config.clone(), environment.user_config()];
        let mut merged: Option<Written> = None;
        for path in files.into_iter().flatten() {
            if let Some(written) = read(&path)? {
                // Each file is checked by itself, so that an error names the file it is in.
                Self::validate(&written, &path)?;
                merged = Some(match merged {
                    Some(earlier) => written.over(earlier),
                    None => written,
                });
            }
        }
        match merged {
            Some(written) => Self::validate(&written, Path::new("config.toml")),
            None => Ok(Self::default()),
        }
    }

    fn validate(written: &Written, path: &Path) -> Result<Self, SettingsError> {
        let bad = |key: &'static str, reason: String| SettingsError::Value {
            path: path.to_owned(),
            key,
            reason,
        };
        let size =
            |key: &'static str, text: &Option<String>, default: ByteSize, least: ByteSize| {
                let Some(text) = text else { return Ok(default) };
                let size: ByteSize = text
                    .parse()
                    .map_err(|e: bulkhead_types::ParseByteSizeError| bad(key, e.to_string()))?;
                if size < least {
                    return Err(bad(
                        key,
                        format!("{text} is less than the minimum of {} bytes", least.0),
                    ));
                }
                Ok(size)
            };
        let absolute = |key: &'static str, value: &Option<PathBuf>| match value {
            Some(p) if !p.is_absolute() => Err(bad(key, "must be an absolute path".to_owned())),
            other => Ok(other.clone()),
        };
        let defaults = Self::default();
        let isolation = match &written.isolation {
            Some(text) => Some(
                text.parse::<Isolation>()
                    .map_err(|e| bad("isolation", e.to_string()))?,
            ),
            None => None,
        };
        let jail = match written.jail.as_deref() {
            None => defaults.jail,
            Some("full") => JailStrength::Full,
            Some("weakened") => JailStrength::Weakened,
            Some(other) => {
                return Err(bad(
                    "jail",
                    format!("'{other}' is neither \"full\" nor \"weakened\""),
                ));
            }
        };
        let insecure_registries = written.insecure_registries.clone().unwrap_or_default();
        if let Some(entry) = insecure_registries.iter().find(|e| !is_registry(e)) {
            return Err(bad(
                "insecure-registries",
                format!("'{entry}' is not of the form host or host:port"),
            ));
        }
        let detach_keys = written.detach_keys.clone().unwrap_or(defaults.detach_keys);
        parse_detach_keys(&detach_keys).map_err(|reason| bad("detach-keys", reason))?;
        Ok(Self {
            root: absolute("root", &written.root)?,
            insecure_registries,
            isolation,
            jail,
            memory: size("memory", &written.memory, defaults.memory, MIN_MEMORY)?,
            cpus: match written.cpus {
                Some(0) => return Err(bad("cpus", "must be at least 1".to_owned())),
                cpus => cpus.unwrap_or(defaults.cpus),
            },
            disk_size: size(
                "disk-size",
                &written.disk_size,
                defaults.disk_size,
                MIN_DISK,
            )?,
            kernel: absolute("kernel", &written.kernel)?,
            agent: absolute("agent", &written.agent)?,
            detach_keys,
            stop_timeout: written
                .stop_timeout
                .map_or(defaults.stop_timeout, Duration::from_secs),
            log: LogLimits {
                max_size: size(
                    "log.max-size",
                    &written.log.max_size,
                    defaults.log.max_size,
                    MIN_LOG,
                )?,
            },
            images: Bounds {
                memory: size(
                    "images.memory",
                    &written.images.memory,
                    ByteSize(defaults.images.memory),
                    ByteSize(Bounds::LEAST_MEMORY),
                )?
                .0,
                keep_free: match written.images.keep_free {
                    Some(percent) if percent > 50 => {
                        let reason = format!("{percent} is more than the maximum of 50 per cent");
                        return Err(bad("images.keep-free", reason));
                    }
                    percent => percent.unwrap_or(defaults.images.keep_free),
                },
            },
        })
    }
}

/// Most machines have neither file, so a missing one costs one failed open and nothing else.
fn read(path: &Path) -> Result<Option<Written>, SettingsError> {
    match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text)
            .map(Some)
            .map_err(|source| SettingsError::Syntax {
                path: path.to_owned(),
                source: Box::new(source),
            }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SettingsError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn is_registry(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
}

/// Docker's notation: comma-separated single characters or `ctrl-` with a letter or one of `@[\]^_`.
/// Returns the bytes that a terminal sends for them.
pub fn parse_detach_keys(text: &str) -> Result<Vec<u8>, String> {
    text.split(',')
        .map(|key| {
            let bytes = key.as_bytes();
            match (key.strip_prefix("ctrl-").map(str::as_bytes), bytes) {
                (Some([c @ b'a'..=b'z']), _) => Ok(c - b'a' + 1),
                (Some([c @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]), _) => Ok(c - b'@'),
                (None, [c]) if c.is_ascii_graphic() => Ok(*c),
                _ => Err(format!("unknown key '{key}'")),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
