//! What configuration files mean.

use super::*;
use crate::settings::Environment;

fn load(system: Option<&str>, user: Option<&str>) -> Result<Settings, SettingsError> {
    let dir = tempfile::tempdir().unwrap();
    let system_path = dir.path().join("system.toml");
    if let Some(text) = system {
        std::fs::write(&system_path, text).unwrap();
    }
    if let Some(text) = user {
        std::fs::create_dir_all(dir.path().join("bulkhead")).unwrap();
        std::fs::write(dir.path().join("bulkhead/config.toml"), text).unwrap();
    }
    let environment = Environment {
        system_config: Some(system_path),
        config_home: Some(dir.path().to_owned()),
        ..Default::default()
    };
    Settings::load(&EngineConfig {
        create_root: true,
        root: None,
        config_file: None,
        environment,
    })
}

#[test]
fn no_file_means_defaults() {
    assert_eq!(load(None, None).unwrap(), Settings::default());
}

#[test]
fn the_users_keys_win_over_the_machines() {
    let settings = load(
        Some("memory = '1g'\ndisk-size = '2g'\ninsecure-registries = ['a:5000']\n[log]\nmax-size = '1m'\n[images]\nmemory = '1g'\nkeep-free = 10"),
        Some("memory = '256m'\ncpus = 3\nisolation = 'user-mode'\nstop-timeout = 3\n[images]\nkeep-free = 0"),
    )
    .unwrap();
    assert_eq!(settings.memory, ByteSize(256 << 20));
    assert_eq!(settings.cpus, 3);
    assert_eq!(settings.disk_size, ByteSize(2 << 30));
    assert_eq!(settings.insecure_registries, ["a:5000"]);
    assert_eq!(settings.isolation, Some(Isolation::UserMode));
    assert_eq!(settings.stop_timeout, Duration::from_secs(3));
    assert_eq!(settings.log.max_size, ByteSize(1 << 20));
    assert_eq!(settings.images.memory, 1 << 30);
    assert_eq!(settings.images.keep_free, 0);
}

#[test]
fn what_cannot_be_used_is_refused_and_names_the_key() {
    for (text, expected) in [
        ("memroy = '1g'", "memroy"),
        ("[log]\nsize = '1m'", "size"),
        ("memory = 512", "string"),
        ("memory = '1m'", "memory"),
        ("memory = 'lots'", "memory"),
        ("disk-size = '1m'", "disk-size"),
        ("cpus = 0", "cpus"),
        ("cpus = 1.5", "1.5"),
        ("isolation = 'docker'", "isolation"),
        ("kernel = 'vmlinux'", "kernel"),
        ("detach-keys = 'ctrl-ctrl'", "detach-keys"),
        ("insecure-registries = ['http://a']", "insecure-registries"),
        ("log = { max-size = '1' }", "log.max-size"),
        ("images = { memory = '1m' }", "images.memory"),
        ("images = { keep-free = 51 }", "images.keep-free"),
        ("images = { keep-free = '5%' }", "u8"),
        ("memory = ", "config.toml"),
    ] {
        let error = load(None, Some(text)).unwrap_err();
        let source = std::error::Error::source(&error)
            .map(ToString::to_string)
            .unwrap_or_default();
        let chain = format!("{error}: {source}");
        assert!(chain.contains(expected), "{text}: {chain}");
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
    }
}

#[test]
fn the_environment_names_the_isolation_over_every_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "isolation = 'user-mode'").unwrap();
    let with = |name: Option<&str>| {
        Settings::load(&EngineConfig {
            create_root: true,
            root: None,
            config_file: Some(file.clone()),
            environment: Environment {
                isolation: name.map(str::to_owned),
                ..Default::default()
            },
        })
    };
    assert_eq!(with(None).unwrap().isolation, Some(Isolation::UserMode));
    assert_eq!(with(Some("kvm")).unwrap().isolation, Some(Isolation::Kvm));
    let error = with(Some("hope")).unwrap_err();
    assert!(error.to_string().contains("BULKHEAD_ISOLATION"), "{error}");
}

#[test]
fn a_configuration_file_that_was_named_must_exist() {
    let config = EngineConfig {
        create_root: true,
        root: None,
        config_file: Some("/nonexistent/config.toml".into()),
        environment: Environment::default(),
    };
    assert!(matches!(
        Settings::load(&config),
        Err(SettingsError::Read { .. })
    ));
}

#[test]
fn detach_keys_become_the_bytes_a_terminal_sends() {
    assert_eq!(parse_detach_keys("ctrl-p,ctrl-q").unwrap(), [16, 17]);
    assert_eq!(parse_detach_keys("a,ctrl-],ctrl-@").unwrap(), [b'a', 29, 0]);
    for bad in ["", "ctrl-", "ctrl-é", "ab", "ctrl-p,", "ctrl-P"] {
        assert!(parse_detach_keys(bad).is_err(), "{bad}");
    }
}
