//! `images`: list images, a row for each name.

use bulkhead_engine::Engine;
use bulkhead_image::{Image, Reference};
use clap::Args;
use jiff::Timestamp;

use crate::args::{Arity, Execute, KeyValue};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT};
use crate::output::{Format, Listing, Out, ago, created_at, glob, image_size};
use crate::template::Value;

/// Arguments of `images`.
#[derive(Debug, Args)]
pub struct Images {
    /// Show all images (every image is shown in any case: there are no intermediate ones)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter", value_parser = crate::args::filter_text)]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json', or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "REPOSITORY", hide = true)]
    repository: Option<String>,
}

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];
const NONE: &str = "<none>";

impl Execute for Images {
    const ABOUT: &'static str = "List images";
    const USAGE: &'static str = "[OPTIONS] [REPOSITORY[:TAG]]";
    const ARITY: Arity = Arity::AtMost(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let table = if self.digests {
            "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
        } else {
            "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
        };
        let format = match (self.quiet, self.format.as_deref()) {
            (true, None | Some("table")) => Format::Template("{{.ID}}".to_owned()),
            (_, text) => Format::parse(text),
        };
        let layout = Listing {
            headings: HEADINGS,
            table,
        }
        .layout(format)?;
        let engine = context.engine()?;
        let mut wanted = Wanted::parse(engine, &self.filter)?;
        wanted.references.extend(self.repository.iter().cloned());
        let now = Timestamp::now();
        let with_digest = self.digests
            || self
                .format
                .as_deref()
                .is_some_and(|f| f.contains(".Digest"));
        let mut rows = Vec::new();
        for image in engine
            .store()?
            .images()?
            .iter()
            .filter(|image| wanted.image(image))
        {
            rows.extend(
                lines(image)
                    .iter()
                    .filter(|line| wanted.line(line))
                    .map(|line| row(image, line, now, self.no_trunc, with_digest)),
            );
        }
        let text = layout.render(&rows)?;
        let mut out = Out::new();
        out.text(&text)
            .and_then(|()| out.flush())
            .map_err(CliError::stream(WRITE_OUTPUT))?;
        Ok(0)
    }
}

/// A name of an image, or the lack of one.
struct Line {
    repository: Option<String>,
    tag: Option<String>,
    digest: Option<String>,
}

fn lines(image: &Image) -> Vec<Line> {
    let digest_of = |name: &Reference| {
        let same = image
            .repo_digests
            .iter()
            .find(|known| known.name() == name.name());
        name.digest()
            .or_else(|| same.and_then(Reference::digest))
            .map(ToString::to_string)
    };
    let line = |name: &Reference| Line {
        repository: Some(name.familiar_name()),
        tag: name.tag().map(str::to_owned),
        digest: digest_of(name),
    };
    let names: Vec<Line> = image.names.iter().map(line).collect();
    if !names.is_empty() {
        return names;
    }
    let digests: Vec<Line> = image.repo_digests.iter().map(line).collect();
    if digests.is_empty() {
        vec![Line {
            repository: None,
            tag: None,
            digest: None,
        }]
    } else {
        digests
    }
}

fn row(image: &Image, line: &Line, now: Timestamp, no_trunc: bool, with_digest: bool) -> Value {
    let id = if no_trunc {
        image.id.to_string()
    } else {
        image.id.short()
    };
    let or_none = |text: &Option<String>| Value::from(text.as_deref().unwrap_or(NONE));
    let size = image_size(image.size);
    let since = image.created.map_or("N/A".to_owned(), |at| ago(at, now));
    let at = image.created.map_or("N/A".to_owned(), created_at);
    let digest = if with_digest {
        or_none(&line.digest)
    } else {
        NONE.into()
    };
    let members = [
        ("Containers", "N/A".into()),
        ("CreatedAt", at.into()),
        ("CreatedSince", since.into()),
        ("Digest", digest),
        ("ID", id.into()),
        ("Repository", or_none(&line.repository)),
        ("SharedSize", "N/A".into()),
        ("Size", size.as_str().into()),
        ("Tag", or_none(&line.tag)),
        ("UniqueSize", "N/A".into()),
        ("VirtualSize", size.as_str().into()),
    ];
    Value::Map(
        members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

/// `--filter` and the pattern behind the verb.
#[derive(Default)]
struct Wanted {
    references: Vec<String>,
    dangling: Option<bool>,
    labels: Vec<KeyValue>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
}

impl Wanted {
    fn parse(engine: &Engine, filters: &[String]) -> Result<Self, CliError> {
        let mut wanted = Self::default();
        for filter in filters {
            let (name, value) = filter.split_once('=').unwrap_or((filter, ""));
            let bad = || CliError::Filter(filter.clone());
            match name.trim() {
                "reference" => wanted.references.push(value.to_owned()),
                "dangling" => {
                    wanted.dangling = Some(crate::args::boolean(value).map_err(|_| bad())?)
                }
                "label" => wanted
                    .labels
                    .push(KeyValue::label(value).map_err(|_| bad())?),
                "before" => wanted.before = engine.image(value)?.created,
                "since" => wanted.since = engine.image(value)?.created,
                _ => return Err(bad()),
            }
        }
        Ok(wanted)
    }

    fn image(&self, image: &Image) -> bool {
        let labels = image
            .config
            .config()
            .as_ref()
            .and_then(|config| config.labels().as_ref());
        let labelled = |wanted: &KeyValue| {
            let found = labels.and_then(|labels| labels.get(&wanted.key));
            found.is_some_and(|value| wanted.value.is_empty() || *value == wanted.value)
        };
        self.dangling
            .is_none_or(|dangling| dangling == image.names.is_empty())
            && self.labels.iter().all(labelled)
            && self
                .before
                .is_none_or(|before| image.created.is_some_and(|at| at < before))
            && self
                .since
                .is_none_or(|since| image.created.is_some_and(|at| at > since))
    }

    fn line(&self, line: &Line) -> bool {
        let Some(repository) = &line.repository else {
            return self.references.is_empty();
        };
        let tagged = line.tag.as_ref().map(|tag| format!("{repository}:{tag}"));
        let fits = |pattern: &String| {
            let plain = pattern.parse::<Reference>().ok();
            // A full name such as docker.io/library/debian means what is shown as debian.
            let familiar = plain
                .as_ref()
                .filter(|_| !pattern.contains(['*', '?', '[']))
                .map(|reference| {
                    let tag = pattern
                        .rsplit('/')
                        .next()
                        .is_some_and(|last| last.contains(':'));
                    if tag {
                        reference.familiar()
                    } else {
                        reference.familiar_name()
                    }
                });
            let pattern = familiar.as_ref().unwrap_or(pattern);
            glob(pattern, repository) || tagged.as_ref().is_some_and(|tagged| glob(pattern, tagged))
        };
        self.references.is_empty() || self.references.iter().any(fits)
    }
}
