//! Which container has which name.
//!
//! `<root>/names/<name>` is a symbolic link whose target is the container's identifier: creating it
//! is one system call that only one process can win. The truth is in the containers' own records: a
//! link to a container that no longer exists is stale and may be taken over, and a lost link is
//! found again by looking through the records.

mod words;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use bulkhead_types::{ContainerId, ContainerName};
use nix::fcntl::{Flock, FlockArg};

use crate::kind::FileError;

/// The name index of one root.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    dir: PathBuf,
}

/// How a reservation went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reservation {
    /// The name is the caller's.
    Ours,
    /// A living container has it.
    Taken(ContainerId),
}

impl Names {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn path(&self, name: &ContainerName) -> PathBuf {
        // The grammar of names excludes `/` and a leading dot, so this stays inside the directory.
        self.dir.join(name.as_str())
    }

    /// Who has `name` according to the index.
    pub(crate) fn lookup(&self, name: &ContainerName) -> Option<ContainerId> {
        let target = fs::read_link(self.path(name)).ok()?;
        target.to_str()?.parse().ok()
    }

    /// Gives `name` to `id` unless a container that `exists` has it.
    pub(crate) fn reserve(
        &self,
        name: &ContainerName,
        id: &ContainerId,
        exists: impl Fn(&ContainerId) -> bool,
    ) -> Result<Reservation, FileError> {
        let path = self.path(name);
        if self.link(id, &path)? {
            return Ok(Reservation::Ours);
        }
        if let Some(owner) = self.lookup(name).filter(&exists) {
            return Ok(Reservation::Taken(owner));
        }
        // Stale. Two who see that must not undo each other's new link, so they take turns.
        let _turn = self.lock()?;
        if let Some(owner) = self.lookup(name).filter(&exists) {
            return Ok(Reservation::Taken(owner));
        }
        remove(&path)?;
        if self.link(id, &path)? {
            return Ok(Reservation::Ours);
        }
        // Someone without a need to remove came between: theirs is the newer link.
        match self.lookup(name) {
            Some(owner) => Ok(Reservation::Taken(owner)),
            None => Err(FileError {
                action: "create link",
                path,
                source: io::ErrorKind::AlreadyExists.into(),
            }),
        }
    }

    /// Gives up `name` if it is `id`'s.
    pub(crate) fn release(&self, name: &ContainerName, id: &ContainerId) -> Result<(), FileError> {
        if self.lookup(name).as_ref() != Some(id) {
            return Ok(());
        }
        let _turn = self.lock()?;
        if self.lookup(name).as_ref() == Some(id) {
            remove(&self.path(name))?;
        }
        Ok(())
    }

    /// Removes links to containers that do not exist. What is no link to an identifier is not ours and stays.
    pub(crate) fn sweep(&self, exists: impl Fn(&ContainerId) -> bool) -> Result<(), FileError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(FileError::at("read directory", &self.dir)(e)),
        };
        let links = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let stale: Vec<ContainerName> = links
            .filter(|name| self.lookup(name).is_some_and(|id| !exists(&id)))
            .collect();
        if stale.is_empty() {
            return Ok(());
        }
        let _turn = self.lock()?;
        for name in stale {
            if self.lookup(&name).is_some_and(|id| !exists(&id)) {
                remove(&self.path(&name))?;
            }
        }
        Ok(())
    }

    fn link(&self, id: &ContainerId, path: &Path) -> Result<bool, FileError> {
        match symlink(id.as_str(), path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(FileError::at("create link", path)(e)),
        }
    }

    fn lock(&self) -> Result<Flock<File>, FileError> {
        let dir = File::open(&self.dir).map_err(FileError::at("open directory", &self.dir))?;
        Flock::lock(dir, FlockArg::LockExclusive)
            .map_err(|(_, e)| FileError::at("lock", &self.dir)(e.into()))
    }
}

fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::at("remove", path)(e)),
        _ => Ok(()),
    }
}

