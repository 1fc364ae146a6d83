//! `info`: the state of the whole.

use std::fmt::Write;

use bulkhead_engine::SystemInfo;
use clap::Args;

use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT};
use crate::output::{Out, binary_size, say};
use crate::template::{Functions, Template, Value};

/// Arguments of `info`.
#[derive(Debug, Args)]
pub struct Info {
    /// Format output: 'json' or a Go template
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
}

impl Execute for Info {
    const ABOUT: &'static str = "Display system-wide information";
    const USAGE: &'static str = "[OPTIONS]";
    const ARITY: Arity = Arity::None;

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let format = ObjectFormat::parse(self.format.as_deref())?;
        let info = context.engine()?.info()?;
        format.print(&Value::of(&info)?, || text(&info))?;
        for warning in &info.warnings {
            say(format_args!("WARNING: {warning}"));
        }
        Ok(0)
    }

    fn failure_code(error: &CliError) -> u8 {
        error.object_exit_code()
    }
}

/// How one object is shown, read before the object is: a wrong template is the first complaint.
pub enum ObjectFormat {
    /// The verb's own text.
    Text,
    /// JSON.
    Json,
    /// A template.
    Template(Template),
}

impl ObjectFormat {
    /// Reads `--format`.
    ///
    /// # Errors
    /// A text that is no template.
    pub fn parse(text: Option<&str>) -> Result<Self, CliError> {
        Ok(match text {
            None | Some("") => Self::Text,
            Some("json") => Self::Json,
            Some(source) => Self::Template(Template::parse(source)?),
        })
    }

    /// Prints `value`.
    pub fn print(&self, value: &Value, text: impl FnOnce() -> String) -> Result<u8, CliError> {
        let text = match self {
            Self::Text => text(),
            Self::Json => value.to_json() + "\n",
            Self::Template(template) => template.render(value, Functions::Data)? + "\n",
        };
        let mut out = Out::new();
        out.text(&text)
            .and_then(|()| out.flush())
            .map_err(CliError::stream(WRITE_OUTPUT))?;
        Ok(0)
    }
}

fn text(info: &SystemInfo) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", format!("{name}: {value}").trim_end());
    };
    line("Containers", &info.containers);
    line(" Running", &info.containers_running);
    line(" Stopped", &info.containers_stopped);
    line("Images", &info.images);
    line("Version", &info.server_version);
    line("State Directory", &info.root);
    line("Image Store", &info.image_store);
    let default = info
        .isolations
        .iter()
        .find(|platform| platform.isolation.to_string() == info.default_isolation);
    let default_isolation = match default {
        Some(platform) if !platform.works() => {
            format!("{} (does not work)", info.default_isolation)
        }
        _ => info.default_isolation.clone(),
    };
    line("Default Isolation", &default_isolation);
    line("Default CPUs", &info.default_cpus);
    line("Default Memory", &binary_size(info.default_memory));
    line("Default Disk", &binary_size(info.default_disk));
    line("Isolation Platforms", &"");
    for platform in &info.isolations {
        let state = if platform.works() {
            "works".to_owned()
        } else {
            format!("does not work: {}", platform.obstacles.join("; "))
        };
        line(&format!(" {}", platform.isolation), &state);
    }
    line("Guest Kernel", &component(&info.kernel));
    line("Agent", &component(&info.agent));
    line(
        "Walls Missing",
        &if info.jail.missing.is_empty() {
            "none".to_owned()
        } else {
            info.jail
                .missing
                .iter()
                .map(|m| m.wall.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        },
    );
    line("Insecure Registries", &info.insecure_registries.join(", "));
    line("Operating System", &info.operating_system);
    line("Kernel Version", &info.kernel_version);
    line("Architecture", &info.architecture);
    line("CPUs", &info.ncpu);
    line("Total Memory", &binary_size(info.mem_total));
    line("Name", &info.name);
    out
}

fn component(component: &bulkhead_engine::Component) -> String {
    match &component.path {
        Some(path) => format!("{path} ({})", component.detail),
        None => format!("missing: {}", component.detail),
    }
}
