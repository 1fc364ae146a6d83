//! Verbs that take several objects: each is tried, each failure is told, and the exit code counts them.

use crate::error::{CliError, WRITE_OUTPUT, report};
use crate::output::Out;

/// Does `one` to each name and prints what it returns; a failure does not keep the others from their turn.
pub fn each(
    names: &[String],
    mut one: impl FnMut(&str) -> Result<Option<String>, CliError>,
) -> Result<u8, CliError> {
    let mut out = Out::new();
    let mut failed = 0;
    for name in names {
        match one(name) {
            Ok(Some(line)) => out.line(&line).map_err(CliError::stream(WRITE_OUTPUT))?,
            Ok(None) => {}
            // Asked to end: the others are not wanted any more either.
            Err(error @ CliError::Interrupted(_)) => return Err(error),
            Err(error) => {
                report(&error);
                failed += 1;
            }
        }
    }
    if failed == 0 {
        Ok(0)
    } else {
        Err(CliError::Several {
            failed,
            total: names.len(),
        })
    }
}
