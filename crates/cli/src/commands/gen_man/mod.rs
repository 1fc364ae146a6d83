//! `gen-man`: man pages, for `make install`. Not listed: nobody types it.

mod examples;

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::args::{Arity, Execute, full_tree};
use crate::context::Context;
use crate::error::CliError;

/// Arguments of `gen-man`.
#[derive(Debug, Args)]
pub struct GenMan {
    /// Where the documentation will be
    #[arg(long, value_name = "dir", default_value = "docs")]
    doc: PathBuf,
    #[arg(value_name = "DIR", hide = true)]
    directory: PathBuf,
}

/// Paths and variables with what they are for.
type List = &'static [(&'static str, &'static str)];

const FILES: List = &[
    (
        "/var/lib/bulkhead, ~/.local/share/bulkhead",
        "The state directory of root and of other users: containers, images, layers.",
    ),
    (
        "/etc/bulkhead/config.toml, ~/.config/bulkhead/config.toml",
        "The configuration. The second wins over the first, key by key. Registries in insecure-registries are not \
         verified and may speak plain HTTP, as may those on loopback.",
    ),
    (
        "~/.cache/bulkhead/kernels",
        "Guest kernels that this user built with 'make kernel'; 'make install' brings the newest to every user.",
    ),
];
/// Of the verbs that talk to registries.
const REGISTRY_FILES: List = &[
    (
        "/etc/docker/certs.d/HOST[:PORT]/*.crt",
        "Certificates in PEM format that are trusted for this registry, besides the system's: of authorities, or its own.",
    ),
    (
        "~/.docker/config.json, ~/.config/containers/auth.json",
        "Credentials that docker login, podman login or skopeo login wrote.",
    ),
];
const ENVIRONMENT: List = &[
    ("BULKHEAD_ROOT", "The state directory; --root wins over it."),
    (
        "BULKHEAD_ISOLATION",
        "How kernels are run, kvm or user-mode; --isolation wins over it.",
    ),
    (
        "BULKHEAD_KERNEL, BULKHEAD_AGENT",
        "Guest kernel and agent, in place of the ones that are found.",
    ),
    (
        "HOME, XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_CACHE_HOME",
        "Where configuration, state and caches are.",
    ),
];
/// Of the verbs that talk to registries.
const REGISTRY_ENVIRONMENT: List = &[
    (
        "SSL_CERT_FILE, SSL_CERT_DIR",
        "Certificate authorities, in place of the system's.",
    ),
    (
        "REGISTRY_AUTH_FILE",
        "The file with the credentials for registries, in place of every other.",
    ),
    (
        "DOCKER_CONFIG",
        "The directory of the config.json with the credentials, in place of every other.",
    ),
];
const COMMON_EXITS: List = &[
    ("0", "It was done."),
    (
        "1",
        "Something failed, or the number of words was wrong. Of several objects the rest was still done.",
    ),
    ("125", "A flag was wrong."),
];
const CONTAINER_EXITS: List = &[
    ("125", "Bulkhead failed: no image, no kernel, a wrong flag."),
    ("126", "The command was found but cannot be executed."),
    ("127", "The command was not found."),
    (
        "128+n",
        "Signal n ended the command; 137 also when the compartment was killed from outside.",
    ),
    ("other", "The command's own exit code."),
];
const CREATE_EXITS: List = &[
    ("0", "It was done."),
    ("1", "Something failed."),
    ("125", "A flag, or a file that a flag names, was wrong."),
];
const EXEC_EXITS: List = &[
    (
        "1",
        "Bulkhead failed, for example because the container does not run.",
    ),
    ("125", "A flag was wrong."),
    ("126", "The command was found but cannot be executed."),
    ("127", "The command was not found."),
    ("128+n", "Signal n ended the command."),
    ("other", "The command's own exit code."),
];
const START_EXITS: List = &[
    (
        "0",
        "The containers were started; with -a: the command ended with 0.",
    ),
    (
        "1",
        "Something failed; without -a the rest was still started.",
    ),
    ("125", "A flag was wrong."),
    ("other", "With -a: as of run."),
];
const DOCTOR_EXITS: List = &[
    ("0", "Containers can run here."),
    ("1", "They cannot, or something failed."),
    ("125", "A flag was wrong."),
];

