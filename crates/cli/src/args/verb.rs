//! What a verb is: a name, arguments, and what it does.

use clap::{ArgMatches, Args, Command};

use crate::context::Context;
use crate::error::CliError;

/// How many words a verb takes besides flags, for messages in Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    /// None.
    None,
    /// Exactly this many.
    Exactly(usize),
    /// This many or more.
    AtLeast(usize),
    /// This many or fewer.
    AtMost(usize),
}

/// Under which heading the list of commands shows a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heading {
    /// What newcomers need.
    Common,
    /// The rest.
    Other,
    /// Not listed.
    Hidden,
}

/// Arguments that know what to do.
pub trait Execute: Args {
    /// One line for the list of commands.
    const ABOUT: &'static str;
    /// What follows the name in the usage line.
    const USAGE: &'static str;
    /// Words besides flags.
    const ARITY: Arity;

    /// Does it. The result is the exit code.
    ///
    /// # Errors
    /// What stopped it; the exit code then comes from [`Execute::failure_code`].
    fn execute(self, context: &Context) -> Result<u8, CliError>;

    /// The exit code of a failure.
    fn failure_code(_: &CliError) -> u8 {
        bulkhead_types::exit_code::FAILURE
    }
}

/// A verb in a table.
#[derive(Clone, Copy)]
pub struct Verb {
    /// As typed.
    pub name: &'static str,
    /// Other names.
    pub aliases: &'static [&'static str],
    /// Where it is listed.
    pub heading: Heading,
    /// From [`Execute`].
    pub about: &'static str,
    /// From [`Execute`].
    pub usage: &'static str,
    /// From [`Execute`].
    pub arity: Arity,
    /// Adds the arguments.
    pub augment: fn(Command) -> Command,
    /// Runs it.
    pub execute: fn(&ArgMatches, &Context) -> Result<u8, CliError>,
    /// Its exit code when it fails.
    pub failure_code: fn(&CliError) -> u8,
}

impl Verb {
    /// The verb called `name` that `A` implements.
    pub const fn new<A: Execute>(name: &'static str, heading: Heading) -> Self {
        Self {
            name,
            aliases: &[],
            heading,
            about: A::ABOUT,
            usage: A::USAGE,
            arity: A::ARITY,
            augment: A::augment_args,
            execute: execute::<A>,
            failure_code: A::failure_code,
        }
    }

    /// With other names.
    pub const fn alias(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    /// Whether `word` names it.
    pub fn is(&self, word: &str) -> bool {
        self.name == word || self.aliases.contains(&word)
    }
}

fn execute<A: Execute>(matches: &ArgMatches, context: &Context) -> Result<u8, CliError> {
    A::from_arg_matches(matches)
        .map_err(CliError::from)?
        .execute(context)
}

/// Verbs about one kind of object: `container`, `image`.
#[derive(Clone, Copy)]
pub struct Group {
    /// As typed.
    pub name: &'static str,
    /// One line for the list of commands.
    pub about: &'static str,
    /// What it groups.
    pub verbs: &'static [Verb],
}
