//! Where credentials are looked for: the files that `docker login`, `podman login` and `skopeo login` write, and the
//! helper programs that they name.
//!
//! Files and their order are containers-auth.json(5)'s, which ends with Docker's. The first file that has something
//! for the registry decides. Within a file a helper for the registry (`credHelpers`) goes before what is written
//! there (`auths`), and the helper for all registries (`credsStore`, which only Docker writes) comes last.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::auth::Credentials;
use crate::reference::Reference;

/// The largest credentials file that is read, in bytes: thousands of logins.
const FILE_MAX: u64 = 4 << 20;
/// The longest answer of a helper that is read, in bytes; tokens of cloud providers take a few KiB.
const ANSWER_MAX: u64 = 1 << 20;

/// Hand-written entries often lack the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Credentials that are there but cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no JSON, or not of the form that `docker login` writes.
    #[error("cannot parse {}", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// An entry of a file is not user and password in base64.
    #[error("the entry '{key}' of {} is malformed", .path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry's name.
        key: String,
    },
    /// The helper program is missing, or could not be spoken to.
    #[error("cannot use the credential helper {helper}")]
    Helper {
        /// The program.
        helper: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The helper ended with an error that does not mean "nothing here".
    #[error("the credential helper {helper} failed: {said}")]
    HelperFailed {
        /// The program.
        helper: String,
        /// What it said, shortened.
        said: String,
    },
    /// The helper's answer is not that of a credential helper.
    #[error("the answer of the credential helper {helper} is malformed")]
    HelperAnswer {
        /// The program.
        helper: String,
    },
}

/// What a search found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) credentials: Option<Credentials>,
    /// The files that there were, or that an explicit setting names; for the message that there was nothing in them.
    pub(super) searched: Searched,
}

impl Found {
    /// What the caller brought, without a search.
    pub(super) fn given(credentials: &Credentials) -> Self {
        Self {
            credentials: Some(credentials.clone()),
            searched: Searched::default(),
        }
    }
}

/// Files that were looked into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Searched(Vec<PathBuf>);

impl fmt::Display for Searched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_first() {
            None => f.write_str("there are none"),
            Some((first, others)) => {
                write!(f, "there are none in {}", first.display())?;
                others
                    .iter()
                    .try_for_each(|path| write!(f, ", {}", path.display()))
            }
        }
    }
}

/// Looks for credentials in the files that this process's environment leads to.
pub(super) fn find(reference: &Reference) -> Result<Found, CredentialsError> {
    let uid = nix::unistd::getuid().as_raw();
    find_in(files(&|name| env::var_os(name), uid), reference)
}

