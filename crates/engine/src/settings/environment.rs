//! What the engine takes from its surroundings: captured once, so that tests can pass their own.

use std::path::{Path, PathBuf};

use super::{Settings, SettingsError};

/// How to open an [`Engine`](crate::Engine): the command line's overrides and the environment.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// `--root`; wins over `BULKHEAD_ROOT` and the configuration files.
    pub root: Option<PathBuf>,
    /// A configuration file to read instead of the two usual ones; it must exist.
    pub config_file: Option<PathBuf>,
    /// Whether a state directory that does not exist is made. Without it a missing one has nothing in it: whoever
    /// only looks must not leave a directory where a path was mistyped.
    pub create_root: bool,
    /// The process's surroundings.
    pub environment: Environment,
}

/// The environment variables and facts that matter to the engine.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Effective user id.
    pub uid: u32,
    /// `BULKHEAD_ROOT`.
    pub root: Option<PathBuf>,
    /// `BULKHEAD_AGENT`.
    pub agent: Option<PathBuf>,
    /// `BULKHEAD_KERNEL`.
    pub kernel: Option<PathBuf>,
    /// `BULKHEAD_ISOLATION`; wins over the configuration files.
    pub isolation: Option<String>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_DATA_HOME`.
    pub data_home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub config_home: Option<PathBuf>,
    /// The machine-wide configuration file, normally `/etc/bulkhead/config.toml`.
    pub system_config: Option<PathBuf>,
    /// The running binary; started again as a monitor.
    pub executable: Option<PathBuf>,
}

impl EngineConfig {
    /// No overrides, the real environment, and a state directory that exists.
    pub fn from_process() -> Self {
        Self {
            root: None,
            config_file: None,
            create_root: false,
            environment: Environment::from_process(),
        }
    }
}

impl Environment {
    /// Of this process.
    pub fn from_process() -> Self {
        let path = |name: &str| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            root: path("BULKHEAD_ROOT"),
            agent: path("BULKHEAD_AGENT"),
            kernel: path("BULKHEAD_KERNEL"),
            isolation: path("BULKHEAD_ISOLATION").map(|name| name.to_string_lossy().into_owned()),
            home: path("HOME"),
            data_home: path("XDG_DATA_HOME"),
            config_home: path("XDG_CONFIG_HOME"),
            system_config: Some("/etc/bulkhead/config.toml".into()),
            executable: std::env::current_exe().ok(),
        }
    }

    /// The user's configuration file, whether or not it exists.
    pub(super) fn user_config(&self) -> Option<PathBuf> {
        let home = absolute(self.config_home.as_deref())
            .or_else(|| absolute(self.home.as_deref()).map(|home| home.join(".config")))?;
        Some(home.join("bulkhead/config.toml"))
    }

    /// The state directory: command line, environment, configuration, then by user.
    pub(crate) fn choose_root(
        &self,
        flag: Option<&Path>,
        settings: &Settings,
    ) -> Result<PathBuf, SettingsError> {
        if let Some(path) = flag.or(self.root.as_deref()).or(settings.root.as_deref()) {
            return std::path::absolute(path).map_err(|source| SettingsError::Root {
                path: path.to_owned(),
                source,
            });
        }
        if self.uid == 0 {
            return Ok("/var/lib/bulkhead".into());
        }
        let data = absolute(self.data_home.as_deref())
            .or_else(|| absolute(self.home.as_deref()).map(|home| home.join(".local/share")))
            .ok_or(SettingsError::NoHome)?;
        Ok(data.join("bulkhead"))
    }
}

/// The XDG specification says to ignore relative paths.
fn absolute(path: Option<&Path>) -> Option<PathBuf> {
    path.filter(|p| p.is_absolute()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_chosen_by_flag_environment_file_and_user_in_this_order() {
        let mut settings = Settings::default();
        let mut env = Environment {
            uid: 1000,
            home: Some("/home/u".into()),
            ..Default::default()
        };
        let choose = |env: &Environment, flag: Option<&str>, settings: &Settings| {
            env.choose_root(flag.map(Path::new), settings)
                .unwrap()
                .display()
                .to_string()
        };
        assert_eq!(
            choose(&env, None, &settings),
            "/home/u/.local/share/bulkhead"
        );
        env.data_home = Some("relative".into());
        assert_eq!(
            choose(&env, None, &settings),
            "/home/u/.local/share/bulkhead"
        );
        env.data_home = Some("/data".into());
        assert_eq!(choose(&env, None, &settings), "/data/bulkhead");
        env.uid = 0;
        assert_eq!(choose(&env, None, &settings), "/var/lib/bulkhead");
        settings.root = Some("/from/file".into());
        assert_eq!(choose(&env, None, &settings), "/from/file");
        env.root = Some("/from/env".into());
        assert_eq!(choose(&env, None, &settings), "/from/env");
        assert_eq!(choose(&env, Some("/flag"), &settings), "/flag");
    }

    #[test]
    fn a_user_without_a_home_is_told_to_choose_a_root() {
        let env = Environment {
            uid: 1000,
            ..Default::default()
        };
        let error = env.choose_root(None, &Settings::default()).unwrap_err();
        assert!(matches!(error, SettingsError::NoHome));
        assert!(error.hint().unwrap().contains("BULKHEAD_ROOT"));
    }
}
