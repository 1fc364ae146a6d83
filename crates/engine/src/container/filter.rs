//! `--filter name=value` of `ps` and `container prune`.

use bulkhead_sandbox::{State, Status};
use bulkhead_types::Digest;
use jiff::Timestamp;
use regex_lite::Regex;

use super::{Container, ContainerError};
use crate::Engine;
use crate::error::Error;
use crate::time::parse_time;

/// The states that Docker knows. Bulkhead's containers are in three of them.
const DOCKER_STATES: [&str; 7] = [
    "created",
    "restarting",
    "running",
    "removing",
    "paused",
    "exited",
    "dead",
];

/// Filters as typed, by Docker's rules: values of one name are alternatives (labels: all must
/// match), different names must all match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    entries: Vec<(String, String)>,
}

impl Filters {
    /// Parses `name=value` texts. What the names and values mean is checked where they are used.
    pub fn parse<T: AsRef<str>>(
        texts: impl IntoIterator<Item = T>,
    ) -> Result<Self, ContainerError> {
        let entries = texts
            .into_iter()
            .map(|text| {
                let text = text.as_ref();
                let bad = || ContainerError::FilterName(text.chars().take(100).collect());
                let (name, value) = text.split_once('=').ok_or_else(bad)?;
                Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            })
            .collect::<Result<_, ContainerError>>()?;
        Ok(Self { entries })
    }

    /// No filter at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names and values, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The values given for `name`.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.entries
            .iter()
            .filter(move |(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Filters ready to be applied.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    ids: Vec<Regex>,
    names: Vec<Regex>,
    labels: Vec<(String, Option<String>)>,
    without_labels: Vec<(String, Option<String>)>,
    statuses: Vec<String>,
    ancestors: Vec<(String, Option<Digest>)>,
    exit_codes: Vec<u8>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
}

impl Engine {
    /// Filters of `ps`.
    pub(super) fn matcher(&self, filters: &Filters) -> Result<Matcher, Error> {
        let mut matcher = Matcher::default();
        for (name, value) in &filters.entries {
            let bad = |name| ContainerError::FilterValue {
                name,
                value: value.clone(),
            };
            match name.as_str() {
                "id" => matcher.ids.push(Regex::new(value).map_err(|_| bad("id"))?),
                "name" => matcher
                    .names
                    .push(Regex::new(value).map_err(|_| bad("name"))?),
                "label" => matcher.labels.push(label(value)),
                "status" if DOCKER_STATES.contains(&value.as_str()) => {
                    matcher.statuses.push(value.clone())
                }
                "status" => return Err(bad("status").into()),
                "ancestor" => matcher
                    .ancestors
                    .push((value.clone(), self.image_id(value))),
                "exited" => matcher
                    .exit_codes
                    .push(value.parse().map_err(|_| bad("exited"))?),
                "before" => {
                    let created = self.find(value)?.record.created;
                    matcher.before =
                        Some(matcher.before.map_or(created, |known| known.min(created)));
                }
                "since" => {
                    let created = self.find(value)?.record.created;
                    matcher.since = Some(matcher.since.map_or(created, |known| known.max(created)));
                }
                other => return Err(ContainerError::FilterName(other.to_owned()).into()),
            }
        }
        Ok(matcher)
    }
}

/// Filters of `container prune`: `until`, `label`, `label!`.
pub(super) fn prune_matcher(filters: &Filters) -> Result<Matcher, ContainerError> {
    let mut matcher = Matcher::default();
    for (name, value) in &filters.entries {
        match name.as_str() {
            "until" => {
                let until = parse_time(value, Timestamp::now()).ok_or_else(|| {
                    ContainerError::FilterValue {
                        name: "until",
                        value: value.clone(),
                    }
                })?;
                matcher.before = Some(until);
            }
            "label" => matcher.labels.push(label(value)),
            "label!" => matcher.without_labels.push(label(value)),
            other => return Err(ContainerError::FilterName(other.to_owned())),
        }
    }
    Ok(matcher)
}

impl Matcher {
    /// Asking for a state shows containers in that state, running or not.
    pub fn asks_for_status(&self) -> bool {
        !self.statuses.is_empty()
    }

    pub fn matches(&self, container: &Container, state: &State) -> bool {
        let record = container.record();
        let any = |patterns: &[Regex], text: &str| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.is_match(text))
        };
        let labelled = |(key, wanted): &(String, Option<String>)| {
            record
                .config
                .labels
                .get(key)
                .is_some_and(|value| wanted.as_ref().is_none_or(|w| w == value))
        };
        let name = record.name.as_str();
        let named = any(&self.names, name) || any(&self.names, &format!("/{name}"));
        let ancestor = |(text, id): &(String, Option<Digest>)| {
            *text == record.image || id.as_ref() == Some(&record.image_id)
        };
        let exit = state.exit.filter(|_| state.status == Status::Exited);
        any(&self.ids, record.id.as_str())
            && named
            && self.labels.iter().all(labelled)
            && !self.without_labels.iter().any(labelled)
            && (self.statuses.is_empty()
                || self.statuses.iter().any(|s| s == status_word(state.status)))
            && (self.ancestors.is_empty() || self.ancestors.iter().any(ancestor))
            && (self.exit_codes.is_empty()
                || exit.is_some_and(|exit| self.exit_codes.contains(&exit.code)))
            && self.before.is_none_or(|before| record.created < before)
            && self.since.is_none_or(|since| record.created > since)
    }
}

/// Docker's word for a state.
pub(super) fn status_word(status: Status) -> &'static str {
    match status {
        Status::Created => "created",
        Status::Running => "running",
        Status::Exited => "exited",
    }
}

fn label(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}
