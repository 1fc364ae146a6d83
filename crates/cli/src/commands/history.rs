//! `history`: how an image was made.

use bulkhead_image::HistoryEntry;
use clap::{ArgAction, Args};
use jiff::Timestamp;

use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT};
use crate::output::{Format, Listing, Out, ago, ellipsis, image_size};
use crate::template::Value;

/// Arguments of `history`.
#[derive(Debug, Args)]
pub struct History {
    /// Format output: 'table', 'table TEMPLATE', 'json', or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Print sizes and dates in human readable format
    #[arg(short = 'H', long, action = ArgAction::SetTrue, default_value = "true")]
    human: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "IMAGE", hide = true)]
    image: String,
}

impl Execute for History {
    const ABOUT: &'static str = "Show the history of an image";
    const USAGE: &'static str = "[OPTIONS] IMAGE";
    const ARITY: Arity = Arity::Exactly(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let headings = [
            ("ID", "IMAGE"),
            (
                "CreatedSince",
                if self.human { "CREATED" } else { "CREATED AT" },
            ),
            ("CreatedAt", "CREATED AT"),
            ("CreatedBy", "CREATED BY"),
            ("Size", "SIZE"),
            ("Comment", "COMMENT"),
        ];
        let table = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
        let format = match (self.quiet, self.format.as_deref()) {
            (true, None | Some("table")) => Format::Template("{{.ID}}".to_owned()),
            (_, text) => Format::parse(text),
        };
        let layout = Listing {
            headings: &headings,
            table,
        }
        .layout(format)?;
        let engine = context.engine()?;
        let image = engine.image(&self.image)?;
        let entries = engine.store()?.history(&image);
        let now = Timestamp::now();
        let rows: Vec<Value> = entries.iter().map(|entry| self.row(entry, now)).collect();
        let text = layout.render(&rows)?;
        let mut out = Out::new();
        out.text(&text)
            .and_then(|()| out.flush())
            .map_err(CliError::stream(WRITE_OUTPUT))?;
        Ok(0)
    }
}

impl History {
    fn row(&self, entry: &HistoryEntry, now: Timestamp) -> Value {
        let id = match &entry.id {
            Some(id) if self.no_trunc => id.to_string(),
            Some(id) => id.short(),
            None => "<missing>".to_owned(),
        };
        let command = entry.created_by.replace('\t', " ");
        let command = if self.no_trunc {
            command
        } else {
            ellipsis(&command, 45)
        };
        let at = entry.created.map_or_else(
            || "N/A".to_owned(),
            |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        );
        let since = match entry.created {
            Some(created) if self.human => ago(created, now),
            _ => at.clone(),
        };
        let size = if self.human {
            image_size(entry.size)
        } else {
            entry.size.to_string()
        };
        let members = [
            ("Comment", entry.comment.as_str().into()),
            ("CreatedAt", at.into()),
            ("CreatedBy", command.into()),
            ("CreatedSince", since.into()),
            ("ID", id.into()),
            ("Size", Value::from(size)),
        ];
        Value::Map(
            members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    }
}
