//! Owners: nothing of the state directory belongs to somebody else.
//!
//! Who owns a lock file can hold it, whatever mode it is given; who owns a directory can put another in its place, or a link
//! that leads elsewhere. A mode is mended (`private`), an owner is not: what somebody else made may hold anything, so it
//! is refused and named.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::unistd::{User, geteuid};

use super::private::{INSIDE, TOP};
use super::{StoreError, io_error};

/// The bits with which somebody else puts things into a directory.
const WRITABLE: u32 = 0o022;
/// Of a directory that is meant to be everybody's, such as /tmp.
const STICKY: u32 = 0o1000;

/// Makes sure that the state directory `root`, where it exists, the store's pieces in it and those of `others` belong to
/// this user as far as they exist, and that nobody else can put anything into `root`.
///
/// # Errors
/// [`StoreError::Foreign`], [`StoreError::Shared`], [`StoreError::Io`].
pub fn claim(root: &Path, others: &[&str]) -> Result<(), StoreError> {
    let Some(meta) = look(root)? else {
        return Ok(());
    };
    // Before the pieces, so that none can be made behind our back.
    if meta.mode() & WRITABLE != 0 && meta.is_dir() {
        if meta.mode() & STICKY != 0 {
            return Err(StoreError::Shared {
                path: root.to_owned(),
                mode: meta.mode() & 0o7777,
            });
        }
        let mode = Permissions::from_mode(meta.mode() & 0o7777 & !WRITABLE);
        fs::set_permissions(root, mode)
            .map_err(io_error("take from others the permissions of", root))?;
    }
    for piece in TOP.iter().chain(&INSIDE).chain(others) {
        look(&root.join(piece))?;
    }
    Ok(())
}

/// Refuses a path of somebody else's, and a link of ours to such a one. Returns what is there in the end.
pub(super) fn look(path: &Path) -> Result<Option<Metadata>, StoreError> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => check(path, meta)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("look at", path)(error)),
    };
    if !meta.is_symlink() {
        return Ok(Some(meta));
    }
    match fs::metadata(path) {
        Ok(meta) => check(path, meta).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("look at", path)(error)),
    }
}

/// Refuses what is not ours.
pub(super) fn check(path: &Path, meta: Metadata) -> Result<Metadata, StoreError> {
    if meta.uid() == geteuid().as_raw() {
        return Ok(meta);
    }
    Err(StoreError::Foreign {
        path: path.to_owned(),
        owner: name(meta.uid()),
        user: name(geteuid().as_raw()),
    })
}

/// As people know a user.
fn name(uid: u32) -> String {
    match User::from_uid(uid.into()) {
        Ok(Some(user)) => format!("{} ({uid})", user.name),
        _ => uid.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, lchown, symlink};

    use super::super::Store;
    use super::*;

    /// Any user but root.
    const STRANGER: u32 = 65_533;

    #[test]
    fn a_piece_of_somebody_elses_is_refused_and_named() {
        if !geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        Store::open(&root).unwrap();
        for piece in [
            "",
            "layers",
            "locks",
            "locks/index",
            "image",
            "image/blobs",
            "image/index.json",
        ] {
            let path = root.join(piece);
            chown(&path, Some(STRANGER), None).unwrap();
            let refused = Store::open(&root)
                .and_then(|store| store.update_index(|_| Ok(())))
                .unwrap_err();
            let text = refused.to_string();
            assert!(text.contains("belongs to user 65533"), "{piece}: {text}");
            assert!(
                text.contains(path.to_str().unwrap().trim_end_matches('/')),
                "{text}"
            );
            assert!(refused.hint().is_some());
            chown(&path, Some(0), None).unwrap();
        }
        Store::open(&root).unwrap();
        fs::remove_dir(root.join("layers")).unwrap();
        symlink("/", root.join("layers")).unwrap();
        lchown(root.join("layers"), Some(STRANGER), None).unwrap();
        assert!(
            matches!(Store::open(&root), Err(StoreError::Foreign { .. })),
            "a link"
        );
    }

    #[test]
    fn a_root_that_others_write_to_is_mended_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let set = |mode| fs::set_permissions(&root, Permissions::from_mode(mode)).unwrap();
        set(0o775);
        Store::open(&root).unwrap();
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o755);
        set(0o1777);
        let refused = Store::open(&root).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("is writable by others (mode 1777)"),
            "{refused}"
        );
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o1777);
    }
}
