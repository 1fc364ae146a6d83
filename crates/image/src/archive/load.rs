//! `load`: whatever kind of archive it is, which its content tells.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bulkhead_types::{Digest, GuestText};

use super::error::{ArchiveError, io_error};
use super::source::{Source, is_layout};
use super::{docker, layout};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
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

/// What becomes of an entry of an archive, in the archive's order.
#[derive(Debug)]
pub enum LoadEvent<'a> {
    /// A name moves to the image that is loaded next; the one that had it stays without.
    Renamed {
        /// The name.
        name: &'a Reference,
        /// The identifier of the image that had it.
        old: &'a Digest,
    },
    /// An image is in the store.
    Loaded {
        /// The image.
        image: &'a Image,
        /// The names that the archive gave it; it may have others.
        names: &'a [Reference],
    },
    /// An entry is no image, or for another platform; the others are loaded all the same.
    Skipped {
        /// Its name or digest, as the archive has it, without what disturbs a terminal.
        what: &'a str,
        /// Why.
        why: &'a ArchiveError,
    },
}

/// As [`load_reporting`], for who wants the images alone.
///
/// # Errors
/// As there.
pub fn load(
    store: &Store,
    from: LoadFrom<'_>,
    options: &LoadOptions,
    progress: &dyn Progress,
) -> Result<Vec<Image>, ArchiveError> {
    let mut images = Vec::new();
    load_reporting(store, from, options, progress, &mut |event| {
        if let LoadEvent::Loaded { image, .. } = event {
            images.push(image.clone());
        }
    })?;
    Ok(images)
}

/// Loads every image of a docker-archive, an oci-archive (each also compressed) or an OCI image
/// layout. Names that the archive gives move to its images. What is no image is passed over, unless
/// there is nothing else. `report` hears of each entry when it is done.
///
/// # Errors
/// [`ArchiveError`]; images before the faulty one are loaded then, nothing of it is left.
pub fn load_reporting(
    store: &Store,
    from: LoadFrom<'_>,
    options: &LoadOptions,
    progress: &dyn Progress,
    report: &mut dyn FnMut(LoadEvent<'_>),
) -> Result<(), ArchiveError> {
    let result = {
        let _content = store.using_content()?;
        load_with(store, from, options, progress, report)
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
    report: &mut dyn FnMut(LoadEvent<'_>),
) -> Result<(), ArchiveError> {
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
    let mut reporter = Reporter {
        report,
        loaded: false,
        first: None,
    };
    if source.has(docker::MANIFEST) {
        docker::load(store, &source, progress, &mut reporter)?;
    } else if source.has(layout::INDEX) {
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        layout::load(store, &source, &platform, progress, &mut reporter)?;
    } else {
        return Err(ArchiveError::Unknown);
    }
    reporter.finish()
}

/// Tells the caller what becomes of the entries, and remembers whether one became an image.
pub(super) struct Reporter<'a> {
    report: &'a mut dyn FnMut(LoadEvent<'_>),
    loaded: bool,
    first: Option<ArchiveError>,
}

impl Reporter<'_> {
    /// Takes in one entry; what is no image is passed over.
    pub(super) fn take(
        &mut self,
        store: &Store,
        what: &str,
        names: &[Reference],
        load: impl FnOnce() -> Result<Image, ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let before: Vec<Option<Digest>> = names
            .iter()
            .map(|name| store.resolve(&name.to_string()).ok().map(|image| image.id))
            .collect();
        let image = match load() {
            Ok(image) => image,
            Err(error) if error.passes_over() => {
                self.skip(what, error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for (name, old) in names.iter().zip(&before) {
            if let Some(old) = old.as_ref().filter(|old| **old != image.id) {
                (self.report)(LoadEvent::Renamed { name, old });
            }
        }
        (self.report)(LoadEvent::Loaded {
            image: &image,
            names,
        });
        self.loaded = true;
        Ok(())
    }

    pub(super) fn skip(&mut self, what: &str, why: ArchiveError) {
        let what = GuestText::start(what, 200);
        (self.report)(LoadEvent::Skipped {
            what: &what,
            why: &why,
        });
        self.first.get_or_insert(why);
    }

    /// An archive without a single image is an error: why the first entry is none.
    fn finish(self) -> Result<(), ArchiveError> {
        match (self.loaded, self.first) {
            (true, _) => Ok(()),
            (false, first) => Err(first.unwrap_or(ArchiveError::Empty)),
        }
    }
}