/// Credentials files in the order in which they are read (podman's, containers/image `getAuthFilePaths` and
/// containers/common `GetDefaultAuthFile`): a file that the environment names stands for all others.
fn files(variable: &dyn Fn(&str) -> Option<OsString>, uid: u32) -> Vec<PathBuf> {
    let set = |name| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(file) = set("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    if let Some(dir) = set("DOCKER_CONFIG") {
        return vec![dir.join("config.json")];
    }
    let home = set("HOME");
    let runtime = match set("XDG_RUNTIME_DIR") {
        Some(dir) => dir.join("containers/auth.json"),
        None => PathBuf::from(format!("/run/containers/{uid}/auth.json")),
    };
    let config = set("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    [
        Some(runtime),
        config.map(|dir| dir.join("containers/auth.json")),
        home.map(|home| home.join(".docker/config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn find_in(files: Vec<PathBuf>, reference: &Reference) -> Result<Found, CredentialsError> {
    let mut searched = Vec::new();
    for path in files {
        let Some(file) = AuthFile::read(&path)? else {
            continue;
        };
        if let Some(credentials) = file.find(&path, reference)? {
            return Ok(Found {
                credentials: Some(credentials),
                searched: Searched(Vec::new()),
            });
        }
        searched.push(path);
    }
    Ok(Found {
        credentials: None,
        searched: Searched(searched),
    })
}

/// What `docker login` and its kin write, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    auths: Option<BTreeMap<String, AuthEntry>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl AuthFile {
    /// `None` where there is no such file.
    fn read(path: &Path) -> Result<Option<Self>, CredentialsError> {
        let failed = |source| CredentialsError::Read {
            path: path.to_owned(),
            source,
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(source) => return Err(failed(source)),
        };
        let mut text = String::new();
        let length = file
            .take(FILE_MAX + 1)
            .read_to_string(&mut text)
            .map_err(failed)?;
        if u64::try_from(length).unwrap_or(u64::MAX) > FILE_MAX {
            return Err(failed(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it is longer than {FILE_MAX} bytes"),
            )));
        }
        // podman makes an empty file before it writes the first login.
        if text.trim().is_empty() {
            return Ok(Some(Self::default()));
        }
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|source| CredentialsError::Parse {
                path: path.to_owned(),
                source,
            })
    }

    fn find(
        &self,
        path: &Path,
        reference: &Reference,
    ) -> Result<Option<Credentials>, CredentialsError> {
        let registry = reference.registry();
        let server = server(registry);
        let helpers = self.cred_helpers.iter().flatten();
        let mut helpers =
            helpers.filter(|(key, helper)| !helper.is_empty() && host_of(key) == host_of(registry));
        if let Some((_, helper)) = helpers.next()
            && let Some(credentials) = ask(helper, server)?
        {
            return Ok(Some(credentials));
        }
        if let Some((key, entry)) = self.entry(reference) {
            let found = entry.credentials().map_err(|()| CredentialsError::Entry {
                path: path.to_owned(),
                key: key.to_owned(),
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        match &self.creds_store {
            Some(helper) if !helper.is_empty() => ask(helper, server),
            _ => Ok(None),
        }
    }

    /// The entry for the repository, or for the nearest of the namespaces it is in, or for its registry.
    fn entry(&self, reference: &Reference) -> Option<(&str, &AuthEntry)> {
        let auths = self.auths.as_ref()?;
        let whole = format!("{}/{}", reference.registry(), reference.repository());
        let mut key = whole.as_str();
        loop {
            if let Some((key, entry)) = auths.get_key_value(key) {
                return Some((key, entry));
            }
            match key.rsplit_once('/') {
                Some((shorter, _)) => key = shorter,
                None => break,
            }
        }
        // Old versions of Docker wrote addresses with a scheme, and for Docker Hub all of them do.
        let registry = host_of(reference.registry());
        let mut addresses = auths
            .iter()
            .filter(|(key, _)| key.contains("://") || !key.contains('/'));
        addresses
            .find(|(key, _)| host_of(key) == registry)
            .map(|(key, entry)| (key.as_str(), entry))
    }
}

impl AuthEntry {
    /// `None` for an entry that says only that a helper has the credentials.
    fn credentials(&self) -> Result<Option<Credentials>, ()> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credentials::Identity(token)));
        }
        if let Some(auth) = given(&self.auth) {
            let bytes = BASE64.decode(auth.trim()).map_err(|_| ())?;
            let text = String::from_utf8(bytes).map_err(|_| ())?;
            let (user, password) = text.split_once(':').ok_or(())?;
            return Ok(Some(Credentials::Password {
                user: user.to_owned(),
                // Docker pads old entries so.
                password: password.trim_matches('\0').to_owned(),
            }));
        }
        Ok(given(&self.username)
            .zip(given(&self.password))
            .map(|(user, password)| Credentials::Password { user, password }))
    }
}

/// Docker Hub's name for helpers is the address of its first API, for ever.
fn server(registry: &str) -> &str {
    match registry {
        "docker.io" => "https://index.docker.io/v1/",
        other => other,
    }
}

