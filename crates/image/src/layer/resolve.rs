//! Finding a directory by path when parts of the path may be symbolic links.
//!
//! The walk happens in a tree in memory, so it cannot touch the host, and `..` at the root stays at the root.

/// Links followed in one walk before it counts as a loop; what Linux allows.
const MAX_LINKS: usize = 40;

/// Why a directory cannot be found by its path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveProblem {
    /// A chain of symbolic links that is a loop or as good as one.
    #[error("too many levels of symbolic links at {0}")]
    TooManyLinks(String),
    /// Part of the path is a file of another kind.
    #[error("{0} is not a directory")]
    NotADirectory(String),
    /// A symbolic link leads through `..` of something that does not exist.
    #[error("the symbolic link {0} leads nowhere")]
    LeadsNowhere(String),
    /// The walk began nowhere.
    #[error("there is no root directory")]
    NoStart,
}

/// What a name in a directory turned out to be.
pub(crate) enum Found<'a, Dir> {
    Directory(Dir),
    Symlink(&'a [u8]),
    Other,
    Missing,
}

/// How far a walk got.
#[derive(Debug)]
pub(crate) struct Resolution<Dir> {
    /// The deepest directory that exists.
    pub directory: Dir,
    /// What would have to be made below it; empty where everything exists.
    pub missing: Vec<Vec<u8>>,
}

/// Walks along `path`, following symbolic links, as far as directories exist. `trail` is the way from the root to where
/// the walk begins, both included.
pub(crate) fn resolve<'t, Dir: Copy>(
    mut trail: Vec<Dir>,
    path: &[&[u8]],
    mut lookup: impl FnMut(Dir, &[u8]) -> Found<'t, Dir>,
) -> Result<Resolution<Dir>, ResolveProblem> {
    // What is left of the path, last part first.
    let mut left: Vec<Vec<u8>> = Vec::new();
    let mut given = path.iter();
    let mut links = 0;
    while let Some(&here) = trail.last() {
        let expanded = left.pop();
        let part: &[u8] = match &expanded {
            Some(part) => part,
            None => match given.next() {
                Some(part) => part,
                None => {
                    return Ok(Resolution {
                        directory: here,
                        missing: Vec::new(),
                    });
                }
            },
        };
        if part == b".." {
            if trail.len() > 1 {
                trail.pop();
            }
            continue;
        }
        match lookup(here, part) {
            Found::Directory(directory) => trail.push(directory),
            Found::Other => return Err(ResolveProblem::NotADirectory(super::show(part))),
            Found::Symlink(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(ResolveProblem::TooManyLinks(super::show(part)));
                }
                if target.first() == Some(&b'/') {
                    trail.truncate(1);
                }
                left.extend(
                    target
                        .split(|byte| *byte == b'/')
                        .filter(|part| !matches!(*part, b"" | b"."))
                        .rev()
                        .map(<[u8]>::to_vec),
                );
            }
            Found::Missing => {
                let mut missing = vec![part.to_vec()];
                missing.extend(left.drain(..).rev());
                missing.extend(given.map(|part| part.to_vec()));
                if missing.iter().any(|part| part == b"..") {
                    return Err(ResolveProblem::LeadsNowhere(super::show(part)));
                }
                return Ok(Resolution {
                    directory: here,
                    missing,
                });
            }
        }
    }
    Err(ResolveProblem::NoStart)
}
