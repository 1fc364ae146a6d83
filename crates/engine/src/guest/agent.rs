//! Where the agent's binary is.

use std::path::{Path, PathBuf};

use super::GuestError;
use crate::settings::{Environment, Settings};

/// File name of the agent.
const NAME: &str = "bulkhead-agent";
/// Where an installation puts it, relative to the directory of `bulkhead`.
const RELATIVE: [&str; 3] = ["", "../lib/bulkhead", "../libexec/bulkhead"];

/// `BULKHEAD_AGENT`, then the configuration, then beside the running binary, then where `make
/// install` puts it. An explicit choice that does not exist is an error, not a reason to look on.
pub(crate) fn find_agent(
    environment: &Environment,
    settings: &Settings,
) -> Result<PathBuf, GuestError> {
    let candidates = candidates(environment, settings);
    candidates
        .iter()
        .find(|path| path.is_file())
        .cloned()
        .ok_or(GuestError::NoAgent { looked: candidates })
}

fn candidates(environment: &Environment, settings: &Settings) -> Vec<PathBuf> {
    if let Some(path) = environment.agent.as_ref().or(settings.agent.as_ref()) {
        return vec![std::path::absolute(path).unwrap_or_else(|_| path.clone())];
    }
    let beside = environment.executable.as_deref().and_then(Path::parent);
    let mut found: Vec<PathBuf> = beside
        .into_iter()
        .flat_map(|dir| RELATIVE.map(|relative| dir.join(relative).join(NAME)))
        .collect();
    found.push(Path::new("/usr/lib/bulkhead").join(NAME));
    found.push(Path::new("/usr/local/lib/bulkhead").join(NAME));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explicit_agent_wins_and_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let beside = bin.join(NAME);
        std::fs::write(&beside, "").unwrap();
        let mut environment = Environment {
            executable: Some(bin.join("bulkhead")),
            ..Default::default()
        };
        let mut settings = Settings::default();
        assert_eq!(find_agent(&environment, &settings).unwrap(), beside);
        settings.agent = Some(dir.path().join("configured"));
        assert!(find_agent(&environment, &settings).is_err());
        environment.agent = Some(beside.clone());
        assert_eq!(find_agent(&environment, &settings).unwrap(), beside);
    }

    #[test]
    fn an_installed_agent_is_found_in_lib() {
        let dir = tempfile::tempdir().unwrap();
        let installed = dir.path().join("lib/bulkhead").join(NAME);
        std::fs::create_dir_all(installed.parent().unwrap()).unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        std::fs::write(&installed, "").unwrap();
        let environment = Environment {
            executable: Some(dir.path().join("bin/bulkhead")),
            ..Default::default()
        };
        let found = find_agent(&environment, &Settings::default()).unwrap();
        assert_eq!(
            found.canonicalize().unwrap(),
            installed.canonicalize().unwrap()
        );
    }
}
