//! `__complete LINE`: what may stand at the end of a line that is being typed, one candidate a line, with a tab and
//! what it is for behind it. For the scripts of `completion`; not listed. It never complains: nobody would read it.

use bulkhead_engine::{Container, Engine, EngineConfig};
use bulkhead_sandbox::Status;
use bulkhead_types::{Capabilities, Isolation, Resource, Signal};
use clap::{Arg, Args};

use crate::args::{Arity, Cursor, Execute, Line, Suggestion, Verb, globals};
use crate::context::Context;
use crate::error::CliError;
use crate::output::Out;

/// Arguments of `__complete`.
#[derive(Debug, Args)]
pub struct Complete {
    #[arg(value_name = "LINE", allow_hyphen_values = true, hide = true)]
    line: String,
}

impl Execute for Complete {
    const ABOUT: &'static str = "Say what may follow on a command line";
    const USAGE: &'static str = "LINE";
    const ARITY: Arity = Arity::Exactly(1);

    fn execute(self, _: &Context) -> Result<u8, CliError> {
        let line = Line::parse(&self.line);
        let mut text = String::new();
        for (word, help) in candidates(&line) {
            // A name that still wants its value is no news once it is typed, and bash would add a blank to it.
            let typed = word == line.current && word.ends_with('=');
            if word.starts_with(&line.current) && !typed {
                text.push_str(&format!("{word}\t{help}\n"));
            }
        }
        // Whoever asked has gone.
        let _ = Out::new().text(&text);
        Ok(0)
    }
}

fn candidates(line: &Line) -> Vec<Suggestion> {
    match line.cursor() {
        Cursor::Words(words) => words,
        Cursor::Value {
            verb,
            option,
            prefix,
        } => values(verb, &option)
            .into_iter()
            .map(|(value, help)| (format!("{prefix}{value}"), help))
            .collect(),
        Cursor::Operand { verb, name } => operands(line, verb, &name),
        Cursor::Nothing => Vec::new(),
    }
}

/// Values that an option is known to take.
fn values(verb: Option<&Verb>, option: &Arg) -> Vec<Suggestion> {
    let plain = |names: &[&str]| {
        names
            .iter()
            .map(|name| ((*name).to_owned(), String::new()))
            .collect()
    };
    let possible = option.get_possible_values();
    if !possible.is_empty() {
        return plain(
            &possible
                .iter()
                .map(|value| value.get_name())
                .collect::<Vec<_>>(),
        );
    }
    match (
        option.get_long().unwrap_or_default(),
        verb.map(|verb| verb.name),
    ) {
        ("isolation", _) => plain(&[Isolation::Kvm.as_str(), Isolation::UserMode.as_str()]),
        ("format", Some("ps" | "ls" | "images" | "history")) => {
            plain(&["json", "table", "table {{"])
        }
        ("format", _) => plain(&["json"]),
        ("signal" | "stop-signal", _) => plain(&Signal::names().collect::<Vec<_>>()),
        ("type", Some("inspect")) => plain(&["container", "image"]),
        ("platform", _) => plain(&["linux/amd64", "linux/arm64"]),
        ("filter", Some("ps")) => plain(&[
            "ancestor=",
            "before=",
            "exited=",
            "id=",
            "label=",
            "name=",
            "since=",
            "status=",
            "status=created",
            "status=exited",
            "status=running",
        ]),
        ("cap-add" | "cap-drop", _) => {
            let mut names = vec!["ALL"];
            // Docker's documentation writes them so.
            let bare = |name: &'static str| name.strip_prefix("CAP_").unwrap_or(name);
            names.extend(Capabilities::ALL.names().map(bare));
            plain(&names)
        }
        ("security-opt", _) => plain(&["no-new-privileges", "systempaths=unconfined"]),
        ("ulimit", _) => Resource::names()
            .map(|name| (format!("{name}="), String::new()))
            .collect(),
        ("filter", Some("images")) => plain(&[
            "before=",
            "dangling=",
            "dangling=false",
            "dangling=true",
            "label=",
            "reference=",
            "since=",
        ]),
        ("filter", Some("prune")) => plain(&["label=", "label!=", "until="]),
        _ => Vec::new(),
    }
}

/// Containers and images, read without changing anything; what cannot be read is left out.
fn operands(line: &Line, verb: &Verb, name: &str) -> Vec<Suggestion> {
    let Some(engine) = engine(line) else {
        return Vec::new();
    };
    match (name, verb.name) {
        ("CONTAINER", "attach" | "exec" | "kill" | "stop") => {
            containers(&engine, |status| status == Status::Running)
        }
        ("CONTAINER", "start") => containers(&engine, |status| status != Status::Running),
        ("CONTAINER", _) => containers(&engine, |_| true),
        ("IMAGE" | "SOURCE_IMAGE", _) | ("NAME", "push") | ("REPOSITORY", "images" | "ls") => {
            images(&engine)
        }
        ("NAME", "inspect") => {
            let mut all = containers(&engine, |_| true);
            all.extend(images(&engine));
            all
        }
        _ => Vec::new(),
    }
}

fn engine(line: &Line) -> Option<Engine> {
    let globals = globals(&line.globals())?;
    Engine::open(EngineConfig {
        root: globals.get_one("root").cloned(),
        config_file: globals.get_one("config").cloned(),
        ..EngineConfig::from_process()
    })
    .ok()
}

fn containers(engine: &Engine, wanted: impl Fn(Status) -> bool) -> Vec<Suggestion> {
    let is_wanted =
        |container: &Container| container.state().is_ok_and(|state| wanted(state.status));
    let found = engine.containers().unwrap_or_default();
    found
        .iter()
        .filter(|container| is_wanted(container))
        .map(|container| {
            (
                container.name().to_string(),
                container.record().image.clone(),
            )
        })
        .collect()
}

fn images(engine: &Engine) -> Vec<Suggestion> {
    let images = engine.store().ok().and_then(|store| store.images().ok());
    let images = images.unwrap_or_default();
    let names = images.iter().flat_map(|image| &image.names);
    names.map(|name| (name.familiar(), String::new())).collect()
}
