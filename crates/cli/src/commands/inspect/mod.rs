//! `inspect`, `container inspect`, `image inspect`: everything that is known, as JSON.

mod docker;

use bulkhead_engine::{Engine, ErrorKind};
use clap::Args;

use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT, report};
use crate::output::Out;
use crate::template::{Functions, Template, Value};

/// What to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Container,
    Image,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    #[command(flatten)]
    flags: Flags,
    /// Only inspect objects of the given type ("container", "image")
    #[arg(long = "type", value_name = "string")]
    kind: Option<String>,
}

/// Arguments of all three.
#[derive(Debug, Args)]
struct Flags {
    /// Format output: 'json' or a Go template
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
    #[arg(value_name = "NAME", required = true, hide = true)]
    names: Vec<String>,
}

/// Arguments of `container inspect`.
#[derive(Debug, Args)]
pub struct ContainerInspect {
    #[command(flatten)]
    flags: Flags,
}

/// Arguments of `image inspect`.
#[derive(Debug, Args)]
pub struct ImageInspect {
    #[command(flatten)]
    flags: Flags,
}

impl Execute for Inspect {
    const ABOUT: &'static str = "Return low-level information on containers and images";
    const USAGE: &'static str = "[OPTIONS] NAME|ID [NAME|ID...]";
    const ARITY: Arity = Arity::AtLeast(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        // A wrong word is no wrong flag here: 1, as with Docker.
        let kind = match self.kind.as_deref() {
            None | Some("") => None,
            Some("container") => Some(Kind::Container),
            Some("image") => Some(Kind::Image),
            Some(other) => return Err(CliError::UnknownType(other.to_owned())),
        };
        self.flags.print(context, |engine, name| match kind {
            Some(Kind::Container) => container(engine, name),
            Some(Kind::Image) => image(engine, name),
            None => match container(engine, name) {
                Err(error) if is_missing(&error) => match image(engine, name) {
                    Err(error) if is_missing(&error) => {
                        Err(CliError::NoSuchObject(name.to_owned()))
                    }
                    other => other,
                },
                other => other,
            },
        })
    }

    fn failure_code(error: &CliError) -> u8 {
        error.object_exit_code()
    }
}

impl Execute for ContainerInspect {
    const ABOUT: &'static str = "Display detailed information on one or more containers";
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";
    const ARITY: Arity = Arity::AtLeast(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        self.flags.print(context, container)
    }

    fn failure_code(error: &CliError) -> u8 {
        error.object_exit_code()
    }
}

impl Execute for ImageInspect {
    const ABOUT: &'static str = "Display detailed information on one or more images";
    const USAGE: &'static str = "[OPTIONS] IMAGE [IMAGE...]";
    const ARITY: Arity = Arity::AtLeast(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        self.flags.print(context, image)
    }

    fn failure_code(error: &CliError) -> u8 {
        error.object_exit_code()
    }
}

fn container(engine: &Engine, name: &str) -> Result<Value, CliError> {
    let shown = Value::of(&engine.inspect(&engine.container(name)?)?)?;
    Ok(docker::CONTAINER.complete(shown))
}

fn image(engine: &Engine, name: &str) -> Result<Value, CliError> {
    let shown = Value::of(&engine.inspect_image(&engine.image(name)?)?)?;
    Ok(docker::IMAGE.complete(shown))
}

fn is_missing(error: &CliError) -> bool {
    matches!(error, CliError::Engine(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput))
}

impl Flags {
    /// Prints what was found, then says what was not, as Docker does.
    fn print(
        &self,
        context: &Context,
        find: impl Fn(&Engine, &str) -> Result<Value, CliError>,
    ) -> Result<u8, CliError> {
        let template = match self.format.as_deref() {
            None | Some("" | "json") => None,
            Some(source) => Some(Template::parse(source)?),
        };
        let engine = context.engine()?;
        let mut found = Vec::new();
        let mut failures = Vec::new();
        for name in &self.names {
            match find(engine, name) {
                Ok(value) => found.push(value),
                Err(error) => failures.push(error),
            }
        }
        let mut text = String::new();
        match (&template, self.format.as_deref()) {
            (Some(template), _) => {
                for value in &found {
                    text.push_str(&template.render(value, Functions::Data)?);
                    text.push('\n');
                }
            }
            (None, Some("json")) => text = Value::List(found).to_json() + "\n",
            (None, _) => text = Value::List(found).to_json_pretty() + "\n",
        }
        let mut out = Out::new();
        out.text(&text)
            .and_then(|()| out.flush())
            .map_err(CliError::stream(WRITE_OUTPUT))?;
        if failures.is_empty() {
            return Ok(0);
        }
        for error in &failures {
            report(error);
        }
        Err(CliError::Several {
            failed: failures.len(),
            total: self.names.len(),
        })
    }
}
