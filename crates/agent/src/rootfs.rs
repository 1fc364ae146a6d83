//! A container's root file system: the image, read-only, under a writable layer.
//!
//! ```text
//! <run>/root      overlay of
//!   <run>/scratch/upper   ext4 disk, or a tmpfs where the root is to be read-only
//!   <run>/files           /etc/hostname, hosts, resolv.conf of this start, nothing persistent
//!   <run>/image           EROFS disk, or memory shared by the host
//! ```
//!
//! The generated files are a layer, not bind mounts: no system calls per file, no target path that a
//! hostile image could bend, and nothing of them ends up in the container's changes. Where the image's /etc is a link,
//! or a mount covers /etc, a layer would not be seen: there the files are mounted over those of the container.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{Gid, Uid, chown};

use crate::disks::Image;

/// Where the parts come from.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    /// Device with the EROFS image.
    pub(crate) image: &'a Image,
    /// Device with the ext4 scratch file system; a tmpfs takes its place without.
    pub(crate) scratch: Option<&'a Path>,
    pub(crate) hostname: &'a str,
    /// Of the root's mount.
    pub(crate) flags: MsFlags,
}

/// What failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    #[error("cannot mount {what} at {target}")]
    Mount {
        what: String,
        target: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot prepare {path}")]
    Prepare {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A mounted root file system.
#[derive(Debug)]
pub(crate) struct Root {
    run: PathBuf,
    /// Directory of the generated files.
    etc: PathBuf,
    /// It is a layer of the root.
    layered: bool,
}

impl Root {
    /// Mounts all layers below the directory `run`, which is created.
    pub(crate) fn mount(run: &Path, sources: &Sources<'_>) -> Result<Self, RootError> {
        let [root, image, scratch, files] =
            ["root", "image", "scratch", "files"].map(|name| run.join(name));
        for directory in [run, &root, &image, &scratch, &files] {
            create(directory)?;
        }
        attach_image(sources.image, &image)?;
        match sources.scratch {
            // Freed blocks become holes of the host's sparse file; the template's tables are complete.
            Some(disk) => {
                attach(
                    disk,
                    &scratch,
                    "ext4",
                    MsFlags::empty(),
                    "discard,noinit_itable",
                )?;
            }
            None => attach(
                Path::new("tmpfs"),
                &scratch,
                "tmpfs",
                MsFlags::empty(),
                "mode=755",
            )?,
        }
        let upper = scratch.join("upper");
        prepare(&upper, make_layer(&image, &upper, &scratch.join("work")))?;
        let layered = has_directory(&image).map_err(|source| RootError::Prepare {
            path: image.join("etc"),
            source,
        })?;
        let etc = if layered { &files } else { run }.join("etc");
        let like = image.join("etc");
        prepare(&etc, write_files(&like, &etc, sources.hostname))?;
        let options = format!(
            "lowerdir={}:{},upperdir={},workdir={}",
            files.display(),
            image.display(),
            upper.display(),
            scratch.join("work").display()
        );
        attach(
            Path::new("overlay"),
            &root,
            "overlay",
            sources.flags,
            &options,
        )?;
        Ok(Self {
            run: run.to_owned(),
            etc,
            layered,
        })
    }

    /// Where the container's root is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.run.join("root")
    }

    /// The generated files that have to be mounted over the container's, with their paths there; `covered` says that
    /// another mount lies on /etc.
    pub(crate) fn files(&self, covered: bool) -> Vec<(PathBuf, CString)> {
        if self.layered && !covered {
            return Vec::new();
        }
        let paths = [c"/etc/hostname", c"/etc/hosts", c"/etc/resolv.conf"];
        FILES
            .iter()
            .zip(paths)
            .map(|(name, path)| (self.etc.join(name), path.to_owned()))
            .collect()
    }

    /// Unmounts everything, so that the scratch file system is clean on its disk.
    pub(crate) fn unmount(&self) -> nix::Result<()> {
        for name in ["root", "scratch", "image"] {
            match umount2(&self.run.join(name), MntFlags::empty()) {
                Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

fn prepare(path: &Path, result: io::Result<()>) -> Result<(), RootError> {
    result.map_err(|source| RootError::Prepare {
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn create(directory: &Path) -> Result<(), RootError> {
    let result = match std::fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    };
    prepare(directory, result)
}

pub(crate) fn attach(
    source: &Path,
    target: &Path,
    kind: &str,
    flags: MsFlags,
    options: &str,
) -> Result<(), RootError> {
    mount(Some(source), target, Some(kind), flags, Some(options)).map_err(|errno| {
        RootError::Mount {
            what: format!("{kind} from {}", source.display()),
            target: target.to_owned(),
            source: errno.into(),
        }
    })
}

/// Memory is read in place, without a copy in the guest's page cache, where the kernel can.
fn attach_image(image: &Image, target: &Path) -> Result<(), RootError> {
    let mount = |options| attach(&image.device, target, "erofs", MsFlags::MS_RDONLY, options);
    if image.memory {
        mount("dax=always").or_else(|_| mount(""))
    } else {
        mount("")
    }
}

/// Creates the writable layer on a new disk. Its root directory is the container's, so it looks like
/// the image's.
fn make_layer(image: &Path, upper: &Path, work: &Path) -> io::Result<()> {
    // Made last, so that its presence says that all is there.
    if work.symlink_metadata().is_ok() {
        return Ok(());
    }
    match std::fs::create_dir(upper) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    imitate(&std::fs::symlink_metadata(image)?, upper)?;
    std::fs::create_dir(work)
}

fn imitate(like: &std::fs::Metadata, path: &Path) -> io::Result<()> {
    if like.uid() != 0 || like.gid() != 0 {
        chown(
            path,
            Some(Uid::from_raw(like.uid())),
            Some(Gid::from_raw(like.gid())),
        )?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(like.mode() & 0o7777))
}

/// What Docker provides in /etc.
const FILES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

/// Whether a layer's /etc is seen above the image: not where the image has something else than a directory there.
fn has_directory(image: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(image.join("etc")) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Writes the files that Docker provides into the directory `etc`, made like the image's.
fn write_files(like: &Path, etc: &Path, hostname: &str) -> io::Result<()> {
    let like = std::fs::symlink_metadata(like)
        .ok()
        .filter(std::fs::Metadata::is_dir);
    let mode = like.as_ref().map_or(0o755, |like| like.mode() & 0o7777);
    match std::fs::DirBuilder::new().mode(mode).create(etc) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    if let Some(like) = like
        && (like.uid() != 0 || like.gid() != 0)
    {
        imitate(&like, etc)?;
    }
    let texts = [format!("{hostname}\n"), hosts(hostname), String::new()];
    for (name, text) in FILES.iter().zip(texts) {
        let mut options = std::fs::File::options();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(etc.join(name))?;
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// Docker's /etc/hosts. Without a network the container's own name leads to a loopback address.
fn hosts(hostname: &str) -> String {
    format!(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n\
         127.0.1.1\t{hostname}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_start_look_like_the_images_directory() {
        let top = tempfile::tempdir().unwrap();
        let [image, files] = ["image", "files"].map(|name| top.path().join(name));
        std::fs::create_dir_all(image.join("etc")).unwrap();
        std::fs::create_dir(&files).unwrap();
        let odd = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(image.join("etc"), odd).unwrap();
        write_files(&image.join("etc"), &files.join("etc"), "box").unwrap();
        let mode = std::fs::metadata(files.join("etc")).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o711);
        assert_eq!(
            std::fs::read_to_string(files.join("etc/hostname")).unwrap(),
            "box\n"
        );
        assert!(
            std::fs::read_to_string(files.join("etc/hosts"))
                .unwrap()
                .contains("\tbox\n")
        );
        assert_eq!(std::fs::read(files.join("etc/resolv.conf")).unwrap(), b"");
    }

    #[test]
    fn files_that_a_layer_cannot_show_are_mounted() {
        let top = tempfile::tempdir().unwrap();
        assert!(has_directory(top.path()).unwrap(), "the layer makes one");
        std::os::unix::fs::symlink("/usr/etc", top.path().join("etc")).unwrap();
        assert!(!has_directory(top.path()).unwrap());
        let root = |layered| Root {
            run: "/run/x".into(),
            etc: "/run/x/etc".into(),
            layered,
        };
        assert!(root(true).files(false).is_empty());
        for files in [root(true).files(true), root(false).files(false)] {
            assert_eq!(files.len(), 3);
            let hosts = (PathBuf::from("/run/x/etc/hosts"), c"/etc/hosts".to_owned());
            assert!(files.contains(&hosts), "{files:?}");
        }
    }
}
