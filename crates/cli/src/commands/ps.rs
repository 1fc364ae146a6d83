//! `ps`: list containers.

use bulkhead_engine::{Filters, ListOptions, Summary};
use bulkhead_image::Reference;
use bulkhead_types::Digest;
use clap::Args;
use jiff::Timestamp;

use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT};
use crate::output::{Format, Listing, Out, ago, created_at, ellipsis, image_size};
use crate::template::{Value, quote};

/// Arguments of `ps`.
#[derive(Debug, Args)]
pub struct Ps {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter", value_parser = crate::args::filter_text)]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json', or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Show n last created containers (includes all states)
    #[arg(short = 'n', long, value_name = "int", value_parser = crate::args::seconds)]
    last: Option<i64>,
    /// Show the latest created container (includes all states)
    #[arg(short, long)]
    latest: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display container IDs
    #[arg(short, long)]
    quiet: bool,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
}

/// Digits of an identifier in a table.
const SHORT_ID: usize = 12;
const HEADINGS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
];
const TABLE: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

impl Execute for Ps {
    const ABOUT: &'static str = "List containers";
    const USAGE: &'static str = "[OPTIONS]";
    const ARITY: Arity = Arity::None;

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let last = if self.latest { Some(1) } else { self.last };
        let options = ListOptions {
            all: self.all,
            last: last.and_then(|n| usize::try_from(n).ok()),
            size: self.size || self.format.as_deref().is_some_and(|f| f.contains(".Size")),
            filters: Filters::parse(&self.filter).map_err(bulkhead_engine::Error::from)?,
        };
        let with_size = format!("{TABLE}\t{{{{.Size}}}}");
        let listing = Listing {
            headings: HEADINGS,
            table: if self.size { &with_size } else { TABLE },
        };
        let format = match (self.quiet, self.format.as_deref()) {
            (true, None | Some("table")) => Format::Template("{{.ID}}".to_owned()),
            (_, text) => Format::parse(text),
        };
        let layout = listing.layout(format)?;
        let containers = context.engine()?.list(&options)?;
        let now = Timestamp::now();
        let rows: Vec<Value> = containers
            .iter()
            .map(|c| row(c, now, self.no_trunc))
            .collect();
        let text = layout.render(&rows)?;
        let mut out = Out::new();
        out.text(&text)
            .and_then(|()| out.flush())
            .map_err(CliError::stream(WRITE_OUTPUT))?;
        Ok(0)
    }
}

fn row(container: &Summary, now: Timestamp, no_trunc: bool) -> Value {
    let id = if no_trunc {
        container.id.as_str()
    } else {
        container.id.short()
    };
    let image = if no_trunc {
        container.image.clone()
    } else {
        short_image(&container.image, &container.image_id)
    };
    let command = if no_trunc {
        container.command.clone()
    } else {
        ellipsis(&container.command, 20)
    };
    let labels: Vec<(String, String)> = container
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let label_list: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let mounts: Vec<String> = container
        .mounts
        .iter()
        .map(|m| if no_trunc { m.clone() } else { ellipsis(m, 15) })
        .collect();
    let member = |name: &str, value: Value| (name.to_owned(), value);
    Value::Map(vec![
        member("Command", quote(&command).into()),
        member("CreatedAt", created_at(container.created).into()),
        member("ID", id.into()),
        member("Image", image.into()),
        member("Labels", label_list.join(",").into()),
        member("LocalVolumes", container.local_volumes.to_string().into()),
        member("Mounts", mounts.join(",").into()),
        member("Names", container.name.as_str().into()),
        member("Networks", "".into()),
        member("Ports", "".into()),
        member("RunningFor", ago(container.created, now).into()),
        member("Size", image_size(container.size.unwrap_or(0)).into()),
        member("State", container.state.into()),
        member("Status", container.status.as_str().into()),
        member("Label", Value::Lookup(labels)),
    ])
}

/// What the IMAGE column shows of a name or an identifier: twelve digits, or the name without its digest.
fn short_image(image: &str, id: &Digest) -> String {
    let digits = image.strip_prefix("sha256:").unwrap_or(image);
    if digits.len() >= SHORT_ID && id.hex().starts_with(digits) {
        return digits.chars().take(SHORT_ID).collect();
    }
    let without_digest = image.split('@').next().unwrap_or(image);
    let Ok(name) = without_digest.parse::<Reference>() else {
        return image.to_owned();
    };
    // A tag that was not typed is not shown.
    let typed_tag = without_digest
        .rsplit('/')
        .next()
        .is_some_and(|last| last.contains(':'));
    if typed_tag {
        name.familiar()
    } else {
        name.familiar_name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_column_is_short() {
        let id = Digest::from_bytes([0xab; 32]);
        let pinned = format!("debian@{id}");
        for (image, shown) in [
            ("debian", "debian"),
            ("docker.io/library/debian:12", "debian:12"),
            ("localhost:5000/x", "localhost:5000/x"),
            ("localhost:5000/x:1", "localhost:5000/x:1"),
            (pinned.as_str(), "debian"),
            (id.to_string().as_str(), "abababababab"),
            ("ababababababab", "abababababab"),
            ("abab", "abab"),
        ] {
            assert_eq!(short_image(image, &id), shown, "{image}");
        }
    }
}