/// The host that a key of a file stands for, with its port.
fn host_of(key: &str) -> &str {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    match rest.split('/').next().unwrap_or(rest) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// Asks a helper, by the protocol of the project docker-credential-helpers; `None` where it has nothing.
fn ask(helper: &str, server: &str) -> Result<Option<Credentials>, CredentialsError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let program = format!("docker-credential-{helper}");
    let failed = |source| CredentialsError::Helper {
        helper: program.clone(),
        source,
    };
    if helper.contains('/') {
        // It is searched for in PATH; a path would make the file say which program is run.
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // What it asks for or complains of is for the person at the terminal.
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(failed)?;
    let written = child
        .stdin
        .take()
        .map(|mut stdin| stdin.write_all(server.as_bytes()));
    let mut answer = Vec::new();
    let read = child
        .stdout
        .take()
        .map(|out| out.take(ANSWER_MAX).read_to_end(&mut answer));
    let status = child.wait().map_err(failed)?;
    read.transpose().map_err(failed)?;
    if status.success() {
        let answer: Answer =
            serde_json::from_slice(&answer).map_err(|_| CredentialsError::HelperAnswer {
                helper: program.clone(),
            })?;
        return Ok(Some(match answer.username.as_str() {
            "<token>" => Credentials::Identity(answer.secret),
            _ => Credentials::Password {
                user: answer.username,
                password: answer.secret,
            },
        }));
    }
    let said = String::from_utf8_lossy(&answer);
    if has_nothing(&said) {
        return Ok(None);
    }
    // A helper that ends without reading the server's name breaks the pipe; its own message says more.
    if said.trim().is_empty() {
        written.transpose().map_err(failed)?;
    }
    Err(CredentialsError::HelperFailed {
        helper: program,
        said: said.chars().filter(|c| !c.is_control()).take(300).collect(),
    })
}

/// Whether a helper's message means that it has no credentials for the server. The protocol has nothing but this text
/// for it (credentials/error.go: "credentials not found in native keychain"); other helpers vary its end.
fn has_nothing(said: &str) -> bool {
    said.contains("credentials not found")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn password(user: &str) -> Option<Credentials> {
        Some(Credentials::Password {
            user: user.into(),
            password: "p:w".into(),
        })
    }

    fn entry(user: &str) -> String {
        format!(r#"{{"auth":"{}"}}"#, BASE64.encode(format!("{user}:p:w")))
    }

    fn look(text: &str, reference: &str) -> Result<Option<Credentials>, CredentialsError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        std::fs::write(&path, text).unwrap();
        find_in(vec![path], &reference.parse().unwrap()).map(|found| found.credentials)
    }

    #[test]
    fn files_are_read_in_podmans_order() {
        let with = |set: &[(&str, &str)]| {
            let value = |name: &str| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| OsString::from(value))
            };
            let files = files(&value, 7).into_iter();
            files
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
        };
        let home = ("HOME", "/home/a");
        assert_eq!(
            with(&[home]),
            [
                "/run/containers/7/auth.json",
                "/home/a/.config/containers/auth.json",
                "/home/a/.docker/config.json"
            ]
        );
        assert_eq!(
            with(&[
                home,
                ("XDG_RUNTIME_DIR", "/run/user/7"),
                ("XDG_CONFIG_HOME", "/etc/a")
            ]),
            [
                "/run/user/7/containers/auth.json",
                "/etc/a/containers/auth.json",
                "/home/a/.docker/config.json"
            ]
        );
        assert_eq!(with(&[home, ("DOCKER_CONFIG", "/d")]), ["/d/config.json"]);
        assert_eq!(
            with(&[home, ("DOCKER_CONFIG", "/d"), ("REGISTRY_AUTH_FILE", "/r")]),
            ["/r"]
        );
        assert_eq!(
            with(&[("DOCKER_CONFIG", "")]),
            ["/run/containers/7/auth.json"]
        );
    }

    #[test]
    fn the_nearest_namespace_wins() {
        let text = format!(
            r#"{{"auths":{{"r:5":{},"r:5/a":{},"r:5/a/b":{},"r:5/a/b/c/d":{}}}}}"#,
            entry("registry"),
            entry("a"),
            entry("b"),
            entry("d")
        );
        let user = |name: &str| look(&text, name).unwrap();
        assert_eq!(user("r:5/a/b/c:tag"), password("b"));
        assert_eq!(user("r:5/a/b"), password("b"));
        assert_eq!(user("r:5/a/bc"), password("a"));
        assert_eq!(user("r:5/x"), password("registry"));
        assert_eq!(user("r:6/a/b"), None);
    }

    #[test]
    fn docker_hub_has_many_names() {
        for key in [
            "https://index.docker.io/v1/",
            "docker.io",
            "index.docker.io",
        ] {
            let text = format!(r#"{{"auths":{{"{key}":{}}}}}"#, entry("hub"));
            assert_eq!(look(&text, "debian").unwrap(), password("hub"), "{key}");
            assert_eq!(look(&text, "quay.io/debian").unwrap(), None);
        }
        let text = format!(r#"{{"auths":{{"https://quay.io/v2/":{}}}}}"#, entry("old"));
        assert_eq!(look(&text, "quay.io/debian").unwrap(), password("old"));
    }

    #[test]
    fn every_form_of_an_entry_is_understood_and_bad_ones_are_named() {
        let one = |entry: &str| look(&format!(r#"{{"auths":{{"r.io":{entry}}}}}"#), "r.io/x");
        assert_eq!(
            one(r#"{"auth":"","identitytoken":"t"}"#).unwrap(),
            Some(Credentials::Identity("t".into()))
        );
        assert_eq!(
            one(r#"{"username":"u","password":"p:w"}"#).unwrap(),
            password("u")
        );
        assert_eq!(one("{}").unwrap(), None);
        for bad in [r#"{"auth":"!"}"#, r#"{"auth":"YWJj"}"#] {
            let error = one(bad).unwrap_err();
            assert!(
                matches!(&error, CredentialsError::Entry { key, .. } if key == "r.io"),
                "{error}"
            );
            assert!(
                !format!("{error:?}").contains("YWJj"),
                "secrets stay out of messages"
            );
        }
        assert!(matches!(
            look("{", "r.io/x"),
            Err(CredentialsError::Parse { .. })
        ));
        assert_eq!(look("", "r.io/x").unwrap(), None);
    }

    #[test]
    fn the_first_file_that_has_something_decides() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("1"), r#"{"auths":{"other":{}}}"#).unwrap();
        for name in ["2", "3"] {
            let text = format!(r#"{{"auths":{{"r.io":{}}}}}"#, entry(name));
            std::fs::write(path(name), text).unwrap();
        }
        let look = |names: &[&str], reference: &str| {
            let files = names.iter().map(|name| path(name)).collect();
            find_in(files, &reference.parse().unwrap()).unwrap()
        };
        let all = ["none", "1", "2", "3"];
        assert_eq!(look(&all, "r.io/x").credentials, password("2"));
        let nothing = look(&all, "s.io/x");
        assert_eq!(nothing.credentials, None);
        assert_eq!(
            nothing.searched,
            Searched(vec![path("1"), path("2"), path("3")])
        );
    }

    #[test]
    fn a_helper_is_no_path_and_its_absence_is_named() {
        let text = r#"{"credHelpers":{"r.io":"no-such-helper"}}"#;
        let error = look(text, "r.io/x").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("docker-credential-no-such-helper")
        );
        assert_eq!(look(text, "s.io/x").unwrap(), None);
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("docker-credential-x");
        std::fs::write(&program, "#!/bin/sh\ntouch ran\n").unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let name = format!("/../..{}", dir.path().join("x").display());
        let text = format!(r#"{{"credsStore":"{name}"}}"#);
        assert!(matches!(
            look(&text, "r.io/x"),
            Err(CredentialsError::Helper { .. })
        ));
    }

    #[test]
    fn only_the_protocols_message_means_that_a_helper_has_nothing() {
        assert!(has_nothing("credentials not found in native keychain\n"));
        assert!(!has_nothing("no credentials server URL"));
        assert!(!has_nothing("cannot unlock the key ring"));
    }
}