impl Execute for GenMan {
    const ABOUT: &'static str = "Write man pages into a directory";
    const USAGE: &'static str = "DIR";
    const ARITY: Arity = Arity::Exactly(1);

    fn execute(self, _: &Context) -> Result<u8, CliError> {
        std::fs::create_dir_all(&self.directory)
            .map_err(CliError::file("create directory", &self.directory))?;
        let mut tree = full_tree();
        tree.build();
        write(&tree, "", &self.directory, &self.doc)?;
        Ok(0)
    }
}

/// A page for the command and one for each below it. `words` are those behind `bulkhead`.
fn write(command: &Command, words: &str, directory: &Path, doc: &Path) -> Result<(), CliError> {
    let name = format!("bulkhead {words}").trim_end().replace(' ', "-");
    let path = directory.join(format!("{name}.1"));
    page(command, words, doc)
        .and_then(|page| std::fs::write(&path, page))
        .map_err(CliError::file("write", &path))?;
    for sub in command.get_subcommands() {
        let words = format!("{words} {}", sub.get_name());
        write(sub, words.trim_start(), directory, doc)?;
    }
    Ok(())
}

fn page(command: &Command, words: &str, doc: &Path) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    let verb = words.split(' ').next_back().unwrap_or_default();
    let mut roff = Roff::new();
    roff.control("SH", ["EXAMPLES"]);
    for (line, text) in examples::of(words) {
        roff.control("TP", []);
        roff.text([bold(*line)]);
        roff.text([roman(format!("{text}."))]);
    }
    match verb {
        "run" | "create" | "pull" | "push" => {
            list(&mut roff, "FILES", &[FILES, REGISTRY_FILES]);
            documentation(&mut roff, doc);
            let both = [ENVIRONMENT, REGISTRY_ENVIRONMENT];
            list(&mut roff, "ENVIRONMENT", &both);
        }
        _ => {
            list(&mut roff, "FILES", &[FILES]);
            documentation(&mut roff, doc);
            list(&mut roff, "ENVIRONMENT", &[ENVIRONMENT]);
        }
    }
    let exits = match verb {
        "run" => CONTAINER_EXITS,
        "create" => CREATE_EXITS,
        "exec" => EXEC_EXITS,
        "start" => START_EXITS,
        "doctor" => DOCTOR_EXITS,
        _ => COMMON_EXITS,
    };
    list(&mut roff, "EXIT STATUS", &[exits]);
    roff.to_writer(&mut page)?;
    Ok(page)
}

fn list(roff: &mut Roff, heading: &str, lists: &[List]) {
    roff.control("SH", [heading]);
    for (name, text) in lists.iter().copied().flatten() {
        item(roff, name, text);
    }
}

fn item(roff: &mut Roff, name: &str, text: &str) {
    roff.control("TP", []);
    roff.text([bold(name)]);
    roff.text([roman(text)]);
}

/// What goes on in a file of the documentation, which lies in `doc`.
fn documentation(roff: &mut Roff, doc: &Path) {
    let comparison = doc.join("compatibility.md").display().to_string();
    item(
        roff,
        &comparison,
        "What is as in Docker, what differs and what is absent, flag by flag; every key of the configuration.",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_registries_say_where_certificates_are() {
        let mut tree = full_tree();
        tree.build();
        let text = |verb: &str| {
            let command = tree.find_subcommand(verb).unwrap().clone();
            String::from_utf8(page(&command, verb, Path::new("docs")).unwrap()).unwrap()
        };
        for verb in ["pull", "push", "run", "create"] {
            assert!(text(verb).contains("/etc/docker/certs.d/"), "{verb}");
        }
        assert!(!text("ps").contains("certs.d"));
    }
}