/// A random name, from 4 random bytes. After `attempt` collisions a number joins it, so that a free
/// name is found however many containers there are.
pub(crate) fn random(bytes: [u8; 4], attempt: u32) -> Option<ContainerName> {
    let [a, b, c, d] = bytes.map(usize::from);
    let adjective = words::ADJECTIVES.get((a << 8 | b) % words::ADJECTIVES.len())?;
    let noun = words::NOUNS.get((c << 8 | d) % words::NOUNS.len())?;
    let text = if attempt < 3 {
        format!("{adjective}_{noun}")
    } else {
        format!(
            "{adjective}_{noun}{}",
            (a * 7 + c * 13 + d) % 10_usize.saturating_pow(attempt.min(9))
        )
    };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn id(byte: u8) -> ContainerId {
        ContainerId::from_bytes([byte; 32])
    }

    fn name(text: &str) -> ContainerName {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_is_given_once_until_it_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let names = Names::new(dir.path().to_owned());
        let all = |_: &ContainerId| true;
        assert_eq!(
            names.reserve(&name("web"), &id(1), all).unwrap(),
            Reservation::Ours
        );
        assert_eq!(
            names.reserve(&name("web"), &id(2), all).unwrap(),
            Reservation::Taken(id(1))
        );
        names.release(&name("web"), &id(2)).unwrap();
        assert_eq!(
            names.lookup(&name("web")),
            Some(id(1)),
            "only the owner can release"
        );
        names.release(&name("web"), &id(1)).unwrap();
        assert_eq!(
            names.reserve(&name("web"), &id(2), all).unwrap(),
            Reservation::Ours
        );
    }

    #[test]
    fn the_name_of_a_container_that_vanished_can_be_taken() {
        let dir = tempfile::tempdir().unwrap();
        let names = Names::new(dir.path().to_owned());
        let none = |_: &ContainerId| false;
        names.reserve(&name("web"), &id(1), none).unwrap();
        assert_eq!(
            names.reserve(&name("web"), &id(2), none).unwrap(),
            Reservation::Ours
        );
        assert_eq!(names.lookup(&name("web")), Some(id(2)));
        std::os::unix::fs::symlink("garbage", dir.path().join("odd")).unwrap();
        assert_eq!(
            names.reserve(&name("odd"), &id(2), |_| true).unwrap(),
            Reservation::Ours
        );
    }

    #[test]
    fn sweeping_keeps_the_living() {
        let dir = tempfile::tempdir().unwrap();
        let names = Names::new(dir.path().to_owned());
        names.reserve(&name("live"), &id(1), |_| true).unwrap();
        names.reserve(&name("dead"), &id(2), |_| true).unwrap();
        names.sweep(|owner| *owner == id(1)).unwrap();
        assert_eq!(names.lookup(&name("live")), Some(id(1)));
        assert_eq!(names.lookup(&name("dead")), None);
        Names::new(dir.path().join("absent"))
            .sweep(|_| true)
            .unwrap();
    }

    #[test]
    fn of_many_who_want_a_stale_name_one_gets_it() {
        let dir = tempfile::tempdir().unwrap();
        let names = Names::new(dir.path().to_owned());
        let dead = id(0);
        names.reserve(&name("web"), &dead, |_| true).unwrap();
        let winners: Vec<_> = std::thread::scope(|scope| {
            let tries: Vec<_> = (1..=8)
                .map(|n| {
                    let names = names.clone();
                    scope.spawn(move || {
                        names
                            .reserve(&name("web"), &id(n), |o| *o != id(0))
                            .unwrap()
                    })
                })
                .collect();
            tries
                .into_iter()
                .map(|t| t.join().unwrap())
                .filter(|r| *r == Reservation::Ours)
                .collect()
        });
        assert_eq!(winners.len(), 1);
    }

    #[test]
    fn random_names_are_valid_and_grow_after_collisions() {
        for n in 0..=255u8 {
            assert!(random([n, n.wrapping_mul(7), n.wrapping_mul(31), n ^ 0x5a], 0).is_some());
        }
        assert!(
            random([1, 2, 3, 4], 5)
                .unwrap()
                .as_str()
                .ends_with(|c: char| c.is_ascii_digit())
        );
        let unique: HashSet<_> = words::ADJECTIVES.iter().chain(&words::NOUNS).collect();
        // "sound" is in both lists.
        assert_eq!(
            unique.len(),
            words::ADJECTIVES.len() + words::NOUNS.len() - 1
        );
    }
}
