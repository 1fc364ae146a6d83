//! What `docker login`, `podman login` and `skopeo login` write opens a registry, and what is missing is said.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use bulkhead_image::{PullOptions, Quiet, pull};
use support::fixture::{Fixture, tar};
use support::registry::Registry;
use support::{Scratch, skopeo, text, tool};

/// base64 of `user:sesame`.
const LOGIN: &str = r#"{"auth":"dXNlcjpzZXNhbWU="}"#;

/// A registry with a password and `team/app:1` in it.
fn private() -> Registry {
    let registry = Registry::start_with_password();
    let dir = tempfile::tempdir().unwrap();
    Fixture::new(&[tar(&[("a", b"1")])]).write_layout(dir.path(), "x");
    skopeo(&[
        "copy",
        "--dest-creds",
        "user:sesame",
        "--dest-tls-verify=false",
        &format!("oci:{}:x", text(dir.path())),
        &format!("docker://{}", registry.name("team/app:1")),
    ]);
    registry
}

/// Pulls in a process of its own, because this one's environment is shared; says what went wrong there.
fn pull_with(registry: &Registry, environment: &[(&str, &Path)]) -> Result<(), String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--ignored",
        "--exact",
        "helper_pulls_with_the_environments_credentials",
    ]);
    for name in [
        "DOCKER_CONFIG",
        "REGISTRY_AUTH_FILE",
        "HOME",
        "XDG_CONFIG_HOME",
    ] {
        command.env_remove(name);
    }
    // Otherwise the directory under /run would be this machine's.
    let empty = tempfile::tempdir().unwrap();
    command.env("XDG_RUNTIME_DIR", empty.path());
    command.envs(environment.iter().copied());
    let output = command
        .env("BULKHEAD_TEST_PULL", registry.name("team/app:1"))
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout)),
    }
}

#[test]
#[ignore = "the other half of the tests of this file"]
fn helper_pulls_with_the_environments_credentials() {
    let name = std::env::var("BULKHEAD_TEST_PULL").expect("run by another test");
    let scratch = Scratch::new();
    let pulled = pull(
        &scratch.store,
        &name.parse().unwrap(),
        &PullOptions::default(),
        &Quiet,
    );
    if let Err(error) = pulled {
        panic!("{error} ({:?})", error.hint());
    }
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_login_of_skopeo_opens_the_registry() {
    let registry = private();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("containers/auth.json");
    std::fs::create_dir(dir.path().join("containers")).unwrap();
    let login = tool(
        "skopeo",
        &[
            "login",
            "--tls-verify=false",
            "--authfile",
            text(&file),
            "-u",
            "user",
            "-p",
            "sesame",
            &registry.host,
        ],
    );
    assert!(login.status.success(), "{login:?}");
    pull_with(&registry, &[("REGISTRY_AUTH_FILE", &file)]).unwrap();
    pull_with(&registry, &[("XDG_RUNTIME_DIR", dir.path())]).unwrap();
    pull_with(&registry, &[("XDG_CONFIG_HOME", dir.path())]).unwrap();
}

#[test]
fn logins_in_the_home_directory_open_the_registry() {
    let registry = private();
    let text = format!(r#"{{"auths":{{"{}":{LOGIN}}}}}"#, registry.host);
    for file in [".config/containers/auth.json", ".docker/config.json"] {
        let home = tempfile::tempdir().unwrap();
        write(&home.path().join(file), &text);
        pull_with(&registry, &[("HOME", home.path())]).unwrap();
    }
    let config = tempfile::tempdir().unwrap();
    write(&config.path().join("config.json"), &text);
    pull_with(&registry, &[("DOCKER_CONFIG", config.path())]).unwrap();
}

#[test]
fn a_login_for_a_namespace_is_for_that_namespace() {
    let registry = private();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("auth.json");
    let host = &registry.host;
    write(
        &file,
        &format!(r#"{{"auths":{{"{host}":{{"auth":"d3Jvbmc6d3Jvbmc="}},"{host}/team":{LOGIN}}}}}"#),
    );
    pull_with(&registry, &[("REGISTRY_AUTH_FILE", &file)]).unwrap();
    write(&file, &format!(r#"{{"auths":{{"{host}/other":{LOGIN}}}}}"#));
    let said = pull_with(&registry, &[("REGISTRY_AUTH_FILE", &file)]).unwrap_err();
    assert!(
        said.contains(&format!("there are none in {}", file.display())),
        "{said}"
    );
}

#[test]
fn a_credential_helper_is_asked_and_may_have_nothing() {
    let registry = private();
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread -r server\ncase $1:$server in\nget:{}) echo '{{\"Username\":\"user\",\"Secret\":\"sesame\"}}';;\n\
         *) echo 'credentials not found in native keychain'; exit 1;;\nesac\n",
        registry.host
    );
    write(&program, &script);
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        dir.path().display(),
        std::env::var("PATH").unwrap()
    );
    let file = dir.path().join("auth.json");
    let ask = || {
        pull_with(
            &registry,
            &[("REGISTRY_AUTH_FILE", &file), ("PATH", Path::new(&path))],
        )
    };
    write(
        &file,
        &format!(r#"{{"credHelpers":{{"{}":"test"}}}}"#, registry.host),
    );
    ask().unwrap();
    // As Docker writes it: the entry is empty, and the store has the secret.
    write(
        &file,
        &format!(
            r#"{{"auths":{{"{}":{{}}}},"credsStore":"test"}}"#,
            registry.host
        ),
    );
    ask().unwrap();
    write(&program, &script.replace(&registry.host, "elsewhere"));
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let said = ask().unwrap_err();
    assert!(said.contains("there are none in"), "{said}");
    write(
        &program,
        "#!/bin/sh\necho 'the key ring is locked'\nexit 1\n",
    );
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    assert!(ask().unwrap_err().contains("cannot read the credentials"));
}

#[test]
fn other_credentials_are_wanted_only_where_some_were_given() {
    let registry = private();
    let said = pull_with(&registry, &[]).unwrap_err();
    assert!(
        said.contains("wants credentials for team/app, and there are none"),
        "{said}"
    );
    assert!(said.contains("podman login"), "{said}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("auth.json");
    let wrong = r#"{"auth":"d3Jvbmc6d3Jvbmc="}"#;
    write(
        &file,
        &format!(r#"{{"auths":{{"{}":{wrong}}}}}"#, registry.host),
    );
    let said = pull_with(&registry, &[("REGISTRY_AUTH_FILE", &file)]).unwrap_err();
    assert!(said.contains("wants other credentials"), "{said}");
}
