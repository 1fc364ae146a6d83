//! `load`: whatever kind of archive it is, which its content tells.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::{ArchiveError, io_error};
use super::source::{Source, is_layout};
use super::{docker, layout};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::store::{Image, Store};

/// Where an archive comes from.
pub enum LoadFrom<'a> {
    /// An archive file, or the directory of an OCI image layout.
    Path(&'a Path),
    /// A stream, for example standard input.
    Reader(&'a mut dyn Read),
}

/// What to load.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The platform to choose where an archive has several; by default this host's.
    pub platform: Option<Platform>,
}

/// Loads every image of a docker-archive, an oci-archive (each also compressed) or an OCI image
/// layout. Names that the archive gives move to its images.
///
/// # Errors
/// [`ArchiveError`]; images before the faulty one are loaded then, nothing of it is left.
pub fn load(
    store: &Store,
    from: LoadFrom<'_>,
    options: &LoadOptions,
    progress: &dyn Progress,
) -> Result<Vec<Image>, ArchiveError> {
    let result = {
        let _content = store.using_content()?;
        load_with(store, from, options, progress)
    };
    // Files of the archive that belong to no image have become blobs too.
    store.tidy();
    result
}

fn load_with(
    store: &Store,
    from: LoadFrom<'_>,
    options: &LoadOptions,
    progress: &dyn Progress,
) -> Result<Vec<Image>, ArchiveError> {
    let source = match from {
        LoadFrom::Path(path) if path.is_dir() => {
            if !is_layout(path) {
                return Err(ArchiveError::Unknown);
            }
            Source::Directory(path.to_owned())
        }
        LoadFrom::Path(path) => {
            let mut file = File::open(path).map_err(io_error("open", path))?;
            Source::read_tar(store, &mut file, progress)?
        }
        LoadFrom::Reader(reader) => Source::read_tar(store, reader, progress)?,
    };
    if source.has(docker::MANIFEST) {
        docker::load(store, &source, progress)
    } else if source.has(layout::INDEX) {
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        layout::load(store, &source, &platform, progress)
    } else {
        Err(ArchiveError::Unknown)
    }
}
