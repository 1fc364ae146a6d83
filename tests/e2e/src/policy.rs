//! The policies of system calls as data, held against the calls that were counted.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde_json::Value;

use crate::census::{Call, Calls, Watched};

/// The numbers of this architecture's calls, by name.
#[derive(Debug)]
pub struct Numbers(BTreeMap<String, u64>);

impl Numbers {
    /// As the C library's headers have them; `None` where they are not installed.
    pub fn read() -> Option<Self> {
        let header = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h";
        let text = std::fs::read_to_string(header).ok()?;
        let number = |line: &str| {
            let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
            Some((name.to_owned(), number.trim().parse().ok()?))
        };
        Some(Self(text.lines().filter_map(number).collect()))
    }
}

/// A file of `crates/jail/policy`.
#[derive(Debug)]
pub struct Policy(Vec<Entry>);

impl Policy {
    /// Reads `NAME.json`.
    pub fn read(name: &str, numbers: &Numbers) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/jail/policy");
        let path = directory.join(name).with_extension("json");
        let text = std::fs::read_to_string(path).expect("the policy");
        let policy: Value = serde_json::from_str(&text).expect("a policy is JSON");
        let mut entries = Vec::new();
        for (section, content) in policy.as_object().expect("sections") {
            for rule in content["filter"].as_array().expect("a filter") {
                entries.push(Entry::new(section, rule, numbers));
            }
        }
        Self(entries)
    }

    /// The elements of a section's filter.
    pub fn section<'a>(&'a self, section: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.0.iter().filter(move |entry| entry.section == section)
    }

    /// The arguments on which the policy depends.
    pub fn watched(&self) -> Watched {
        let mut watched = Watched::default();
        for entry in &self.0 {
            for condition in &entry.conditions {
                watched.watch(entry.number, condition.index);
            }
        }
        watched
    }
}

/// An element of a filter: a call, and what its arguments must be.
#[derive(Debug)]
pub struct Entry {
    section: String,
    /// The call's name.
    pub call: String,
    number: u64,
    conditions: Vec<Condition>,
}

#[derive(Debug)]
struct Condition {
    index: usize,
    /// Whether only the lower half counts.
    half: bool,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Equal(u64),
    Unequal(u64),
    Masked {
        mask: u64,
        value: u64,
    },
    /// The process's own id, which a process that lives has.
    Own,
}

impl Entry {
    fn new(section: &str, rule: &Value, numbers: &Numbers) -> Self {
        let call = rule["syscall"].as_str().expect("a name").to_owned();
        let conditions = rule["args"].as_array().map_or([].as_slice(), Vec::as_slice);
        Self {
            section: section.to_owned(),
            number: numbers.0.get(&call).copied().expect("a system call"),
            call,
            conditions: conditions.iter().map(Condition::new).collect(),
        }
    }

    /// Whether its arguments matter.
    pub fn is_narrow(&self) -> bool {
        !self.conditions.is_empty()
    }

    /// What its only condition compares with.
    pub fn value(&self) -> Option<u64> {
        match self.conditions.as_slice() {
            [condition] => condition.value(),
            _ => None,
        }
    }

    /// Whether one of `calls` needed it.
    pub fn is_needed(&self, calls: &Calls) -> bool {
        calls.iter().any(|call| self.lets(call))
    }

    /// Bits of an argument that it lets be set, and none of `calls` had set.
    pub fn idle_bits(&self, calls: &Calls) -> u64 {
        let mut idle = 0;
        for condition in &self.conditions {
            let Test::Masked { mask, .. } = condition.test else {
                continue;
            };
            let seen = calls.iter().filter(|call| self.lets(call));
            let used = seen.fold(0, |bits, call| bits | call.1[condition.index]);
            let width = if condition.half {
                u64::from(u32::MAX)
            } else {
                u64::MAX
            };
            idle |= !mask & !used & width;
        }
        idle
    }

    fn lets(&self, call: &Call) -> bool {
        call.0 == self.number && self.conditions.iter().all(|c| c.holds(call.1[c.index]))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.section, self.call)?;
        for condition in &self.conditions {
            write!(f, " [argument {}: {:x?}]", condition.index, condition.test)?;
        }
        Ok(())
    }
}

impl Condition {
    fn new(rule: &Value) -> Self {
        let index = rule["index"].as_u64().expect("an index");
        let test = match (rule["val"].as_u64(), &rule["op"]) {
            (None, _) => Test::Own,
            (Some(value), Value::String(op)) if op == "eq" => Test::Equal(value),
            (Some(value), Value::String(op)) if op == "ne" => Test::Unequal(value),
            (Some(value), op) => Test::Masked {
                mask: op["masked_eq"].as_u64().expect("eq, ne or masked_eq"),
                value,
            },
        };
        Self {
            index: usize::try_from(index).expect("a small number"),
            half: rule["type"] == "dword",
            test,
        }
    }

    fn value(&self) -> Option<u64> {
        match self.test {
            Test::Equal(value) | Test::Unequal(value) | Test::Masked { value, .. } => Some(value),
            Test::Own => None,
        }
    }

    fn holds(&self, argument: u64) -> bool {
        let argument = if self.half {
            argument & u64::from(u32::MAX)
        } else {
            argument
        };
        match self.test {
            Test::Equal(value) => argument == value,
            Test::Unequal(value) => argument != value,
            Test::Masked { mask, value } => argument & mask == value,
            Test::Own => true,
        }
    }
}
