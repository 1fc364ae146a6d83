//! Landlock rule sets: nothing in the file system but the jail's own root, no TCP, no signals and no
//! abstract sockets across the border.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};

use crate::report::{JailReport, Wall};
use crate::sys;

/// The newest version whose rights we name; older kernels get what they know (best effort).
const NEWEST: ABI = ABI::V6;

/// Whether this kernel's Landlock cuts signals and abstract sockets, as version 6 (Linux 6.12) began to.
pub(crate) fn has_scopes() -> bool {
    sys::landlock_version().is_ok_and(|version| version >= 6)
}

/// Builds a rule set that allows everything beneath `allowed`, executing the files `programs`, and nothing else. `None` where the kernel
/// has no Landlock. `scoped` also cuts signals and abstract sockets to processes outside; a sandbox must not
/// be scoped, because it signals the kernel process, which has a rule set beside its own.
pub(crate) fn ruleset(
    allowed: &[BorrowedFd<'_>],
    programs: &[BorrowedFd<'_>],
    scoped: bool,
) -> io::Result<Option<OwnedFd>> {
    let all = AccessFs::from_all(NEWEST);
    let build = || -> Result<Option<OwnedFd>, landlock::RulesetError> {
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(all)?
            .handle_access(AccessNet::from_all(NEWEST))?;
        if scoped {
            ruleset = ruleset.scope(Scope::from_all(NEWEST))?;
        }
        let mut ruleset = ruleset.create()?;
        for directory in allowed {
            ruleset = ruleset.add_rule(PathBeneath::new(directory, all))?;
        }
        for program in programs {
            ruleset = ruleset.add_rule(PathBeneath::new(
                program,
                AccessFs::Execute | AccessFs::ReadFile,
            ))?;
        }
        Ok(ruleset.into())
    };
    build().map_err(io::Error::other)
}

/// The rule set that was built, if one was; what became of the wall is noted in `report`.
pub(crate) fn reported(
    built: io::Result<Option<OwnedFd>>,
    report: &mut JailReport,
) -> Option<OwnedFd> {
    match built {
        Ok(Some(ruleset)) => {
            report.up(Wall::Landlock);
            return Some(ruleset);
        }
        Ok(None) => report.down(Wall::Landlock, "the host's kernel has none"),
        Err(error) => report.down(Wall::Landlock, error.to_string()),
    }
    None
}
